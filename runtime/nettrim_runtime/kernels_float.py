"""The operators on float32 arrays."""

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.blocks import in_blocks
from nettrim_runtime.concat import concat_step
from nettrim_runtime.graph import Graph, is_hybrid
from nettrim_runtime.hybrid import hybrid_step
from nettrim_runtime.linear import Step, clamp_step, conv_step, faster_dense_step, padded_buffer
from nettrim_runtime.moves import move_step
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
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
    Pairwise,
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
from nettrim_runtime.pooling import max_pool_step, sum_pool_step, window_sizes
from nettrim_runtime.unary import unary_step

Array = npt.NDArray[Any]

PAIRWISE: dict[type[Pairwise], np.ufunc] = {Add: np.add, Sub: np.subtract, Mul: np.multiply}


def float_step(graph: Graph, op: Op, buffers: Mapping[str, Array]) -> Step:
    """Prepare one operator of a float graph.

    Parameters
    ----------
    buffers : Mapping
        The operator's inputs and output by name, (batch, *shape) float32.
    """
    source, output = buffers[op_inputs(op)[0]], buffers[op.output]
    match op:
        case Dense() if is_hybrid(graph, op):
            return hybrid_step(graph, op, source, output)
        case Dense() | Conv2d():
            return _layer_step(graph, op, source, output)
        case MaxPool2d():
            return max_pool_step(op, source, output, fill=-np.inf)
        case AveragePool2d():
            return _average_step(op, source, output)
        case Add() | Sub() | Mul():
            return _pair_step(op, source, buffers[op.second], output)
        case Concat():
            return concat_step([buffers[name] for name in op.inputs], output)
        case Activation():
            return clamp_step(op.activation, source, output)
        case UnaryFunction():
            return in_blocks(partial(unary_step, op), source, output)
        case PRelu():
            return _prelu_step(graph.tensors[op.slope].values(), source, output)
        case Softmax():
            return _softmax_step(source, output)
        case LogSoftmax():
            return in_blocks(_log_softmax_step, source, output)
        case Pad() | Slice() | Transpose() | ResizeNearest():
            return move_step(op, source, output, fill=0)
        case Mean():
            return _mean_step(op, source, output)
        case Requantize():
            return lambda: np.copyto(output, source)
        case Reshape():
            raise AssertionError("a reshape is a view, made by Program")
        case _:
            assert_never(op)


def _layer_step(graph: Graph, op: Layer, source: Array, output: Array) -> Step:
    weight, bias = graph.tensors[op.weight].values(), graph.tensors[op.bias].values()
    clamp = clamp_step(op.activation, output, output)
    if isinstance(op, Dense):
        accumulate = faster_dense_step(source, graph.tensors[op.weight].data, weight, output)
        inside = source
    else:
        padded, inside = padded_buffer(source.shape[0], source.shape[1:], op.padding, source.dtype, 0)
        accumulate = conv_step(op, padded, weight, output, graph.tensors[op.weight].data)

    def run() -> None:
        if inside is not source:
            np.copyto(inside, source)
        accumulate()
        np.add(output, bias, out=output)
        clamp()

    return run


def _average_step(op: AveragePool2d, source: Array, output: Array) -> Step:
    add_up = sum_pool_step(op, source, output)
    sizes = window_sizes(op, source.shape[1:], output.dtype)

    def run() -> None:
        add_up()
        np.divide(output, sizes, out=output)

    return run


def _mean_step(op: Mean, source: Array, output: Array) -> Step:
    axes = tuple(axis + 1 for axis in op.axes)

    def run() -> None:
        np.mean(source, axis=axes, keepdims=op.keep_dims, out=output)

    return run


def _pair_step(op: Pairwise, first: Array, second: Array, output: Array) -> Step:
    clamp = clamp_step(op.activation, output, output)
    combine = PAIRWISE[type(op)]

    def run() -> None:
        combine(first, second, out=output)
        clamp()

    return run


def _prelu_step(slope: Array, source: Array, output: Array) -> Step:
    positive = np.empty_like(source)

    def run() -> None:
        np.maximum(source, 0, out=positive)
        np.minimum(source, 0, out=output)
        np.multiply(output, slope, out=output)
        np.add(output, positive, out=output)

    return run


def _softmax_step(source: Array, output: Array) -> Step:
    largest = np.empty((*source.shape[:-1], 1), source.dtype)

    def run() -> None:
        np.max(source, axis=-1, keepdims=True, out=largest)
        np.subtract(source, largest, out=output)
        np.exp(output, out=output)
        np.sum(output, axis=-1, keepdims=True, out=largest)
        np.divide(output, largest, out=output)

    return run


def _log_softmax_step(source: Array, output: Array) -> Step:
    largest = np.empty((*source.shape[:-1], 1), source.dtype)

    def run() -> None:
        np.max(source, axis=-1, keepdims=True, out=largest)
        np.subtract(source, largest, out=output)
        largest[:] = np.log(np.sum(np.exp(output), axis=-1, keepdims=True))
        np.subtract(output, largest, out=output)

    return run
