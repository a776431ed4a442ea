"""Reads what torch.save wrote; torch's restricted unpickler runs nothing from the file."""

import argparse
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.file_kind import STATE_DICT_ADVICE
from nettrim.importers.memory_limit import FLOAT_BYTES, ByteTotal
from nettrim.importers.standard_layers import check_layers, first_features, keep_outputs, standard_layers
from nettrim.importers.torch_library import first_line, import_torch
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

STATE_KEYS = ("state_dict", "model_state_dict", "model", "net")  # where checkpoints of public projects keep it
HOOKS = "torch.nn.utils."  # where the functions lie that layers are wrapped in
HOOKS_ADVICE = (
    "take off what wraps its layers (prune.remove, remove_weight_norm, remove_spectral_norm) and save it again"
)
TRUST_ADVICE = "--trust-pickle opens it all the same, for files whose origin you trust"
TRUST_NOTE = "opened with --trust-pickle: the file may have run any code"
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


@dataclass(frozen=True, eq=False)
class PickledModule:
    """A whole torch.nn.Module in a file.

    Attributes
    ----------
    module : torch.nn.Module
        In evaluation mode.
    input_shape : tuple of int or None
        Of one sample, None when the module does not tell.
    notes : tuple of str
        What was unwrapped, and whether the file was trusted.
    """

    module: Any
    input_shape: tuple[int, ...] | None
    notes: tuple[str, ...]


def read_torch_file(path: Path, *, trust_pickle: bool) -> StateDict | PickledModule:
    """Return what is in a file written by torch.save.

    Parameters
    ----------
    trust_pickle : bool
        Whether a file that torch's restricted unpickler refuses is opened by the unrestricted one, which runs any
        code that the file names.

    Raises
    ------
    ModelFileError
        When torch is missing, the file is damaged, asks for Python code, or holds something else.
    """
    torch = import_torch(path)
    content, trust_notes = _load(torch, path, trust_pickle=trust_pickle)
    module, notes = _find(content, lambda value: isinstance(value, torch.nn.Module), "module")
    if module is not None:
        if not trust_notes:
            check_layers(path, torch, module)
            notes = (*notes, *keep_outputs(torch, module))
        return _prepared(path, torch, module, (*trust_notes, *notes))
    found, notes = _find(content, _is_state, "state dict")
    if found is None:
        raise ModelFileError(
            f"{path}: the file holds {_describe(content)}, expected a state dict (names to tensors), a torch.nn.Module"
            f" or a checkpoint with one under {', '.join(map(repr, STATE_KEYS))}; {STATE_DICT_ADVICE}"
        )
    state = dict(found)
    _check_total(path, state.items())
    for prefix in WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            notes = (*notes, f"prefix {prefix!r} removed from every name")
    return StateDict(state, (*trust_notes, *notes))


def _prepared(path: Path, torch: Any, module: Any, notes: tuple[str, ...]) -> PickledModule:
    try:
        _check_total(path, (*module.named_parameters(), *module.named_buffers()))
        return PickledModule(module.float().eval(), first_features(torch, module), notes)
    except ModelFileError:
        raise
    except Exception as error:  # attributes of other types than torch's raise anything
        raise ModelFileError(f"{path}: the module in the file is damaged ({first_line(error)})") from error


def _check_total(path: Path, tensors: Iterable[tuple[str, Any]]) -> None:
    """Check what tensors take as floats: strides of zero make a small file stand for much."""
    total = ByteTotal(path)
    for name, tensor in tensors:
        total.add(name, tensor.numel() * max(tensor.itemsize, FLOAT_BYTES))


def float_array(path: Path, name: str, tensor: Any) -> Array:
    """Return a tensor's values as float32, checked.

    Raises
    ------
    ModelFileError
        When it is not a plain tensor of real numbers, or holds NaN or infinity.
    """
    if not tensor.is_floating_point() or tensor.is_sparse or tensor.is_quantized:
        raise ModelFileError(f"{path}: tensor {name!r} is {tensor.dtype}, {tensor.layout}; expected dense floats")
    values: Array = tensor.detach().float().numpy()
    if not np.isfinite(values).all():
        raise ModelFileError(f"{path}: tensor {name!r} holds NaN or infinity, expected trained weights")
    return np.ascontiguousarray(values)


def _load(torch: Any, path: Path, *, trust_pickle: bool) -> tuple[Any, tuple[str, ...]]:
    try:
        with torch.serialization.safe_globals(_classes(torch)):
            return torch.load(path, map_location="cpu", weights_only=True), ()
    except pickle.UnpicklingError as error:
        if trust_pickle:
            return _load_trusted(torch, path), (TRUST_NOTE,)
        asked = _unsafe_names(torch, path, error)
        advice = f"{HOOKS_ADVICE}; or {STATE_DICT_ADVICE}" if HOOKS in asked else STATE_DICT_ADVICE
        raise ModelFileError(
            f"{path}: this is a pickled object, not a state dict or layers of torch.nn alone: opening it would run"
            f" Python code ({asked}); {advice}; {TRUST_ADVICE}"
        ) from error
    except Exception as error:  # a damaged file raises anything, from KeyError to RuntimeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path}: the PyTorch file is damaged ({reason}); save or copy it again") from error


def _classes(torch: Any) -> list[Any]:
    """Return the classes that may be in a file: of layers, and of the settings that checkpoints keep."""
    return [*standard_layers(torch), argparse.Namespace]


def _load_trusted(torch: Any, path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise ModelFileError(
            f"{path}: the pickled object cannot be opened with --trust-pickle either ({first_line(error)}); it needs"
            f" the Python code of its classes, for instance on PYTHONPATH; or {STATE_DICT_ADVICE}"
        ) from error


def _unsafe_names(torch: Any, path: Path, refusal: Exception) -> str:
    try:
        with torch.serialization.safe_globals(_classes(torch)):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  a file before 1.6, or a damaged one: torch has named the first
        names = re.findall(r"GLOBAL (\S+) was not", str(refusal))
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"it asks for {shown}" if names else "its pickle holds instructions that no state dict needs"


def _find(content: Any, is_wanted: Callable[[Any], bool], what: str) -> tuple[Any, tuple[str, ...]]:
    """Return what is wanted, the content itself or an entry of a checkpoint, and a note on where it was."""
    if is_wanted(content):
        return content, ()
    if isinstance(content, dict):
        for key in STATE_KEYS:
            if is_wanted(content.get(key)):
                return content[key], (f"{what} found under {key!r} of a checkpoint",)
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
