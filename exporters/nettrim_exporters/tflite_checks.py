"""What a .tflite file cannot hold."""

from typing import assert_never

from nettrim_exporters.tflite_codes import STAND_ALONE
from nettrim_exporters.tflite_padding import same_window_padding, tflite_padding
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.fixed_output import fixed_output
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


def check_tflite(graph: Graph) -> None:
    """Refuse what a .tflite file cannot hold; a float graph can be checked before it is quantised.

    Raises
    ------
    UnsupportedOperatorError
        An average pool whose padding is neither none nor SAME, an activation that does nothing, or an
        output at another scale or zero point than TFLite fixes (softmax: 1/256 and -128).
    """
    for op in graph.ops:
        match op:
            case AveragePool2d():
                if tflite_padding(graph, op) is None:
                    raise _unsupported(
                        op,
                        f"padding {tuple(op.padding)}, but TFLite averages without padding or with SAME padding "
                        f"{tuple(same_window_padding(graph, op))}; change the padding, or pad before the pool",
                    )
            case Activation():
                if op.activation not in STAND_ALONE:
                    raise _unsupported(op, "no activation function; remove the operator")
            case (
                Dense() | Conv2d() | MaxPool2d() | Add() | Sub() | Mul() | Concat() | PRelu() | Reshape() | Requantize()
            ):
                pass
            case UnaryFunction() | Softmax() | LogSoftmax():
                _check_output(graph, op)
            case Pad() | Slice() | Transpose() | ResizeNearest() | Mean():
                pass
            case _:
                assert_never(op)


def _check_output(graph: Graph, op: Op) -> None:
    dtype = graph.tensors[op.output].dtype
    expected = fixed_output(op, dtype)
    if not graph.is_quantized or expected is None or graph.quantization(op.output).same_as(expected):
        return
    found = graph.quantization(op.output)
    raise _unsupported(
        op,
        f"an output of scale {found.scale[0]} and zero point {found.zero_point}, but TFLite's {dtype} form of it has "
        f"scale 1/{1 / expected.scale[0]:.0f} and zero point {expected.zero_point}",
    )


def _unsupported(op: Op, finding: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(f"{type(op).__name__} {op.name!r} cannot be written as TFLite: it has {finding}")
