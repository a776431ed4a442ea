"""The operators on int8 and int16 arrays, with the arithmetic of TFLite's reference kernels."""

from collections.abc import Mapping
from functools import partial
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.blocks import in_blocks
from nettrim_runtime.concat import concat_step
from nettrim_runtime.fixed_point import (
    Rounding,
    activation_range,
    add_parameters,
    layer_requantization,
    mean_multiplier,
    multiply_by_quantized_multiplier,
    multiply_rounding_once,
    multiply_wide,
    prelu_multipliers,
    product_multiplier,
    requantize_multiplier,
)
from nettrim_runtime.graph import Graph
from nettrim_runtime.linear import Step, conv_step, exact_dtype, faster_dense_step, padded_buffer
from nettrim_runtime.log_softmax import log_softmax_step
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
from nettrim_runtime.softmax import softmax_step
from nettrim_runtime.softmax_int16 import wide_exponentials, wide_softmax_step
from nettrim_runtime.unary import lookup_step, lookup_table

Array = npt.NDArray[Any]

SCALINGS = {
    Rounding.TWICE: multiply_by_quantized_multiplier,
    Rounding.ONCE: multiply_rounding_once,
    Rounding.WIDE: multiply_wide,
}


def int8_step(graph: Graph, op: Op, buffers: Mapping[str, Array]) -> Step:
    """Prepare one operator of a quantised graph.

    Parameters
    ----------
    buffers : Mapping
        The operator's inputs and output by name, (batch, *shape) int8 or int16.
    """
    source, output = buffers[op_inputs(op)[0]], buffers[op.output]
    match op:
        case Dense() | Conv2d():
            return _layer_step(graph, op, source, output)
        case MaxPool2d():
            return max_pool_step(op, source, output, fill=np.iinfo(source.dtype).min)
        case AveragePool2d():
            return _average_step(op, source, output)
        case Add() | Sub():
            return _add_step(graph, op, buffers)
        case Mul():
            return _multiply_step(graph, op, buffers)
        case Concat():
            return concat_step([buffers[name] for name in op.inputs], output)
        case Activation():
            lower, upper = activation_range(graph.quantization(op.output), op.activation, output.dtype.name)
            return _clamp_step(source, lower, upper, output)
        case UnaryFunction():
            scales = graph.quantization(op.input), graph.quantization(op.output)
            return lookup_step(lookup_table(op, *scales, output.dtype.name), source, output)
        case PRelu():
            return _prelu_step(graph, op, source, output)
        case Softmax():
            return _softmax_step(graph, op, source, output)
        case LogSoftmax():
            return in_blocks(partial(log_softmax_step, float(graph.quantization(op.input).scale[0])), source, output)
        case Pad() | Slice() | Transpose() | ResizeNearest():
            return move_step(op, source, output, fill=graph.quantization(op.output).zero_point)
        case Mean():
            return _mean_step(graph, op, source, output)
        case Requantize():
            return _requantize_step(graph, op, source, output)
        case Reshape():
            raise AssertionError("a reshape is a view, made by Program")
        case _:
            assert_never(op)


def _layer_step(graph: Graph, op: Layer, source: Array, output: Array) -> Step:
    weight, bias = graph.tensors[op.weight].values(), graph.tensors[op.bias].values()
    scaling = layer_requantization(graph, op)
    dtype = exact_dtype(weight, bias, source.dtype.name)
    accumulator = np.empty(output.shape, dtype)
    if isinstance(op, Dense):
        inside = np.empty(source.shape, dtype)
        accumulate = faster_dense_step(inside, graph.tensors[op.weight].data, weight, accumulator)
    else:
        padded, inside = padded_buffer(source.shape[0], source.shape[1:], op.padding, dtype, 0)
        accumulate = conv_step(op, padded, weight, accumulator, graph.tensors[op.weight].data)
    bias_float, zero_point = bias.astype(dtype), dtype(scaling.input_zero_point)
    integers, scratch = np.empty(output.shape, np.int64), np.empty(output.shape, np.int64)
    multiplier, shift = scaling.multiplier.astype(np.int64), scaling.shift.astype(np.int64)
    scale = SCALINGS[scaling.rounding]

    def run() -> None:
        np.subtract(source, zero_point, out=inside)
        accumulate()
        np.add(accumulator, bias_float, out=accumulator)
        np.copyto(integers, accumulator, casting="unsafe")
        scale(integers, multiplier, shift, scratch)
        np.add(integers, scaling.output_zero_point, out=integers)
        np.clip(integers, scaling.lower, scaling.upper, out=integers)
        np.copyto(output, integers, casting="unsafe")

    return run


def _average_step(op: AveragePool2d, source: Array, output: Array) -> Step:
    sums, negative = np.empty(output.shape, np.int64), np.empty(output.shape, np.int64)
    add_up = sum_pool_step(op, source, sums)
    sizes = window_sizes(op, source.shape[1:], np.int64)

    def run() -> None:  # rounds half away from zero: (|sum| + size // 2) // size with the sign put back
        add_up()
        np.sign(sums, out=negative)
        np.abs(sums, out=sums)
        np.add(sums, sizes // 2, out=sums)
        np.floor_divide(sums, sizes, out=sums)
        np.multiply(sums, negative, out=sums)
        np.copyto(output, sums, casting="unsafe")

    return run


def _mean_step(graph: Graph, op: Mean, source: Array, output: Array) -> Step:
    axes = tuple(axis + 1 for axis in op.axes)
    before, after = (graph.quantization(name).zero_point for name in (op.input, op.output))
    multiplier, shift = mean_multiplier(graph, op)
    count, limits = source.size // output.size, np.iinfo(output.dtype)
    sums, scratch = np.empty(output.shape, np.int64), np.empty(output.shape, np.int64)

    def run() -> None:
        np.sum(source, axis=axes, dtype=np.int64, keepdims=op.keep_dims, out=sums)
        np.subtract(sums, before * count, out=sums)
        multiply_by_quantized_multiplier(sums, multiplier, shift, scratch)
        np.add(sums, after, out=sums)
        np.clip(sums, limits.min, limits.max, out=sums)
        np.copyto(output, sums, casting="unsafe")

    return run


def _add_step(graph: Graph, op: Add | Sub, buffers: Mapping[str, Array]) -> Step:
    parameters = add_parameters(graph, op)
    first, second, output = (buffers[name] for name in (op.first, op.second, op.output))
    total, other, scratch = (np.empty(output.shape, np.int64) for _ in range(3))

    def run() -> None:
        np.subtract(first, parameters.first_zero_point, out=total, dtype=np.int64)
        np.left_shift(total, parameters.left_shift, out=total)
        multiply_by_quantized_multiplier(total, parameters.first_multiplier, parameters.first_shift, scratch)
        np.subtract(second, parameters.second_zero_point, out=other, dtype=np.int64)
        np.left_shift(other, parameters.left_shift, out=other)
        multiply_by_quantized_multiplier(other, parameters.second_multiplier, parameters.second_shift, scratch)
        np.add(total, other, out=total)
        multiply_by_quantized_multiplier(total, parameters.output_multiplier, parameters.output_shift, scratch)
        np.add(total, parameters.output_zero_point, out=total)
        np.clip(total, parameters.lower, parameters.upper, out=total)
        np.copyto(output, total, casting="unsafe")

    return run


def _multiply_step(graph: Graph, op: Mul, buffers: Mapping[str, Array]) -> Step:
    multiplier, shift = product_multiplier(graph, op)
    first_zero, second_zero, zero_point = (
        graph.quantization(name).zero_point for name in (op.first, op.second, op.output)
    )
    lower, upper = activation_range(graph.quantization(op.output), op.activation, graph.tensors[op.output].dtype)
    first, second, output = (buffers[name] for name in (op.first, op.second, op.output))
    product, other, scratch = (np.empty(output.shape, np.int64) for _ in range(3))

    def run() -> None:
        np.subtract(first, first_zero, out=product, dtype=np.int64)
        np.subtract(second, second_zero, out=other, dtype=np.int64)
        np.multiply(product, other, out=product)
        multiply_by_quantized_multiplier(product, multiplier, shift, scratch)
        np.add(product, zero_point, out=product)
        np.clip(product, lower, upper, out=product)
        np.copyto(output, product, casting="unsafe")

    return run


def _prelu_step(graph: Graph, op: PRelu, source: Array, output: Array) -> Step:
    above, below = prelu_multipliers(graph, op)
    slope = graph.tensors[op.slope].values().astype(np.int64)
    before, after = (graph.quantization(name).zero_point for name in (op.input, op.output))
    positive, negative, scratch = (np.empty(output.shape, np.int64) for _ in range(3))
    limits = np.iinfo(output.dtype)

    def run() -> None:
        np.subtract(source, before, out=positive, dtype=np.int64)
        np.minimum(positive, 0, out=negative)
        np.multiply(negative, slope, out=negative)
        np.maximum(positive, 0, out=positive)
        multiply_by_quantized_multiplier(positive, *above, scratch)
        multiply_by_quantized_multiplier(negative, *below, scratch)
        np.add(positive, negative, out=positive)  # one of the two is zero
        np.add(positive, after, out=positive)
        np.clip(positive, limits.min, limits.max, out=positive)
        np.copyto(output, positive, casting="unsafe")

    return run


def _softmax_step(graph: Graph, op: Softmax, source: Array, output: Array) -> Step:
    scale = graph.quantization(op.input).scale[0]
    if source.dtype == np.int16:
        return in_blocks(partial(wide_softmax_step, wide_exponentials(scale)), source, output)
    return in_blocks(partial(softmax_step, float(scale)), source, output)


def _requantize_step(graph: Graph, op: Requantize, source: Array, output: Array) -> Step:
    multiplier, shift = requantize_multiplier(graph, op)
    before, after = (graph.quantization(name).zero_point for name in (op.input, op.output))
    limits = np.iinfo(output.dtype)
    integers, scratch = np.empty(output.shape, np.int64), np.empty(output.shape, np.int64)

    def run() -> None:
        np.subtract(source, before, out=integers, dtype=np.int64)
        multiply_by_quantized_multiplier(integers, multiplier, shift, scratch)
        np.add(integers, after, out=integers)
        np.clip(integers, limits.min, limits.max, out=integers)
        np.copyto(output, integers, casting="unsafe")

    return run


def _clamp_step(source: Array, lower: int, upper: int, output: Array) -> Step:
    def run() -> None:
        np.clip(source, lower, upper, out=output)

    return run
