"""The activations of one network on all samples, moved forward layer by layer: no operator runs twice."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Conv2d, Layer, Reshape, op_constants, op_inputs

BATCH_SIZE = 64
FLOAT_BYTES = 4


class Frontier:
    """Keeps the values that later operators still need; what lies behind is dropped.

    Values are kept, not computed anew: those that a change of the graph touches must be forgotten.

    Attributes
    ----------
    values : dict
        Tensor -> (n_samples, *shape) float32.
    """

    def __init__(self, graph: Graph, samples: Array, batch_bytes: int) -> None:
        """Start at the graph's input; ``batch_bytes`` bounds the buffers of one run of a part of it."""
        self.values: dict[str, Array] = {graph.inputs[0]: samples}
        self._batch_bytes = batch_bytes

    def value(self, graph: Graph, tensor: str) -> Array:
        """Return a tensor on all samples, computed from the nearest values that are there."""
        if tensor not in self.values:
            part = graph_between(graph, self.values, tensor)
            self.values[tensor] = self._run(part)
        return self.values[tensor]

    def release(self, graph: Graph, wanted: Iterable[str]) -> None:
        """Drop what no tensor that is still wanted needs."""
        needed = set(wanted)
        for op in reversed(graph.ops):
            if op.output in needed and op.output not in self.values:
                needed.update(op_inputs(op))
        self.values = {name: values for name, values in self.values.items() if name in needed}

    def forget(self, graph: Graph, constants: set[str]) -> None:
        """Drop the values that depend on these constants."""
        touched: set[str] = set()
        for op in graph.ops:
            if not touched.isdisjoint(op_inputs(op)) or not constants.isdisjoint(op_constants(op)):
                touched.add(op.output)
        self.values = {name: values for name, values in self.values.items() if name not in touched}

    def _run(self, part: Graph) -> Array:
        inputs = [self.values[name] for name in part.inputs]
        n_samples = len(inputs[0])
        output = part.tensors[part.outputs[0]]
        results = np.empty((n_samples, *output.shape), np.float32)
        size = min(n_samples, max(1, min(BATCH_SIZE, self._batch_bytes // run_bytes(part))))
        program = prepare(part, size)
        for start in range(0, n_samples, size):
            batch = [values[start : start + size] for values in inputs]
            if len(batch[0]) != program.batch_size:
                program = prepare(part, len(batch[0]))
            results[start : start + size] = program.run(*batch)[0]
        return results


def graph_between(graph: Graph, known: Collection[str], tensor: str) -> Graph:
    """Return the part of a graph that computes one tensor from those that are known already."""
    needed, ops = {tensor}, []
    for op in reversed(graph.ops):
        if op.output in needed and op.output not in known:
            ops.append(op)
            needed.update((*op_inputs(op), *op_constants(op)))
    inputs = tuple(name for name in graph.tensors if name in needed and name in known)
    tensors = {name: value for name, value in graph.tensors.items() if name in needed}
    return replace(graph, inputs=inputs, outputs=(tensor,), ops=tuple(reversed(ops)), tensors=tensors)


def run_bytes(graph: Graph) -> int:
    """Return the bytes of buffers that running a float graph takes for each sample of a batch: never 0."""
    activations = sum(graph.tensors[name].size for name in {*graph.inputs, *(op.output for op in graph.ops)})
    patches = sum(
        graph.tensors[op.output].size // graph.tensors[op.weight].shape[0] * _patch_size(graph, op)
        for op in graph.ops
        if isinstance(op, Conv2d)
    )
    return FLOAT_BYTES * (activations + patches)


def live_bytes(graph: Graph) -> int:
    """Return the most bytes a sample that `Frontier` keeps at a time on its way through a graph.

    The inputs, or responses, of all steps that share a weight are there at once.
    """
    last_read = {name: index for index, op in enumerate(graph.ops) for name in op_inputs(op)}
    live, most = set(graph.inputs), 0
    for index, op in enumerate(graph.ops):
        if not isinstance(op, Reshape):
            live.add(op.output)
        most = max(most, sum(graph.tensors[name].size for name in live))
        live = {name for name in live if last_read.get(name, -1) > index}
    return FLOAT_BYTES * (most + sum(_steps_size(graph, layer) for layer in graph.layers))


def _steps_size(graph: Graph, layer: Layer) -> int:
    """Return the values of the inputs, or outputs if larger, of the operators that share a layer's weight."""
    steps = graph.sharing(layer.weight)
    inputs, outputs = (sum(graph.tensors[getattr(op, end)].size for op in steps) for end in ("input", "output"))
    return max(inputs, outputs) if len(steps) > 1 else 0


def _patch_size(graph: Graph, op: Conv2d) -> int:
    """Return the values that a kernel lays out for each output pixel, and its products."""
    weight = graph.tensors[op.weight]
    return weight.size // weight.shape[0] + weight.shape[0] // op.groups
