"""How much a network's output moves with each channel of a tensor: squared derivatives, by reverse differentiation."""

from collections.abc import Iterable, Mapping
from typing import assert_never

import numpy as np

from nettrim.propagation import logits_tensor
from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.linear import padded_buffer, windows
from nettrim_runtime.ops import (
    UNIT,
    Activation,
    Add,
    AveragePool2d,
    Conv2d,
    Dense,
    MaxPool2d,
    Op,
    Padding,
    Reshape,
    Size2d,
    Softmax,
    op_inputs,
)
from nettrim_runtime.pooling import window_sizes

BATCH_SIZE = 64
PROBES = 16  # directions of the output, where it has more


def output_sensitivity(
    graph: Graph, samples: Array, tensors: Iterable[str], rng: np.random.Generator
) -> dict[str, Array]:
    """Return by tensor (n_channels,) float64: the mean over samples and pixels of sum_c (d logit_c / d value)^2.

    The diagonal of the Gauss-Newton matrix of the squared output error, as far as channels go. Outputs are those
    before a final softmax; where there are more than `PROBES`, random signs stand for them, which leaves the mean
    as it is.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    """
    wanted, logits = set(tensors), logits_tensor(graph)
    sums = {name: np.zeros(graph.tensors[name].shape[-1]) for name in wanted}
    size = min(BATCH_SIZE, len(samples))
    program = prepare(graph, size)
    used = len(samples) // size * size
    for start in range(0, used, size):
        program.run(samples[start : start + size])
        for seed in _probes(program.buffers[logits].shape, rng):
            for name, slope in _slopes(graph, program.buffers, {logits: seed}, wanted):
                channels = slope.reshape(-1, slope.shape[-1])
                sums[name] += np.einsum("ij,ij->j", channels, channels, dtype=np.float64)
    counts = {name: used * graph.tensors[name].size // graph.tensors[name].shape[-1] for name in wanted}
    return {name: sums[name] / counts[name] for name in wanted}


def _probes(shape: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Return directions whose squared derivatives add up to those of all outputs, in the mean at least."""
    n_outputs = int(np.prod(shape[1:]))
    if n_outputs > PROBES:
        return [
            rng.choice(np.array([-1.0, 1.0], np.float32), shape) / np.float32(np.sqrt(PROBES)) for _ in range(PROBES)
        ]
    basis = np.eye(n_outputs, dtype=np.float32).reshape(n_outputs, *shape[1:])
    return [np.broadcast_to(row, shape) for row in basis]


def _slopes(
    graph: Graph, values: Mapping[str, Array], seeds: Mapping[str, Array], wanted: set[str]
) -> list[tuple[str, Array]]:
    """Return (tensor, derivative of the seeds' product with their tensors) of those wanted, (n_samples, *shape)."""
    slopes = dict(seeds)
    found = []
    for op in reversed(graph.ops):
        slope = slopes.pop(op.output, None)
        if slope is None:
            continue
        if op.output in wanted:
            found.append((op.output, slope))
        if isinstance(op, Dense | Conv2d | Add | Activation):
            response, clamp = values[op.output], op.activation
            slope = slope * ((response > clamp.lower) & (response < clamp.upper))
        for name, part in zip(op_inputs(op), _pull(graph, op, values, slope), strict=True):
            slopes[name] = slopes[name] + part if name in slopes else part
    return found + [(name, slope) for name, slope in slopes.items() if name in wanted]


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
            return slope, slope
        case Activation():
            return (slope,)
        case Reshape():
            return (slope.reshape(values[op.input].shape),)
        case Softmax():  # behind the logits, or within the network
            output = values[op.output]
            return (output * (slope - np.sum(slope * output, axis=-1, keepdims=True)),)
        case _:
            assert_never(op)


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
