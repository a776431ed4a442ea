"""Weights that an ONNX model keeps in a file beside it: only in its own folder, and only as many bytes as it needs.

ONNX: onnx.proto, TensorProto.external_data.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

import onnx

from nettrim.importers.memory_limit import FLOAT_BYTES, ByteTotal
from nettrim_runtime.errors import ModelFileError

READABLE = frozenset({"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"})
MOST_DIGITS = 18  # of an offset or a length: what 64 bits hold
ADVICE = "keep both files of one model together, or save with onnx.save(model, path, save_as_external_data=False)"


def load_external_data(model: onnx.ModelProto, source: str, folder: Path | None) -> None:
    """Put the values of initializers that lie in other files into the model.

    Parameters
    ----------
    source : str
        The file, for error messages.
    folder : Path, optional
        Where the other files are; without it there are none.

    Raises
    ------
    ModelFileError
        When a file is missing or too short or lies elsewhere, or something else than an initializer is in one.
    """
    total = ByteTotal(Path(source), is_compressed=True)
    for tensor in model.graph.initializer:
        if _is_external(tensor):
            if folder is None:
                _refuse(source, tensor, "lies in another file, expected all weights inside the model")
            _load(tensor, source, folder, total)
    for tensor in _other_tensors(model):
        if _is_external(tensor):
            _refuse(source, tensor, "lies in another file, expected that of initializers alone")


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or bool(tensor.external_data)


def _load(tensor: onnx.TensorProto, source: str, folder: Path, total: ByteTotal) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    offset, given = (_read_count(tensor, source, entries.get(key, "0")) for key in ("offset", "length"))
    n_bytes = _count_bytes(tensor, source, total)
    if "length" in entries and given != n_bytes:
        _refuse(source, tensor, f"has {given} bytes in another file, expected {n_bytes} of shape {tuple(tensor.dims)}")
    path = _resolve(tensor, source, folder, entries.get("location", ""))
    data = _read(tensor, source, path, (offset, offset + n_bytes))
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    tensor.raw_data = data


def _read(tensor: onnx.TensorProto, source: str, path: Path, places: tuple[int, int]) -> bytes:
    begin, end = places
    try:
        if path.stat().st_size < end:
            _refuse(source, tensor, f"takes bytes {begin} to {end} of {path.name}, which ends before; {ADVICE}")
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin)
    except OSError as error:
        _refuse(source, tensor, f"lies in {path.name}, which cannot be read ({error.strerror}); {ADVICE}")


def _read_count(tensor: onnx.TensorProto, source: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        _refuse(source, tensor, f"has an offset or length of {text[:MOST_DIGITS]!r} in another file, expected a number")
    return int(text)


def _count_bytes(tensor: onnx.TensorProto, source: str, total: ByteTotal) -> int:
    """Return how many bytes the values take in the file, and count what they take in memory."""
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError, ValueError):
        _refuse(source, tensor, f"is of type {tensor.data_type} in another file, expected numbers")
    if dtype.name not in READABLE or min(tensor.dims, default=1) < 0:
        _refuse(source, tensor, f"is {dtype.name} of shape {tuple(tensor.dims)} in another file, expected numbers")
    count = math.prod(tensor.dims)
    total.add(tensor.name, count * max(dtype.itemsize, FLOAT_BYTES))
    return int(count * dtype.itemsize)


def _resolve(tensor: onnx.TensorProto, source: str, folder: Path, location: str) -> Path:
    """Return the file that a location names, which must lie in the model's folder, links followed."""
    parts, is_anchored = PurePosixPath(location).parts, bool(PureWindowsPath(location).anchor)  # "/", "C:" and "\\\\"
    if not parts or is_anchored or ".." in parts or not {"\\", "\0"}.isdisjoint(location):
        _refuse(source, tensor, f"lies in {location!r}, expected a file in the folder of the model")
    path = folder / location
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            _refuse(source, tensor, f"lies in {location!r}, a link out of the folder of the model")
        if not path.is_file():
            _refuse(source, tensor, f"lies in {location!r}, which is not there; {ADVICE}")
    except (OSError, RuntimeError) as error:  # names that are too long, links in a circle
        message = f"{source}: tensor {tensor.name!r} lies in a file that cannot be found ({error})"
        raise ModelFileError(message) from error
    return path


def _other_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors that are no initializers of the network itself."""
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of(model.graph.node)
    for function in model.functions:
        yield from _tensors_of(function.node)
        for attribute in function.attribute_proto:
            yield from _tensors_in(attribute)


def _tensors_of(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _tensors_in(attribute)


def _tensors_in(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    yield from (attribute.t, *attribute.tensors)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (attribute.g, *attribute.graphs):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _tensors_of(graph.node)


def _refuse(source: str, tensor: onnx.TensorProto, finding: str) -> NoReturn:
    raise ModelFileError(f"{source}: tensor {tensor.name!r} {finding}")
