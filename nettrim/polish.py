"""Tune the weights that are left, block by block, until the block answers as the original network's does.

No labels: the original's features on the calibration samples are the target. Gradient descent on all layers of a
block together repairs what layer by layer fits cannot; zeros stay zeros. It comes after the certificates, which are
those of the weights before, and is judged on samples that it does not see.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nettrim.differentiate import layer_slopes
from nettrim.frontier import Frontier, graph_between
from nettrim.propagation import logits_tensor
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer, op_constants, op_inputs

JUDGED_SHARE = 0.2  # of the samples: they decide whether a block is kept
RUN_BYTES = 256 << 20
MOMENTS = (0.9, 0.999)  # of Adam: Kingma, Ba (2015), algorithm 1
TINY = 1e-12


@dataclass(frozen=True)
class PolishSettings:
    """How long to tune.

    Attributes
    ----------
    layers_per_block : int
        Layers that are tuned together, at least; a block ends where one tensor is all that later layers read.
    passes : int
        Times that every sample is seen.
    batch_size : int
        Samples a step.
    rate : float
        First step of Adam, as a share of the root mean square of a layer's weights; it falls as a cosine.
    """

    layers_per_block: int = 4
    passes: int = 10
    batch_size: int = 64
    rate: float = 0.02


def polish(
    original: Graph, pruned: Graph, samples: Array, rng: np.random.Generator, settings: PolishSettings | None = None
) -> Graph:
    """Return the pruned graph with tuned weights and biases: the same zeros, no block's output error larger.

    Parameters
    ----------
    original, pruned : Graph
        Float, with the same operators.
    samples : Array
        (n_samples, *graph input shape) float32; a fifth of them only judges.
    """
    settings = settings or PolishSettings()
    target, source = Frontier(original, samples, RUN_BYTES), Frontier(pruned, samples, RUN_BYTES)
    start = pruned.inputs[0]
    for end in block_ends(pruned, settings.layers_per_block):
        x, y = source.value(pruned, start), target.value(original, end)
        block = graph_between(pruned, {start}, end)
        tuned = _tune(block, x, y, rng, settings)
        constants = {name for layer in block.layers for name in (layer.weight, layer.bias)}
        pruned = pruned.with_tensors(tuple(tuned.tensors[name] for name in constants))
        start = end
        source.value(pruned, start)
        source.release(pruned, {start})
        target.release(original, {start})
    return pruned


def block_ends(graph: Graph, layers_per_block: int) -> Iterator[str]:
    """Yield the tensors at which blocks end: all that later operators read; the last is that of the logits.

    Steps that share a weight are in one block.
    """
    reads = [(*op_inputs(op), *op_constants(op)) for op in graph.ops]
    last_read = {name: number for number, names in enumerate(reads) for name in names}
    logits = logits_tensor(graph)
    live, layers = set(graph.inputs), 0
    waiting = sum(isinstance(op, Layer) for op in graph.ops)
    for number, op in enumerate(graph.ops):
        live = {name for name in (*live, *reads[number], op.output) if last_read.get(name, -1) > number}
        layers, waiting = layers + isinstance(op, Layer), waiting - isinstance(op, Layer)
        if op.output == logits:
            yield logits
            return
        if layers >= layers_per_block and waiting >= layers_per_block and live == {op.output}:
            yield op.output
            layers = 0


def _tune(block: Graph, x: Array, y: Array, rng: np.random.Generator, settings: PolishSettings) -> Graph:
    """Return a block with the weights of the pass that judged best, the ones it has included."""
    judged = max(1, round(JUDGED_SHARE * len(x)))
    order = rng.permutation(len(x))
    fit, held_out = order[judged:], np.sort(order[:judged])
    size = min(settings.batch_size, len(fit))
    if size == 0:
        return block
    names = [name for layer in block.layers for name in (layer.weight, layer.bias)]
    values = {name: block.tensors[name].values().astype(np.float32) for name in names}
    adam = {name: _Adam(values[name], is_weight=name in {layer.weight for layer in block.layers}) for name in names}
    best, least = block, _error(block, x[held_out], y[held_out])
    step, steps = 0, settings.passes * (len(fit) // size)
    for _ in range(settings.passes):
        shuffled = fit[rng.permutation(len(fit))]
        for first in range(0, len(fit) // size * size, size):
            batch = shuffled[first : first + size]
            program = prepare(_with(block, values), size)
            program.run(x[batch])
            error = (program.buffers[block.outputs[0]] - y[batch]) / np.float32(y[0].size * size)
            rate = settings.rate * (1 + np.cos(np.pi * step / steps)) / 2
            slopes: dict[str, Array] = {}
            for layer, weight, bias in layer_slopes(program.graph, program.buffers, {block.outputs[0]: error}):
                for name, slope in ((layer.weight, weight), (layer.bias, bias)):  # several where layers share them
                    slopes[name] = slopes[name] + slope if name in slopes else slope
            for name, slope in slopes.items():
                values[name] = adam[name].moved(values[name], slope, rate)
            step += 1
        now = _with(block, values)
        found = _error(now, x[held_out], y[held_out])
        if found < least:
            best, least = now, found
    return best


class _Adam:
    """The moments of one array; weights that are zero never move."""

    def __init__(self, values: Array, *, is_weight: bool) -> None:
        self._mask = values != 0 if is_weight else np.ones(values.shape, bool)
        used = values[self._mask]
        self._unit = float(np.sqrt(np.mean(np.square(used, dtype=np.float64)))) if used.size else 0.0
        self._mean, self._square, self._count = np.zeros_like(values), np.zeros_like(values), 0

    def moved(self, values: Array, slope: Array, rate: float) -> Array:
        self._count += 1
        slope = slope * self._mask
        first, second = MOMENTS
        self._mean = first * self._mean + (1 - first) * slope
        self._square = second * self._square + (1 - second) * slope**2
        mean, square = self._mean / (1 - first**self._count), self._square / (1 - second**self._count)
        moved: Array = (values - rate * self._unit * mean / (np.sqrt(square) + TINY)).astype(np.float32)
        return np.where(self._mask, moved, values)


def _with(block: Graph, values: dict[str, Array]) -> Graph:
    return block.with_tensors(tuple(replace(block.tensors[name], data=data) for name, data in values.items()))


def _error(block: Graph, x: Array, y: Array) -> float:
    return float(np.linalg.norm(run_graph(block, x).astype(np.float64) - y))
