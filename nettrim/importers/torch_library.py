"""The optional import of torch, in one place, and what its errors say."""

import importlib
import re
from pathlib import Path
from typing import Any

from nettrim_runtime.errors import ModelFileError

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
INTERPRETER = "failed in the TorchScript interpreter"


def import_torch(path: Path) -> Any:
    """Return the torch module.

    Raises
    ------
    ModelFileError
        When torch is not installed; ``path`` is the file that needs it.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ModelFileError(
            f"{path}: PyTorch is needed to read this file and is not installed: pip install nettrim[torch]"
        ) from error


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says, or what a script's interpreter says last."""
    lines = COLOURS.sub("", str(error)).strip().splitlines()
    if not lines:
        return type(error).__name__
    if INTERPRETER in lines[0]:
        return lines[-1].strip()
    return f"{type(error).__name__}: {lines[0]}"


def root_cause(error: BaseException) -> BaseException:
    """Return the error that another one reports, at the end of the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
