"""Whether a quantised graph's scales lie within its integer arithmetic: what its kernels need is computed once."""

from typing import assert_never

import numpy as np

from nettrim_runtime.errors import GraphError
from nettrim_runtime.fixed_point import (
    activation_range,
    add_parameters,
    layer_requantization,
    mean_multiplier,
    prelu_multipliers,
    product_multiplier,
    requantize_multiplier,
)
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Mul,
    Op,
    Pad,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
)
from nettrim_runtime.softmax import softmax_exponentials
from nettrim_runtime.softmax_int16 import wide_distance_multiplier
from nettrim_runtime.unary import lookup_table


def scale_objection(graph: Graph, op: Op) -> str | None:
    """Return why an operator's integer parameters do not exist, None if they do."""
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            _compute(graph, op)
    except (GraphError, ValueError, ArithmeticError) as error:
        title = f"{type(op).__name__} {op.name!r}"
        return str(error) if str(error).startswith(title) else f"{title}: {error}"
    return None


def _compute(graph: Graph, op: Op) -> None:
    match op:
        case Dense() | Conv2d():
            layer_requantization(graph, op)
        case Add() | Sub():
            add_parameters(graph, op)
        case Mul():
            product_multiplier(graph, op)
            activation_range(graph.quantization(op.output), op.activation, graph.tensors[op.output].dtype)
        case Activation():
            activation_range(graph.quantization(op.output), op.activation, graph.tensors[op.output].dtype)
        case UnaryFunction():
            scales = graph.quantization(op.input), graph.quantization(op.output)
            lookup_table(op, *scales, graph.tensors[op.output].dtype)
        case PRelu():
            prelu_multipliers(graph, op)
        case Softmax() if graph.tensors[op.input].dtype == "int16":
            wide_distance_multiplier(graph.quantization(op.input).scale[0])
        case Softmax() | LogSoftmax():
            softmax_exponentials(float(graph.quantization(op.input).scale[0]))
        case Mean():
            mean_multiplier(graph, op)
        case Requantize():
            requantize_multiplier(graph, op)
        case AveragePool2d() | Concat() | MaxPool2d() | Pad() | Reshape() | ResizeNearest() | Slice() | Transpose():
            pass  # they move integers, or compare and average those of one scale
        case _:
            assert_never(op)
