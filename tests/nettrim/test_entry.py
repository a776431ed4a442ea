"""Where the commands start."""

import builtins
from collections.abc import Callable
from typing import Any

import pytest

from nettrim.entry import deploy_main, main


@pytest.mark.parametrize("command", [main, deploy_main])
def test_ctrl_c_during_imports_ends_with_130(command: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def interrupted(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "nettrim.cli":
            raise KeyboardInterrupt
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 130
