"""The ONNX node that joins activations: Concat."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, refuse
from nettrim.importers.onnx_transposes import natural_order
from nettrim_runtime.ops import Concat

Array = npt.NDArray[Any]


def convert_concat(node: Node, conversion: Conversion) -> None:
    """Concat of two or more activations; last states of GRU and LSTM layers have their batch axis behind another."""
    values = [_value(node, conversion, index) for index in range(len(node.inputs))]
    axis = _axis(node, values)
    if len(values) == 1:
        conversion.put_view(node, values[0], values[0].positions)
    elif all(value.is_flat and not value.batch for value in values) and axis == len(values[0].shape) - 1:
        _join_features(node, conversion, values)
    else:
        _join(node, conversion, values, axis)


def _value(node: Node, conversion: Conversion, index: int) -> Value:
    value = conversion.value_of_any_order(node, index)
    return value if value.batch else conversion.value(node, index)


def _axis(node: Node, values: list[Value]) -> int:
    """Return the axis to join along, not counting the batch."""
    ranks, batch = {len(value.shape) for value in values}, values[0].batch
    rank = max(ranks)
    axis = node.integer("axis", 1)
    axis += rank + 1 if axis < 0 else 0
    if len(ranks) > 1 or any(value.batch != batch for value in values) or not 0 <= axis <= rank or axis == batch:
        shapes = [(*value.shape[: value.batch], "batch", *value.shape[value.batch :]) for value in values]
        refuse(node, f"axis {axis} of {shapes}, expected an axis other than the batch, which all inputs have")
    axis -= axis > batch
    others = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    if len(others) > 1:
        refuse(node, f"inputs of shapes {[value.shape for value in values]}, expected equal ones but for axis {axis}")
    return axis


def _join_features(node: Node, conversion: Conversion, values: list[Value]) -> None:
    """Join flat activations, in whatever order their features lie."""
    tensors, positions, first = [], [], 0
    for value in values:
        tensor, order = conversion.flat(node, value)
        tensors.append(tensor)
        positions.append(first + order)
        first += order.size
    shape = (*values[0].shape[:-1], first)
    conversion.put(node, _add(node, conversion, tensors), np.concatenate(positions).reshape(shape))


def _join(node: Node, conversion: Conversion, values: list[Value], axis: int) -> None:
    """Join along any axis: what lies behind it counts as channels."""
    builder, positions = conversion.builder, values[0].positions
    order = list(range(positions.ndim)) if values[0].batch else natural_order(positions)  # states: layer by layer
    place, tensors = order.index(axis), []
    for value in values:
        tensor = conversion.arrange(node, value, order)
        shape = builder.tensors[tensor].shape
        outer = shape[:place] if place == len(shape) - 1 else (math.prod(shape[:place]),)
        tensors.append(builder.reshape(tensor, (*outer, math.prod(shape[place:]))))
    joined = list(positions.transpose(order).shape)
    joined[place] = sum(value.shape[axis] for value in values)
    output = builder.reshape(_add(node, conversion, tensors), tuple(joined))
    if place == 0 and len({builder.tensors[tensor].size for tensor in tensors}) == 1:
        conversion.parts[output] = tuple(tensors)
    conversion.put(node, output, conversion.ordered_positions(output, order), values[0].batch)


def _add(node: Node, conversion: Conversion, tensors: list[str]) -> str:
    builder = conversion.builder
    return builder.add(Concat(builder.op_name(node.name), tuple(tensors), builder.tensor_name(node.outputs[0])))
