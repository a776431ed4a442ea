"""ONNX LayerNormalization by operators that TFLite has on int8: means, differences, products, one over a root."""

from dataclasses import replace

import numpy as np

from nettrim.importers.graph_builder import GraphBuilder
from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_layers import scale_values
from nettrim.importers.onnx_node import Node, axis_place, refuse
from nettrim_runtime.ops import Conv2d, Function, Mul, Sub, UnaryFunction


def convert_layer_normalization(node: Node, conversion: Conversion) -> None:
    """LayerNormalization over the last axes: (x - mean) / sqrt(variance + epsilon) * scale + bias."""
    scale = conversion.constant(node, 1, "scale").astype(np.float64)
    bias = conversion.optional_constant(node, 2, "bias")
    value = conversion.value(node)
    rank = len(value.shape) + 1
    axis = axis_place(node, node.integer("axis", -1), rank)
    size = int(np.prod(value.shape[axis - 1 :])) if axis else 0
    if axis == 0 or not _lie_together(value, size):
        refuse(node, f"axis {axis} of {('batch', *value.shape)}, expected values that lie side by side in the graph")
    tensor = _normalized(node, conversion.builder, value, size)
    before = replace(node, outputs=(conversion.between(node, "normalized"),))
    conversion.put(before, tensor, value.positions)
    offset = np.zeros(()) if bias is None else bias.astype(np.float64)
    after = replace(node, inputs=before.outputs)
    scale_values(after, conversion, conversion.value(after), scale, offset, what="factors of normalisations")


def _lie_together(value: Value, size: int) -> bool:
    """Whether each ``size`` values that are normalised together are a stretch of the graph's tensor."""
    rows = value.positions.reshape(-1, size)
    return bool((rows // size == rows[:, :1] // size).all())


def _normalized(node: Node, builder: GraphBuilder, value: Value, size: int) -> str:
    """Append (x - mean) / sqrt(variance + epsilon); return it in the shape of the graph's tensor.

    Means are convolutions of equal weights, whose int8 outputs have a scale of their own: a pooling's have its input's.
    """
    name, n_rows, shape = node.name, value.positions.size // size, builder.tensors[value.tensor].shape

    def title(part: str) -> tuple[str, str]:
        return builder.op_name(f"{name}.{part}"), builder.tensor_name(f"{name}.{part}")

    def mean(tensor: str, part: str, offset: float) -> str:
        weight = builder.add_constant(f"{name}.{part}.weight", np.full((1, 1, 1, size), 1 / size))
        bias = builder.add_constant(f"{name}.{part}.bias", np.array([offset]))
        op_name, output = title(part)
        return builder.add(Conv2d(op_name, tensor, weight, bias, output))

    def pair(operator: type[Sub | Mul], first: str, second: str, part: str) -> str:
        op_name, output = title(part)
        return builder.add(operator(op_name, first, second, output))

    rows = builder.reshape(value.tensor, (n_rows, 1, size))
    centred = pair(Sub, rows, mean(rows, "mean", 0.0), "centred")
    square = pair(Mul, centred, centred, "square")
    variance = mean(square, "variance", node.number("epsilon", 1e-5))
    op_name, output = title("inverse")
    inverse = builder.add(UnaryFunction(op_name, variance, output, Function.RSQRT))
    return builder.reshape(pair(Mul, centred, inverse, "scaled"), shape)
