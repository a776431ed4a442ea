"""A state dict with the user's own module: loaded into it."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nettrim.importers.torch_library import first_line, import_torch
from nettrim_runtime.errors import ModelFileError

TRAINING_COUNTER = "num_batches_tracked"  # of batch normalisations; state dicts from before PyTorch 1.0 lack it
NAMES_SHOWN = 5


def load_with_state(path: Path, state: Mapping[str, Any], arch: str) -> Any:
    """Return the torch.nn.Module that ``arch`` makes, with a state dict loaded into it, in evaluation mode.

    The Python file runs: it is the user's own, named on the command line.

    Parameters
    ----------
    path : Path
        The file of the state dict, for error messages.
    state : Mapping of str to torch.Tensor
        Every parameter and buffer of the module.
    arch : str
        "FILE.py:FACTORY"; FACTORY() returns a torch.nn.Module.

    Raises
    ------
    ModelFileError
        When the file or the factory fails, or the state dict does not fit.
    """
    module = load_module(arch)
    _load_state(path, module, state, arch)
    return module.eval()


def load_module(arch: str) -> Any:
    """Return the torch.nn.Module that a factory in the user's Python file makes.

    Parameters
    ----------
    arch : str
        "FILE.py:FACTORY".

    Raises
    ------
    ModelFileError
        When the file or the factory fails, or it returns something else.
    """
    file, _, name = arch.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ModelFileError(f"--arch {arch}: expected FILE.py:FACTORY, for instance --arch net.py:make_net")
    if not Path(file).is_file():
        raise ModelFileError(f"--arch {arch}: there is no file {file}")
    try:
        factory = getattr(_run_file(Path(file)), name, None)
    except Exception as error:
        raise ModelFileError(f"--arch {arch}: running {file} failed ({first_line(error)})") from error
    if not callable(factory):
        raise ModelFileError(f"--arch {arch}: {file} has no function or class {name!r}")
    try:
        module = factory()
    except Exception as error:
        raise ModelFileError(f"--arch {arch}: {name}() failed ({first_line(error)})") from error
    if not isinstance(module, import_torch(Path(file)).nn.Module):
        raise ModelFileError(f"--arch {arch}: {name}() returned {type(module).__name__}, expected a torch.nn.Module")
    return module


def _run_file(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"nettrim_arch_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling look it up there
    sys.path.insert(0, str(file.resolve().parent))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


def _load_state(path: Path, module: Any, state: Mapping[str, Any], arch: str) -> None:
    wanted = set(module.state_dict())
    missing = sorted(name for name in wanted - set(state) if not name.endswith(TRAINING_COUNTER))
    unexpected = sorted(set(state) - wanted)
    if missing or unexpected:
        raise ModelFileError(
            f"{path}: the state dict does not fit the module of {arch}: missing {_shown(missing)};"
            f" unexpected {_shown(unexpected)}"
        )
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{path}: the state dict does not fit the module of {arch}: {reason}") from error


def _shown(names: list[str]) -> str:
    listed = ", ".join(names[:NAMES_SHOWN]) or "nothing"
    return listed + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
