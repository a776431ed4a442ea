"""Where the commands start."""

import builtins
import subprocess
import sys
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


def test_libraries_that_take_long_to_import_wait_until_they_are_needed() -> None:
    script = "import sys, nettrim.cli; print(*({'scipy.stats', 'torch', 'ai_edge_litert', 'cvxpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
