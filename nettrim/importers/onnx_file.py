"""Bytes to a checked ONNX model; external data is refused before anything could read it."""

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx.inliner import inline_local_functions

from nettrim_runtime.errors import ModelFileError

OLDEST_OPSET = 7  # the first without the `broadcast` and `is_test` attributes
DEFAULT_DOMAINS = ("", "ai.onnx")


def parse_onnx(data: bytes, source: str) -> onnx.ModelProto:
    """Return the model in ONNX bytes, its local functions inlined.

    Raises
    ------
    ModelFileError
        When the bytes are not an ONNX model, keep weights in other files, or are older than opset 7.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelFileError(
            f"{source}: this is not an ONNX model, or it is damaged or cut short; export or copy it again"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise ModelFileError(f"{source}: the file holds no network, expected an ONNX model with nodes and outputs")
    _refuse_external_data(model, source)
    opset = opset_version(model)
    if opset < OLDEST_OPSET:
        raise ModelFileError(
            f"{source}: the model has opset {opset}, expected {OLDEST_OPSET} or newer; export it again,"
            " or convert it with onnx.version_converter"
        )
    return inline_local_functions(model) if model.functions else model


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses; 1 when it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), default=1)


def check_onnx(model: onnx.ModelProto, source: str) -> None:
    """Check nodes, attributes and types against ONNX's own schemas.

    Raises
    ------
    ModelFileError
        When the model breaks one.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(f"{source}: the model breaks the ONNX rules ({reason}); export it again") from error


def _refuse_external_data(model: onnx.ModelProto, source: str) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelFileError(
                f"{source}: tensor {tensor.name!r} lies in another file, which nettrim does not open;"
                " export with external_data=False, or save with onnx.save(model, path, save_as_external_data=False)"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _tensors(subgraph)
