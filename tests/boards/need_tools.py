"""Skip a test by the name of the tool that it lacks; in CI, where every tool is installed, fail."""

import os

import pytest

from nettrim.toolchain import DEBIAN_PACKAGES, find_tool


def need_tools(*names: str) -> None:
    for name in names:
        if find_tool(name) is None:
            message = f"{name} is not installed (apt install {DEBIAN_PACKAGES.get(name, name)})"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
