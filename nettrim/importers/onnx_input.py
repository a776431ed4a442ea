"""The input of an ONNX network: its shape, completed by --input-shape, and its layout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from nettrim.importers.imported_model import InputLayout
from nettrim.importers.onnx_conversion import Conversion, Value, image_positions, straight_positions
from nettrim.importers.onnx_node import Node
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError

IMAGE_OPERATORS = frozenset(
    {
        *("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean"),
        *("Resize", "Upsample", "ConvTranspose"),
    }
)
TO_CHANNELS_FIRST = [0, 3, 1, 2]
FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
EXAMPLE_SIZE = 28  # stands for an unknown size in the example of a message


@dataclass(frozen=True)
class NetworkInput:
    """What is known of the one input.

    Attributes
    ----------
    name : str
        ONNX's name.
    shape : tuple of int
        ONNX's shape of one sample, without the batch axis.
    source_shape : tuple of int
        The shape of users' samples: ``shape``, or what --input-shape says for a flat one.
    layout : {"NHWC", "NCHW", "flat"}
        What the network wants.
    """

    name: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    layout: InputLayout


def read_input(
    graph: onnx.GraphProto, nodes: Sequence[Node], source: str, input_shape: tuple[int, ...] | None
) -> NetworkInput:
    """Return the network's only input.

    Raises
    ------
    ModelFileError
        When its shape is open and ``input_shape`` is missing or does not fit.
    UnsupportedOperatorError
        When there is no input, or more than one.
    """
    info = _only_input(graph, nodes, source)
    element = info.type.tensor_type.elem_type
    if element not in FLOAT_TYPES:
        found = onnx.TensorProto.DataType.Name(element) if element in onnx.TensorProto.DataType.values() else "nothing"
        raise UnsupportedOperatorError(f"{source}: input {info.name!r} takes {found}, expected float32 samples")
    shape, source_shape = _complete_shape(info, source, input_shape)
    layout = _layout(info.name, shape, nodes)
    if source_shape != shape and layout != "flat":
        raise _misfit(source, info.name, shape, source_shape)
    return NetworkInput(info.name, shape, source_shape, layout)


def add_input(conversion: Conversion, network_input: NetworkInput) -> str:
    """Add the input to the graph that is being built; return its tensor."""
    shape = network_input.shape
    if network_input.layout == "NCHW":
        shape = (shape[1], shape[2], shape[0])
    tensor = conversion.builder.add_input(network_input.name, shape)
    positions = image_positions(shape) if network_input.layout == "NCHW" else straight_positions(shape)
    conversion.put_input(network_input.name, Value(tensor, positions))
    return tensor


def _only_input(graph: onnx.GraphProto, nodes: Sequence[Node], source: str) -> onnx.ValueInfoProto:
    initializers = {tensor.name for tensor in graph.initializer}
    read = {name for node in nodes for name in node.inputs}
    inputs = [info for info in graph.input if info.name not in initializers and info.name in read]
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs) or "none"
        raise UnsupportedOperatorError(f"{source}: the network has {len(inputs)} inputs ({names}), expected one")
    info: onnx.ValueInfoProto = inputs[0]
    return info


def _complete_shape(
    info: onnx.ValueInfoProto, source: str, input_shape: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return ONNX's shape and the users' shape of one sample."""
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in info.type.tensor_type.shape.dim]
    if len(dims) < 2 or dims[0] not in {None, 1}:
        raise ModelFileError(
            f"{source}: input {info.name!r} has shape {tuple(dims)}, expected an open batch axis, or one of length 1,"
            " in front; export the model with a dynamic batch axis"
        )
    known = tuple(dims[1:])
    if input_shape is None:
        if None in known:
            raise _missing_shape(source, info.name, tuple(EXAMPLE_SIZE if size is None else size for size in known))
        return tuple(size for size in known if size is not None), tuple(size for size in known if size is not None)
    if len(known) == len(input_shape) and all(
        size in {None, given} for size, given in zip(known, input_shape, strict=True)
    ):
        return input_shape, input_shape
    shape = tuple(size for size in known if size is not None)
    if len(shape) != len(known) or int(np.prod(shape)) != int(np.prod(input_shape)):
        raise _misfit(source, info.name, known, input_shape)
    return shape, input_shape


def _layout(name: str, shape: tuple[int, ...], nodes: Sequence[Node]) -> InputLayout:
    if len(shape) != 3 or not any(node.op_type in IMAGE_OPERATORS for node in nodes):
        return "flat"
    readers = [node for node in nodes if name in node.inputs]
    if all(node.op_type == "Transpose" and node.attributes.get("perm") == TO_CHANNELS_FIRST for node in readers):
        return "NHWC"
    return "NCHW"


def _missing_shape(source: str, name: str, example: tuple[int, ...]) -> ModelFileError:
    return ModelFileError(
        f"{source}: the file leaves the shape of input {name!r} open; give the shape of one sample,"
        f" for instance --input-shape {','.join(map(str, example))}"
    )


def _misfit(source: str, name: str, shape: tuple[int | None, ...], given: tuple[int, ...]) -> ModelFileError:
    known = ",".join("any" if size is None else str(size) for size in shape)
    return ModelFileError(
        f"{source}: --input-shape {','.join(map(str, given))} does not fit input {name!r},"
        f" expected {known} (without the batch axis)"
    )
