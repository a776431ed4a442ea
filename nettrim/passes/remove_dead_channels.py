"""Remove neurons and channels that never change or that nothing reads, through the graph; outputs keep their bits."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Array, Graph, Quantization, Tensor
from nettrim_runtime.ops import (
    NO_PADDING,
    Activation,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Layer,
    MaxPool2d,
    Mean,
    Op,
    Pad,
    Pairwise,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Transpose,
    UnaryFunction,
    op_inputs,
)


def remove_dead_channels(graph: Graph) -> Graph:
    """Return a float or quantised graph without channels that are constant, folded into the biases behind, or not read.

    Channels go through additions, products, concatenations, poolings, clamps, functions, moves, depthwise
    convolutions and flattening, where all that share them can spare them. A constant other than zero stays where a
    padded convolution reads it. One channel stays at least. The outputs of a quantised graph keep every bit.
    """
    while True:
        smaller = _remove_once(graph)
        if smaller is graph:
            return graph
        graph = smaller


@dataclass(frozen=True, eq=False)
class _Channels:
    """What is known of each activation's channels, the entries of its last axis.

    Attributes
    ----------
    numbers : dict
        Tensor -> (n_channels,) int: channels of equal number, in whatever tensors, stay or go together.
    constant : dict
        Tensor -> (n_channels,) bool: the same for every sample and pixel.
    offsets : dict
        Tensor -> (n_channels,) value above the zero point, of those that are constant.
    """

    numbers: dict[str, Array]
    constant: dict[str, Array]
    offsets: dict[str, Array]


def _remove_once(graph: Graph) -> Graph:
    channels = _study(graph)
    needed = np.zeros(1 + max(numbers.max() for numbers in channels.numbers.values()), bool)
    for name in (*graph.inputs, *graph.outputs):
        needed[channels.numbers[name]] = True
    for op in graph.ops:
        for name in op_inputs(op):
            needed[channels.numbers[name][_needs(graph, op, name, channels)]] = True
        if not _is_shared(graph, op) and not _is_free(graph, op):
            needed[channels.numbers[op.output]] = True
    for numbers in channels.numbers.values():
        needed[numbers[0]] |= not needed[numbers].any()
    if needed.all():
        return graph
    return _shrink(graph, channels, {name: needed[numbers] for name, numbers in channels.numbers.items()})


def _is_free(graph: Graph, op: Op) -> bool:
    """Whether an operator's output channels can be chosen without its input's, and without another layer's."""
    is_mixing = isinstance(op, Dense) or (isinstance(op, Conv2d) and op.groups == 1)
    return is_mixing and isinstance(op, Dense | Conv2d) and len(graph.sharing(op.weight)) == 1


def _is_shared(graph: Graph, op: Op) -> bool:
    """Whether each channel of the output comes from one channel of each input, or of one input, alone."""
    if isinstance(op, Conv2d):
        channels = graph.tensors[op.input].shape[-1]
        by_channel = op.groups == channels == graph.tensors[op.output].shape[-1] and op.groups > 1
        return by_channel and len(graph.sharing(op.weight)) == 1
    if isinstance(op, Reshape):
        before, after = graph.tensors[op.input].shape, graph.tensors[op.output].shape
        return after[-1] == before[-1] or len(after) == 1
    if isinstance(op, Pad):
        return op.before[-1] == op.after[-1] == 0
    if isinstance(op, Slice):
        return op.stride[-1] == 1
    if isinstance(op, Transpose):
        return op.permutation[-1] == len(op.permutation) - 1
    if isinstance(op, Mean):
        return op.axes[-1] < len(graph.tensors[op.input].shape) - 1
    return isinstance(
        op,
        MaxPool2d | AveragePool2d | Activation | UnaryFunction | PRelu | Pairwise | Concat | ResizeNearest | Requantize,
    )


def _study(graph: Graph) -> _Channels:
    program = prepare(graph, 1)
    entry = graph.tensors[graph.inputs[0]]
    program.run(np.zeros((1, *entry.shape), entry.dtype))
    numbers = _number(graph)
    offsets = {
        name: program.buffers[name].reshape(-1, len(own))[0].astype(np.float64) - _zero(graph, name)
        for name, own in numbers.items()
    }
    channels = _Channels(numbers, {}, offsets)
    for name in graph.inputs:
        channels.constant[name] = np.zeros(len(numbers[name]), bool)
    for op in graph.ops:
        channels.constant[op.output] = _is_constant(graph, op, channels)
    return channels


def _number(graph: Graph) -> dict[str, Array]:
    """Return `_Channels.numbers`: channels that shared operators link, as an addition does, have one number."""
    names = (*graph.inputs, *(op.output for op in graph.ops))
    ends = np.cumsum([graph.tensors[name].shape[-1] for name in names])
    own = dict(zip(names, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    pairs = [np.empty((2, 0), int)]
    for op in filter(partial(_is_shared, graph), graph.ops):
        pairs += [np.stack((own[op.output], part)) for part in _passed(graph, op, own)]
    rows, columns = np.concatenate(pairs, axis=1)
    _, numbers = connected_components(csr_array((np.ones(rows.size), (rows, columns)), (ends[-1], ends[-1])))
    return {name: numbers[channels] for name, channels in own.items()}


def _passed(graph: Graph, op: Op, by_channel: Mapping[str, Array]) -> list[Array]:
    """Return what each input gives every channel of a shared operator's output, (n_channels,) each."""
    parts = [by_channel[name] for name in op_inputs(op)]
    if isinstance(op, Concat):
        return [np.concatenate(parts)]
    if isinstance(op, Slice):
        return [parts[0][op.begin[-1] : op.end[-1]]]
    return [np.tile(part, graph.tensors[op.output].shape[-1] // len(part)) for part in parts]


def _zero(graph: Graph, name: str) -> int:
    return graph.quantization(name).zero_point if graph.is_quantized else 0


def _is_constant(graph: Graph, op: Op, channels: _Channels) -> Array:
    """Return (n_channels,) bool of the output."""
    if isinstance(op, Dense | Conv2d) and _is_free(graph, op):
        moving: Array = np.any(_by_channel(graph, op, channels) & ~_foldable(op, channels), axis=1)
        return ~moving
    if not _is_shared(graph, op):
        return np.zeros(len(channels.numbers[op.output]), bool)
    if isinstance(op, Conv2d):
        weight = graph.tensors[op.weight].values()
        filtered: Array = _foldable(op, channels) | np.all(weight == 0, axis=(1, 2, 3))
        return filtered
    together: Array = np.logical_and.reduce(_passed(graph, op, channels.constant))
    return together & (channels.offsets[op.input] == 0) if isinstance(op, Pad) else together


def _foldable(op: Layer, channels: _Channels) -> Array:
    """Return (n_channels,) bool: input channels whose constant is the same at every pixel of every window."""
    padded = isinstance(op, Conv2d) and op.padding != NO_PADDING
    constant, offsets = channels.constant[op.input], channels.offsets[op.input]
    foldable: Array = constant & ((offsets == 0) | (not padded))
    return foldable


def _by_channel(graph: Graph, op: Layer, channels: _Channels) -> Array:
    """Return (n_outputs, n_channels) bool: where a layer has weights on an input channel."""
    weight = graph.tensors[op.weight].values()
    reads: Array = (weight.reshape(len(weight), -1, len(channels.numbers[op.input])) != 0).any(axis=1)
    return reads


def _needs(graph: Graph, op: Op, name: str, channels: _Channels) -> Array:
    """Return (n_channels,) bool: what an operator cannot do without, apart from what it hands on."""
    count = len(channels.numbers[name])
    if _is_shared(graph, op):
        return np.zeros(count, bool)
    if isinstance(op, Dense | Conv2d) and _is_free(graph, op):
        needs: Array = _by_channel(graph, op, channels).any(axis=0) & ~_foldable(op, channels)
        return needs
    return np.ones(count, bool)


def _shrink(graph: Graph, channels: _Channels, needed: Mapping[str, Array]) -> Graph:
    tensors = dict(graph.tensors)
    for name, kept in needed.items():
        tensors[name] = replace(tensors[name], shape=(*tensors[name].shape[:-1], int(kept.sum())))
    for layer in graph.layers:
        weight, bias = _shrink_layer(graph, layer, channels, needed)
        tensors |= {weight.name: weight, bias.name: bias}
    for op in graph.ops:
        if isinstance(op, PRelu):
            slope = graph.tensors[op.slope]
            tensors[op.slope] = _take_rows(slope, slope.values(), needed[op.output])
    ops = [_narrowed(op, tensors, needed) if _is_shared(graph, op) else op for op in graph.ops]
    return replace(graph, ops=tuple(ops), tensors=tensors)


def _narrowed(op: Op, tensors: Mapping[str, Tensor], needed: Mapping[str, Array]) -> Op:
    """Return an operator on the channels that are left: as many groups of a depthwise convolution, another slice."""
    if isinstance(op, Conv2d):
        return replace(op, groups=tensors[op.input].shape[-1])
    if isinstance(op, Slice):
        begin, end = (int(needed[op.input][:bound].sum()) for bound in (op.begin[-1], op.end[-1]))
        return replace(op, begin=(*op.begin[:-1], begin), end=(*op.end[:-1], end))
    return op


def _shrink_layer(graph: Graph, op: Layer, channels: _Channels, needed: Mapping[str, Array]) -> tuple[Tensor, Tensor]:
    rows, columns = needed[op.output], needed[op.input]
    weight, bias = graph.tensors[op.weight], graph.tensors[op.bias]
    values, offset = weight.values(), bias.values()
    if _is_free(graph, op):
        gone = ~columns
        by_channel = values.reshape(len(values), -1, len(columns))
        folded = (
            by_channel[:, :, gone].sum(axis=1, dtype=np.float64)
            @ np.where(channels.constant[op.input], channels.offsets[op.input], 0.0)[gone]
        )
        offset = (offset + folded).astype(offset.dtype)
        values = by_channel[:, :, columns].reshape(*values.shape[:-1], -1)
    return _take_rows(weight, values, rows), _take_rows(bias, offset, rows)


def _take_rows(tensor: Tensor, values: Array, rows: Array) -> Tensor:
    """Return a constant's kept rows, with their scales."""
    values = np.ascontiguousarray(values[rows])
    quantization = tensor.quantization
    if quantization is not None and quantization.axis is not None:
        quantization = Quantization(quantization.scale[rows], quantization.zero_point, quantization.axis)
    return replace(tensor, shape=values.shape, data=values, quantization=quantization)
