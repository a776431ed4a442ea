"""What a layer sees and answers on the calibration samples, as the columns of its convex problem.

A convolution is a dense layer on patches; a few patches an image are drawn, never all are kept.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Graph
from nettrim_runtime.linear import padded_buffer, windows
from nettrim_runtime.ops import Conv2d, Layer, Size2d, op_constants, op_inputs

Array = npt.NDArray[Any]

BATCH_SIZE = 64


def draw_positions(graph: Graph, layer: Layer, n_samples: int, max_rows: int, rng: np.random.Generator) -> Array:
    """Choose which output positions of each sample become columns.

    Returns
    -------
    Array
        (n_used_samples, n_positions) numbers of output pixels, all 0 for a dense layer; at most
        about ``max_rows`` entries, without repetition within a sample.
    """
    positions = graph.tensors[layer.output].size // graph.tensors[layer.weight].shape[0]
    n_used = min(n_samples, max_rows)
    each = min(positions, max(1, max_rows // n_used))
    if positions == 1:
        return np.zeros((n_used, 1), np.int64)
    return np.stack([rng.permutation(positions)[:each] for _ in range(n_used)])


def layer_inputs(graph: Graph, layer: Layer, samples: Array, positions: Array) -> Array:
    """Return X (n_inputs, n_columns): the inputs of a layer without groups at the drawn positions.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32; the first ``len(positions)`` are used.
    """
    blocks = []
    for values, chosen in _batches(graph, layer.input, samples, positions):
        if not isinstance(layer, Conv2d):
            blocks.append(values.copy())
            continue
        padded, inside = padded_buffer(len(values), values.shape[1:], layer.padding, np.float32, 0)
        inside[:] = values
        kernel = Size2d(*graph.tensors[layer.weight].shape[1:3])
        view = windows(padded, kernel, layer.stride, layer.dilation)
        row, column = np.divmod(chosen, view.shape[2])
        patches = view[np.arange(len(values))[:, None], row, column]
        blocks.append(patches.reshape(chosen.size, -1))
    return np.ascontiguousarray(np.concatenate(blocks).T)


def layer_responses(graph: Graph, layer: Layer, samples: Array, positions: Array) -> Array:
    """Return Y (n_outputs, n_columns): a layer's outputs at the drawn positions; as ``layer_inputs``."""
    blocks = []
    for values, chosen in _batches(graph, layer.output, samples, positions):
        by_position = values.reshape(len(values), -1, values.shape[-1])
        blocks.append(by_position[np.arange(len(values))[:, None], chosen].reshape(chosen.size, -1))
    return np.ascontiguousarray(np.concatenate(blocks).T)


def graph_until(graph: Graph, tensor: str) -> Graph:
    """Return the part of a graph that computes one tensor."""
    needed, ops = {tensor}, []
    for op in reversed(graph.ops):
        if op.output in needed:
            ops.append(op)
            needed.update((*op_inputs(op), *op_constants(op)))
    kept = needed | set(graph.inputs)
    tensors = {name: value for name, value in graph.tensors.items() if name in kept}
    return replace(graph, outputs=(tensor,), ops=tuple(reversed(ops)), tensors=tensors)


def _batches(graph: Graph, tensor: str, samples: Array, positions: Array) -> Iterator[tuple[Array, Array]]:
    """Yield (values of a tensor, drawn positions) for one batch after the other; the values are overwritten."""
    part = graph_until(graph, tensor)
    program = prepare(part, min(BATCH_SIZE, len(positions)))
    for start in range(0, len(positions), BATCH_SIZE):
        chosen = positions[start : start + BATCH_SIZE]
        if len(chosen) != program.batch_size:
            program = prepare(part, len(chosen))
        yield program.run(samples[start : start + len(chosen)])[0], chosen
