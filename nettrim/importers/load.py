"""A model file of any kind that can be read, to an ImportedModel."""

import math
from dataclasses import replace
from pathlib import Path

from nettrim.importers.architecture import export_with_module
from nettrim.importers.file_kind import FileKind, identify
from nettrim.importers.imported_model import ImportedModel
from nettrim.importers.linear_chain import NotAChain, build_linear_chain, describe_linear_chain, find_linear_chain
from nettrim.importers.onnx_import import import_onnx
from nettrim.importers.torch_file import StateDict, float_array, read_state_dict
from nettrim_runtime.errors import ModelFileError

STATE_DICT_FORMAT = "PyTorch state dict"


def load_model(path: Path, *, input_shape: tuple[int, ...] | None = None, arch: str | None = None) -> ImportedModel:
    """Return the network in a file, simplified; nothing from the file is executed.

    Parameters
    ----------
    path : Path
        A PyTorch state dict or checkpoint (.pt, .pth), or an ONNX model. The content counts, not the name.
    input_shape : tuple of int, optional
        The shape of one sample without the batch axis, where the file does not carry it.
    arch : str, optional
        "FILE.py:FACTORY" for a state dict that is not a plain chain of Linear and ReLU.

    Raises
    ------
    ModelFileError
        When the file is of another kind or damaged, or an argument is missing or does not fit.
    UnsupportedOperatorError
        When the network holds operators that cannot be carried over: the message names all of them.
    """
    if input_shape is not None and (not input_shape or min(input_shape) < 1):
        raise ModelFileError(f"--input-shape {input_shape}: expected sizes of at least one, for instance 1,28,28")
    kind = identify(path)
    if kind is FileKind.TORCH_ZIP:
        return _load_state_dict(path, input_shape, arch)
    if arch is not None:
        raise ModelFileError(f"{path}: --arch belongs to PyTorch state dicts, an ONNX model carries its own network")
    return import_onnx(path.read_bytes(), str(path), path.stem, input_shape)


def _load_state_dict(path: Path, input_shape: tuple[int, ...] | None, arch: str | None) -> ImportedModel:
    state = read_state_dict(path)
    if arch is not None:
        return _load_with_module(path, state, input_shape, arch)
    layers = find_linear_chain({name: tuple(tensor.shape) for name, tensor in state.tensors.items()})
    if isinstance(layers, NotAChain):
        raise ModelFileError(
            f"{path}: the state dict is not a plain chain of Linear and ReLU: {layers.reason}; give the network's"
            " code with --arch FILE.py:FACTORY (and --input-shape, for instance 1,28,28), or export it to ONNX"
        )
    arrays = {name: float_array(path, name, tensor) for name, tensor in state.tensors.items()}
    graph = build_linear_chain(path, layers, arrays)
    n_inputs = graph.tensors[graph.inputs[0]].size
    source_shape = (n_inputs,) if input_shape is None else input_shape
    if math.prod(source_shape) != n_inputs:
        given = ",".join(map(str, source_shape))
        raise ModelFileError(
            f"{path}: --input-shape {given} has {math.prod(source_shape)} values, the first layer takes {n_inputs}"
        )
    notes = (*state.notes, f"state dict recognised as {describe_linear_chain(graph)}", "transposes left: 0")
    return ImportedModel(graph, "flat", source_shape, notes, STATE_DICT_FORMAT)


def _load_with_module(path: Path, state: StateDict, input_shape: tuple[int, ...] | None, arch: str) -> ImportedModel:
    if input_shape is None:
        raise ModelFileError(
            f"{path}: --arch needs the shape of one sample as well, for instance --input-shape 1,28,28"
        )
    data = export_with_module(path, state.tensors, arch, input_shape)
    model = import_onnx(data, f"{path} with --arch {arch}", path.stem, input_shape)
    notes = (*state.notes, f"state dict loaded into the module of {arch} and exported to ONNX", *model.notes)
    return replace(model, notes=notes, format=STATE_DICT_FORMAT)
