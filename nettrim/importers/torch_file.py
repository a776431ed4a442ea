"""Reads a PyTorch zip into named arrays; torch's restricted unpickler runs nothing from the file."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.file_kind import MAX_FILE_BYTES, STATE_DICT_ADVICE
from nettrim.importers.torch_library import import_torch
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")  # where checkpoints of public projects keep it
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile


@dataclass(frozen=True, eq=False)
class StateDict:
    """The named tensors of a file.

    Attributes
    ----------
    tensors : Mapping of str to torch.Tensor
        In the file's order, wrappers' prefixes removed.
    notes : tuple of str
        What was unwrapped.
    """

    tensors: Mapping[str, Any]
    notes: tuple[str, ...]


def read_state_dict(path: Path) -> StateDict:
    """Return the state dict of a file written by torch.save.

    Raises
    ------
    ModelFileError
        When torch is missing, the file is damaged, asks for Python code, or holds something else.
    """
    content = _load(path)
    state, notes = _find_state(content)
    if state is None:
        raise ModelFileError(
            f"{path}: the file holds {_describe(content)}, expected a state dict (names to tensors)"
            f" or a checkpoint with one under {', '.join(map(repr, STATE_KEYS))}; {STATE_DICT_ADVICE}"
        )
    for prefix in WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            notes = (*notes, f"prefix {prefix!r} removed from every name")
    return StateDict(state, notes)


def float_array(path: Path, name: str, tensor: Any) -> Array:
    """Return a tensor's values as float32, checked.

    Raises
    ------
    ModelFileError
        When it is not a plain tensor of real numbers, or holds NaN or infinity.
    """
    if not tensor.is_floating_point() or tensor.is_sparse or tensor.is_quantized:
        raise ModelFileError(f"{path}: tensor {name!r} is {tensor.dtype}, {tensor.layout}; expected dense floats")
    if tensor.numel() * 4 > MAX_FILE_BYTES:  # strides of zero make a small file stand for a huge tensor
        raise ModelFileError(f"{path}: tensor {name!r} has {tensor.numel()} values, more than a model may hold")
    values: Array = tensor.detach().float().numpy()
    if not np.isfinite(values).all():
        raise ModelFileError(f"{path}: tensor {name!r} holds NaN or infinity, expected trained weights")
    return np.ascontiguousarray(values)


def _load(path: Path) -> Any:
    torch = import_torch(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(
            f"{path}: this is a pickled object, not a state dict: opening it would run Python code"
            f" ({_unsafe_names(torch, path)}); {STATE_DICT_ADVICE}"
        ) from error
    except Exception as error:  # a damaged file raises anything, from KeyError to RuntimeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path}: the PyTorch file is damaged ({reason}); save or copy it again") from error


def _unsafe_names(torch: Any, path: Path) -> str:
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  the file is hostile or damaged, the refusal stands without the names
        names = []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"it asks for {shown}" if names else "its pickle holds instructions that no state dict needs"


def _find_state(content: Any) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    if _is_state(content):
        return dict(content), ()
    if isinstance(content, dict):
        for key in STATE_KEYS:
            if _is_state(content.get(key)):
                return dict(content[key]), (f"state dict found under {key!r} of a checkpoint",)
    return None, ()


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and hasattr(value, "is_floating_point") for name, value in content.items())
    )


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {', '.join(map(repr, list(content)[:8]))}" if content else "an empty dict"
    return f"one {type(content).__name__}"
