"""A layer normalisation by operators that TFLite has on int8: means, differences, products, one over a root."""

import numpy as np

from nettrim.importers.graph_builder import GraphBuilder
from nettrim_runtime.ops import Conv2d, Function, Mul, Sub, UnaryFunction


def add_normalization(builder: GraphBuilder, title: str, tensor: str, size: int, epsilon: float) -> str:
    """Append (x - mean) / sqrt(variance + epsilon) of each ``size`` values in a row; return it in the tensor's shape.

    Means are convolutions of equal weights, whose int8 outputs have a scale of their own: a pooling's have its input's.
    """
    shape = builder.tensors[tensor].shape
    n_rows = builder.tensors[tensor].size // size

    def names(part: str) -> tuple[str, str]:
        return builder.op_name(f"{title}.{part}"), builder.tensor_name(f"{title}.{part}")

    def mean(source: str, part: str, offset: float) -> str:
        weight = builder.add_constant(f"{title}.{part}.weight", np.full((1, 1, 1, size), 1 / size))
        bias = builder.add_constant(f"{title}.{part}.bias", np.array([offset]))
        op_name, output = names(part)
        return builder.add(Conv2d(op_name, source, weight, bias, output))

    def pair(operator: type[Sub | Mul], first: str, second: str, part: str) -> str:
        op_name, output = names(part)
        return builder.add(operator(op_name, first, second, output))

    rows = builder.reshape(tensor, (n_rows, 1, size))
    centred = pair(Sub, rows, mean(rows, "mean", 0.0), "centred")
    square = pair(Mul, centred, centred, "square")
    variance = mean(square, "variance", epsilon)
    op_name, output = names("inverse")
    inverse = builder.add(UnaryFunction(op_name, variance, output, Function.RSQRT))
    return builder.reshape(pair(Mul, centred, inverse, "scaled"), shape)
