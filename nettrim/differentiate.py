"""Reverse differentiation of a float graph: by tensors, and by the weights of its layers."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, assert_never

import numpy as np

from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.linear import padded_buffer, windows
from nettrim_runtime.moves import move_sources
from nettrim_runtime.ops import (
    UNIT,
    Activation,
    Add,
    AveragePool2d,
    Clamping,
    Concat,
    Conv2d,
    Dense,
    Function,
    Layer,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Move,
    Mul,
    Op,
    Pad,
    Padding,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Size2d,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
    op_inputs,
)
from nettrim_runtime.pooling import window_sizes
from nettrim_runtime.unary import evaluate

DIFFERENCE = 2.0**-12  # its square, times a third derivative, is what a central difference errs by


class LayerSlope(NamedTuple):
    """The derivatives by a layer's weights and biases, in their shapes, summed over the samples."""

    layer: Layer
    weight: Array
    bias: Array


def tensor_slopes(
    graph: Graph, values: Mapping[str, Array], seeds: Mapping[str, Array], wanted: set[str]
) -> list[tuple[str, Array]]:
    """Return (tensor, derivative of the seeds' product with their tensors) of those wanted, (n_samples, *shape).

    Parameters
    ----------
    values : Mapping
        Every activation of a run, (n_samples, *shape).
    seeds : Mapping
        By tensor, (n_samples, *shape).
    """
    slopes = dict(seeds)
    found = [(op.output, slope) for op, slope in _backwards(graph, values, slopes) if op.output in wanted]
    return found + [(name, slope) for name, slope in slopes.items() if name in wanted]


def layer_slopes(graph: Graph, values: Mapping[str, Array], seeds: Mapping[str, Array]) -> Iterator[LayerSlope]:
    """Yield the derivatives by the weights of each layer, last layer first. Parameters as of `tensor_slopes`."""
    for op, slope in _backwards(graph, values, dict(seeds)):
        if isinstance(op, Dense | Conv2d):
            inner, source = _within_clamp(op, values, slope), values[op.input]
            weight = _weight_slope(op, graph.tensors[op.weight].shape, source, inner)
            yield LayerSlope(op, weight, inner.reshape(-1, inner.shape[-1]).sum(axis=0))


def _backwards(graph: Graph, values: Mapping[str, Array], slopes: dict[str, Array]) -> Iterator[tuple[Op, Array]]:
    """Yield each operator and the derivative by its output; what is left in ``slopes`` is by the graph's inputs."""
    for op in reversed(graph.ops):
        slope = slopes.pop(op.output, None)
        if slope is None:
            continue
        yield op, slope
        inner = _within_clamp(op, values, slope)
        for name, part in zip(op_inputs(op), _pull(graph, op, values, inner), strict=True):
            slopes[name] = slopes[name] + part if name in slopes else part


def _within_clamp(op: Op, values: Mapping[str, Array], slope: Array) -> Array:
    """Return the derivative before an operator's fused activation."""
    if not isinstance(op, Clamping):
        return slope
    response, clamp = values[op.output], op.activation
    inner: Array = slope * ((response > clamp.lower) & (response < clamp.upper))
    return inner


def _weight_slope(op: Dense | Conv2d, shape: tuple[int, ...], source: Array, slope: Array) -> Array:
    """Return the derivative by a layer's weights, of their ``shape``; the clamp is out of ``slope`` already."""
    if isinstance(op, Dense):
        by_weight: Array = slope.T @ source.reshape(len(source), -1)
        return by_weight
    padded, inside = padded_buffer(len(source), source.shape[1:], op.padding, np.float32, 0)
    inside[:] = source
    view = windows(padded, Size2d(*shape[1:3]), op.stride, op.dilation)
    by_group = slope.reshape(-1, op.groups, shape[0] // op.groups)
    found = np.empty((op.groups, shape[0] // op.groups, *shape[1:]), np.float32)
    for row, column in np.ndindex(shape[1:3]):
        pixels = view[:, :, :, row, column].reshape(len(by_group), op.groups, shape[3])
        found[:, :, row, column] = np.matmul(by_group.transpose(1, 2, 0), pixels.transpose(1, 0, 2))
    return found.reshape(shape)


def _pull(graph: Graph, op: Op, values: Mapping[str, Array], slope: Array) -> tuple[Array, ...]:
    """Return the derivatives by an operator's inputs, clamps apart."""
    match op:
        case Dense():
            return ((slope @ graph.tensors[op.weight].values()).reshape(values[op.input].shape),)
        case Conv2d():
            return (_pull_convolution(op, graph.tensors[op.weight].values(), values[op.input].shape, slope),)
        case MaxPool2d():
            return (_pull_maximum(op, values[op.input], values[op.output], slope),)
        case AveragePool2d():
            mean = slope / window_sizes(op, values[op.input].shape[1:3], slope.dtype)
            taps = dict.fromkeys(np.ndindex(op.kernel_size), mean)
            return (_scatter(taps, values[op.input].shape, op.padding, op.stride, UNIT),)
        case Add():
            return _gathered(slope, values[op.first]), _gathered(slope, values[op.second])
        case Sub():
            return _gathered(slope, values[op.first]), _gathered(-slope, values[op.second])
        case Mul():
            first, second = values[op.first], values[op.second]
            return _gathered(slope * second, first), _gathered(slope * first, second)
        case Concat():
            ends = np.cumsum([values[name].shape[-1] for name in op.inputs])
            return tuple(np.split(slope, ends[:-1], axis=-1))
        case Activation() | Requantize():
            return (slope,)
        case UnaryFunction():
            return (slope * _derivative(op, values[op.input]),)
        case Reshape():
            return (slope.reshape(values[op.input].shape),)
        case PRelu():
            return (np.where(values[op.input] > 0, slope, slope * graph.tensors[op.slope].values()),)
        case LogSoftmax():
            return (slope - np.exp(values[op.output]) * np.sum(slope, axis=-1, keepdims=True),)
        case Pad() | Slice() | Transpose() | ResizeNearest():
            return (_pull_move(op, values[op.input].shape, slope),)
        case Mean():
            shape = values[op.input].shape
            kept = [1 if axis - 1 in op.axes else size for axis, size in enumerate(shape)]
            share = np.float32(slope[0].size / math.prod(shape[1:]))
            return (np.broadcast_to(slope.reshape(kept) * share, shape),)
        case Softmax():  # behind the logits, or within the network
            output = values[op.output]
            return (output * (slope - np.sum(slope * output, axis=-1, keepdims=True)),)
        case _:
            assert_never(op)


def _gathered(slope: Array, source: Array) -> Array:
    """Return the slopes of an input that may have been broadcast: summed over its copies."""
    axes = tuple(axis for axis, (copies, own) in enumerate(zip(slope.shape, source.shape, strict=True)) if copies > own)
    return slope.sum(axis=axes, keepdims=True) if axes else slope


def _derivative(op: UnaryFunction, x: Array) -> Array:
    """Return the derivative of a function of one value: the central difference of its float64 form."""
    wide = x.astype(np.float64)
    if op.function is Function.RSQRT:
        return (evaluate(op, wide) ** 3 / -2).astype(np.float32)
    difference = evaluate(op, wide + DIFFERENCE) - evaluate(op, wide - DIFFERENCE)
    derivative: Array = (difference / (2 * DIFFERENCE)).astype(np.float32)
    return derivative


def _pull_convolution(op: Conv2d, weight: Array, shape: tuple[int, ...], slope: Array) -> Array:
    by_group = slope.reshape(*slope.shape[:3], op.groups, -1)
    kernels = weight.reshape(op.groups, -1, *weight.shape[1:])
    taps: dict[tuple[int, ...], Array] = {
        (row, column): np.einsum("brcgo,goi->brcgi", by_group, kernels[:, :, row, column], optimize=True).reshape(
            *slope.shape[:3], -1
        )
        for row, column in np.ndindex(weight.shape[1:3])
    }
    return _scatter(taps, shape, op.padding, op.stride, op.dilation)


def _pull_move(op: Move, shape: tuple[int, ...], slope: Array) -> Array:
    """Add the slope of every copy to the value it is of; what padding writes has none."""
    sources = move_sources(op, shape[1:], slope.shape[1:]).reshape(-1)
    by_source = np.zeros((1 + math.prod(shape[1:]), len(slope)), slope.dtype)  # the last one for padding, -1
    np.add.at(by_source, sources, slope.reshape(len(slope), -1).T)
    pulled: Array = by_source[:-1].T.reshape(shape)
    return pulled


def _pull_maximum(op: MaxPool2d, source: Array, largest: Array, slope: Array) -> Array:
    """Give each window's slope to its first largest pixel."""
    padded, inside = padded_buffer(len(source), source.shape[1:], op.padding, source.dtype, -np.inf)
    inside[:] = source
    view = windows(padded, op.kernel_size, op.stride, UNIT)
    left = np.ones(slope.shape, bool)
    taps: dict[tuple[int, ...], Array] = {}
    for row, column in np.ndindex(op.kernel_size):
        wins = left & (view[:, :, :, row, column] == largest)
        taps[row, column], left = slope * wins, left & ~wins
    return _scatter(taps, source.shape, op.padding, op.stride, UNIT)


def _scatter(
    taps: Mapping[tuple[int, ...], Array], shape: tuple[int, ...], padding: Padding, stride: Size2d, dilation: Size2d
) -> Array:
    """Add (batch, rows, columns, channels) of each place in a window to the pixels of an image that it stands over."""
    full, inside = padded_buffer(shape[0], shape[1:], padding, np.float32, 0)
    for (row, column), values in taps.items():
        top, left = row * dilation.height, column * dilation.width
        rows = slice(top, top + stride.height * (values.shape[1] - 1) + 1, stride.height)
        columns = slice(left, left + stride.width * (values.shape[2] - 1) + 1, stride.width)
        full[:, rows, columns] += values
    return inside
