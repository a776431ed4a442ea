"""A graph of floats or integers as operators on real numbers, and how far rounding moves what they give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim.elementwise import table_error
from nettrim_runtime.fixed_point import ADD_LEFT_SHIFT, activation_range
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import (
    Activation,
    ActivationFunction,
    Add,
    AveragePool2d,
    Clamping,
    Concat,
    Conv2d,
    Dense,
    Layer,
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
    op_inputs,
)

Array = npt.NDArray[Any]

FIXED_POINT_STEP = 1e-3  # steps of an output, far above what 31-bit multipliers lose
Saturating = Clamping | Mean | PRelu | Requantize  # operators whose real values an integer output may have no room for


@dataclass(frozen=True, eq=False)
class RealNetwork:
    """A graph, float or int8, as operators on real numbers and how far off the grid its outputs are rounded.

    Attributes
    ----------
    constants : dict
        By layer, (weight, bias) float64; by PRelu, (slope,).
    clamps : dict
        By `Saturating` operator, its (smallest, largest) output.
    roundings : dict
        By operator, Euclidean norm that rounding moves one sample's output by, at most; 0 in a float graph.
    entry : Quantization or None
        How the input is rounded.
    """

    constants: dict[str, tuple[Array, ...]]
    clamps: dict[str, tuple[float, float]]
    roundings: dict[str, float]
    entry: Quantization | None


def real_network(graph: Graph, ops: Sequence[Op]) -> RealNetwork:
    quantized = graph.is_quantized
    trained = [op for op in ops if isinstance(op, Dense | Conv2d | PRelu)]
    clamped = [op for op in ops if isinstance(op, Saturating)]
    return RealNetwork(
        constants={op.name: _real_constants(graph, op) for op in trained},
        clamps={op.name: _integer_clamp(graph, op) if quantized else _clamp(op) for op in clamped},
        roundings={op.name: _rounding(graph, op) if quantized else 0.0 for op in ops},
        entry=graph.quantization(graph.inputs[0]) if quantized else None,
    )


def _real_constants(graph: Graph, op: Layer | PRelu) -> tuple[Array, ...]:
    if isinstance(op, PRelu):
        slope = graph.tensors[op.slope].values().astype(np.float64)
        return (slope * float(graph.quantization(op.slope).scale[0]) if graph.is_quantized else slope,)
    bias = graph.tensors[op.bias].values().astype(np.float64)
    if not graph.is_quantized:
        return graph.tensors[op.weight].real_values().astype(np.float64), bias
    weight = graph.tensors[op.weight].values().astype(np.float64)
    scale = graph.quantization(op.weight).scale.astype(np.float64)
    by_output = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight * by_output, bias * scale * float(graph.quantization(op.input).scale[0])


def _clamp(op: Saturating) -> tuple[float, float]:
    activation = _activation(op)
    return activation.lower, activation.upper


def _activation(op: Saturating) -> ActivationFunction:
    return op.activation if isinstance(op, Clamping) else ActivationFunction.NONE


def _integer_clamp(graph: Graph, op: Saturating) -> tuple[float, float]:
    quantization = graph.quantization(op.output)
    scale = float(quantization.scale[0])
    ends = activation_range(quantization, _activation(op), graph.tensors[op.output].dtype)
    lower, upper = (scale * (end - quantization.zero_point) for end in ends)
    return lower, upper


def _rounding(graph: Graph, op: Op) -> float:
    """Bound the norm of what rounding to integers adds to an operator's output, saturation apart."""
    output = graph.tensors[op.output]
    scale = float(graph.quantization(op.output).scale[0])
    match op:
        case Dense() | Conv2d() if output.dtype == "int16":  # once, by a multiplier good to 2^-15 of 2^15 steps
            steps = 1.5
        case Dense() | AveragePool2d():  # rounds once
            steps = 0.5
        case (
            Conv2d() | Mean() | Mul() | PRelu() | Requantize()
        ):  # rounds twice: half a step, and half of 2^-shift of a step for a shift of 1 or more
            steps = 0.75
        case Add() | Sub():  # the same, and two inputs rounded to 2^-20 or 2^-15 of the larger scale twice over
            twice_larger = 2 * max(float(graph.quantization(name).scale[0]) for name in op_inputs(op))
            steps = 0.75 + 2 * twice_larger / (scale * 2 ** ADD_LEFT_SHIFT[output.dtype])
        case MaxPool2d() | Concat() | Activation() | Reshape() | Pad() | Slice() | Transpose() | ResizeNearest():
            return 0.0
        case UnaryFunction():
            return table_error(graph, op) * math.sqrt(output.size)
        case LogSoftmax():  # not the last operator, and no bound where it ends at -16
            return math.inf
        case Softmax():
            return math.sqrt(output.size)  # no entry moves by more than 1
        case _:
            assert_never(op)
    return (steps + FIXED_POINT_STEP) * scale * math.sqrt(output.size)
