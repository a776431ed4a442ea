"""The optional import of torch, in one place."""

import importlib
from pathlib import Path
from typing import Any

from nettrim_runtime.errors import ModelFileError


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
