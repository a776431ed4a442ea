"""A model file of any kind that can be read, to an ImportedModel."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nettrim.importers.architecture import load_with_state
from nettrim.importers.aten_program import ArchivedModule, open_export_archive
from nettrim.importers.file_kind import FileKind, identify
from nettrim.importers.graph_builder import Array
from nettrim.importers.imported_model import ImportedModel
from nettrim.importers.keras_config import KerasModel
from nettrim.importers.keras_file import read_keras_h5, read_keras_zip
from nettrim.importers.keras_layers import CONVERTERS
from nettrim.importers.keras_network import render_onnx
from nettrim.importers.linear_chain import NotAChain, build_linear_chain, describe_linear_chain, find_linear_chain
from nettrim.importers.onnx_import import import_onnx
from nettrim.importers.safetensors_file import float_values, read_safetensors
from nettrim.importers.script_process import export_apart
from nettrim.importers.tflite_import import import_tflite
from nettrim.importers.torch_export import EXAMPLE_BATCH, export_module, run_module_on
from nettrim.importers.torch_file import PickledModule, float_array, read_torch_file
from nettrim.importers.torch_library import import_torch
from nettrim.importers.torch_network import ExportedModule, import_exported
from nettrim.importers.torchscript import read_torchscript
from nettrim_runtime.errors import ModelFileError

STATE_DICT_FORMAT = "PyTorch state dict"
MODULE_FORMAT = "PyTorch module"
EXPORT_FORMAT = "PyTorch export archive"
TORCHSCRIPT_FORMAT = "TorchScript"
KERAS_FORMAT = "Keras"
SAFETENSORS_FORMAT = "safetensors"


@dataclass(frozen=True)
class _Request:
    """What the user asked for, as `load_model` takes it."""

    path: Path
    input_shape: tuple[int, ...] | None
    arch: str | None
    trust_pickle: bool


@dataclass(frozen=True, eq=False)
class _Weights:
    """Named tensors whose network is still to be found.

    Attributes
    ----------
    shapes : Mapping of str to tuple of int
        In the file's order.
    as_arrays, as_tensors : callable
        Return float32 arrays, checked, or torch tensors by name.
    """

    format: str
    shapes: Mapping[str, tuple[int, ...]]
    as_arrays: Callable[[], Mapping[str, Array]]
    as_tensors: Callable[[], Mapping[str, Any]]
    notes: tuple[str, ...] = ()


def load_model(
    path: Path, *, input_shape: tuple[int, ...] | None = None, arch: str | None = None, trust_pickle: bool = False
) -> ImportedModel:
    """Return the network in a file, simplified; nothing from the file is executed unless it is trusted.

    Parameters
    ----------
    path : Path
        A PyTorch state dict, checkpoint or module (.pt, .pth), safetensors, Keras, ONNX or .tflite. The content
        counts, not the name.
    input_shape : tuple of int, optional
        The shape of one sample without the batch axis, where the file does not carry it.
    arch : str, optional
        "FILE.py:FACTORY" for weights that are not a plain chain of Linear and ReLU.
    trust_pickle : bool
        Whether files are opened that cannot be without running code from them.

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
    request = _Request(path, input_shape, arch, trust_pickle)
    if kind is FileKind.TORCH_PICKLE:
        return _load_torch(request)
    if kind is FileKind.SAFETENSORS:
        return _load_weights(request, _read_safetensors(path))
    _refuse_arch(request)
    if kind is FileKind.EXPORT_ARCHIVE:
        return _load_export_archive(request)
    if kind is FileKind.TORCHSCRIPT:
        return _load_torchscript(request)
    if kind is FileKind.KERAS_H5:
        return _load_keras(request, read_keras_h5(path))
    if kind is FileKind.KERAS_ZIP:
        return _load_keras(request, read_keras_zip(path))
    if kind is FileKind.TFLITE:
        return import_tflite(path.read_bytes(), str(path), path.stem, input_shape)
    return import_onnx(path.read_bytes(), str(path), path.stem, input_shape, folder=path.parent)


def _load_torch(request: _Request) -> ImportedModel:
    path = request.path
    content = read_torch_file(path, trust_pickle=request.trust_pickle)
    if isinstance(content, PickledModule):
        _refuse_arch(request)
        told = content.input_shape if request.input_shape is None else None
        shape = told or _needed_shape(request, "a pickled module")
        model = import_exported(path, _exported(path, content.module, shape), shape)
        return _described(model, MODULE_FORMAT, *content.notes, "module exported to ONNX")
    tensors = content.tensors
    weights = _Weights(
        STATE_DICT_FORMAT,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        lambda: {name: float_array(path, name, tensor) for name, tensor in tensors.items()},
        lambda: tensors,
        content.notes,
    )
    return _load_weights(request, weights)


def _load_export_archive(request: _Request) -> ImportedModel:
    path = request.path
    archived = open_export_archive(path, trust_pickle=request.trust_pickle)
    shape = _archived_shape(request, archived)
    exported = _exported(path, archived.module, shape, has_open_batch=archived.has_open_batch)
    model = import_exported(path, exported, request.input_shape)
    return _described(model, EXPORT_FORMAT, *archived.notes, "export archive exported to ONNX")


def _archived_shape(request: _Request, archived: ArchivedModule) -> tuple[int, ...]:
    """Return the shape of one sample: the file's, its open sizes from --input-shape."""
    known, given = archived.input_shape, request.input_shape
    sizes = tuple(size for size in known if size is not None)
    if len(sizes) == len(known):
        return sizes
    if given is None or len(given) != len(known):
        shown = ",".join("any" if size is None else str(size) for size in known)
        raise ModelFileError(f"{request.path}: the file leaves sizes of its input open ({shown}): give --input-shape")
    return tuple(own or size for own, size in zip(known, given, strict=True))


def _load_torchscript(request: _Request) -> ImportedModel:
    path, shape = request.path, _needed_shape(request, "TorchScript")
    archive, notes = read_torchscript(path, trust_pickle=request.trust_pickle)
    model = import_exported(path, export_apart(path, archive, shape), shape)
    return _described(model, TORCHSCRIPT_FORMAT, *notes, "TorchScript exported to ONNX")


def _load_keras(request: _Request, keras: KerasModel) -> ImportedModel:
    path, shape = request.path, request.input_shape
    data = render_onnx(keras, str(path), CONVERTERS, shape)
    return _described(import_onnx(data, str(path), path.stem, shape), KERAS_FORMAT, f"written by Keras {keras.version}")


def _read_safetensors(path: Path) -> _Weights:
    arrays = read_safetensors(path)
    return _Weights(
        SAFETENSORS_FORMAT,
        {name: values.shape for name, values in arrays.items()},
        lambda: {name: float_values(path, name, values) for name, values in arrays.items()},
        lambda: {name: import_torch(path).from_numpy(values) for name, values in arrays.items()},
    )


def _load_weights(request: _Request, weights: _Weights) -> ImportedModel:
    path, input_shape = request.path, request.input_shape
    if request.arch is not None:
        return _load_with_module(request, request.arch, weights)
    layers = find_linear_chain(weights.shapes)
    if isinstance(layers, NotAChain):
        raise ModelFileError(
            f"{path}: the weights are not a plain chain of Linear and ReLU: {layers.reason}; give the network's"
            " code with --arch FILE.py:FACTORY (and --input-shape, for instance 1,28,28), or export it to ONNX"
        )
    graph = build_linear_chain(path, layers, weights.as_arrays())
    n_inputs = graph.tensors[graph.inputs[0]].size
    source_shape = (n_inputs,) if input_shape is None else input_shape
    if math.prod(source_shape) != n_inputs:
        given = ",".join(map(str, source_shape))
        raise ModelFileError(
            f"{path}: --input-shape {given} has {math.prod(source_shape)} values, the first layer takes {n_inputs}"
        )
    notes = (*weights.notes, f"weights recognised as {describe_linear_chain(graph)}", "transposes left: 0")
    return ImportedModel(graph, "flat", source_shape, notes, weights.format)


def _load_with_module(request: _Request, arch: str, weights: _Weights) -> ImportedModel:
    path, shape = request.path, _needed_shape(request, "--arch")
    module = load_with_state(path, weights.as_tensors(), arch)
    model = import_exported(path, _exported(path, module, shape), shape, f"{path} with --arch {arch}")
    note = f"weights loaded into the module of {arch} and exported to ONNX"
    return _described(model, weights.format, *weights.notes, note)


def _exported(path: Path, module: Any, shape: tuple[int, ...], *, has_open_batch: bool = True) -> ExportedModule:
    data = export_module(path, module, shape, has_open_batch=has_open_batch)
    return ExportedModule(partial(run_module_on, path, module), data, shape, EXAMPLE_BATCH if has_open_batch else 1)


def _needed_shape(request: _Request, what: str) -> tuple[int, ...]:
    if request.input_shape is None:
        raise ModelFileError(
            f"{request.path}: {what} needs the shape of one sample as well, for instance --input-shape 1,28,28"
        )
    return request.input_shape


def _refuse_arch(request: _Request) -> None:
    if request.arch is not None:
        raise ModelFileError(
            f"{request.path}: --arch belongs to files that hold weights alone, this one carries its own network"
        )


def _described(model: ImportedModel, file_format: str, *notes: str) -> ImportedModel:
    return replace(model, notes=(*notes, *model.notes), format=file_format)
