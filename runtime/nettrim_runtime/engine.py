"""Run a graph with NumPy: prepare once, run many times without allocating.

On a quantised graph this is the reference that every exporter is tested against, bit for bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Graph
from nettrim_runtime.kernels_float import float_step
from nettrim_runtime.kernels_int8 import int8_step
from nettrim_runtime.linear import Step
from nettrim_runtime.ops import Reshape

Array = npt.NDArray[Any]


class Program:
    """A graph with its buffers laid out for one batch size; ``prepare`` makes it.

    Attributes
    ----------
    graph : Graph
        What it runs.
    batch_size : int
        Samples a run.
    buffers : dict
        Every activation by name, (batch_size, *shape); the next run overwrites them.
    """

    def __init__(self, graph: Graph, batch_size: int) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.buffers: dict[str, Array] = {}
        self._steps: list[Step] = []
        self._steps_before: dict[str, int] = {}  # activation -> steps until it is computed
        for name in graph.inputs:
            self._add_buffer(name)
        prepare_step = int8_step if graph.is_quantized else float_step
        for op in graph.ops:
            if isinstance(op, Reshape):  # another view of the same bytes, nothing to run
                shape = (batch_size, *graph.tensors[op.output].shape)
                self.buffers[op.output] = self.buffers[op.input].reshape(shape)
                continue
            self._add_buffer(op.output)
            self._steps.append(prepare_step(graph, op, self.buffers))
            self._steps_before[op.output] = len(self._steps)

    def run(self, *inputs: Array) -> tuple[Array, ...]:
        """Run one batch.

        Parameters
        ----------
        *inputs : Array
            One (batch_size, *shape) array a graph input: float32 or, for a quantised graph, int8.

        Returns
        -------
        tuple of Array
            The outputs: the program's own buffers, which the next run overwrites.

        Raises
        ------
        DataError
            When an input has another shape or type than the graph's.
        """
        for name, values in zip(self.graph.inputs, inputs, strict=True):
            buffer = self.buffers[name]
            if values.shape != buffer.shape or values.dtype != buffer.dtype:
                raise DataError(
                    f"input {name!r} has shape {values.shape} and type {values.dtype}, "
                    f"expected {buffer.shape} and {buffer.dtype}"
                )
            np.copyto(buffer, values)
        for step in self._steps:
            step()
        return tuple(self.buffers[name] for name in self.graph.outputs)

    def run_behind(self, name: str) -> None:
        """Run again what comes after an activation, of ``buffers`` and no reshape, that was changed in place."""
        for step in self._steps[self._steps_before.get(name, 0) :]:
            step()

    def _add_buffer(self, name: str) -> None:
        tensor = self.graph.tensors[name]
        self.buffers[name] = np.zeros((self.batch_size, *tensor.shape), tensor.dtype)


def prepare(graph: Graph, batch_size: int = 1) -> Program:
    """Lay out the buffers and choose the kernels of a graph for one batch size."""
    return Program(graph, batch_size)


def run_graph(graph: Graph, samples: Array, batch_size: int = 64) -> Array:
    """Run a graph of one input and one output on any number of samples.

    Parameters
    ----------
    samples : Array
        (n_samples, *input shape): float32 or, for a quantised graph, int8.

    Returns
    -------
    Array
        (n_samples, *output shape).
    """
    output = graph.tensors[graph.outputs[0]]
    results = np.empty((len(samples), *output.shape), output.dtype)
    program = prepare(graph, max(min(batch_size, len(samples)), 1))
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        if len(batch) != program.batch_size:
            program = prepare(graph, len(batch))
        results[start : start + len(batch)] = program.run(batch)[0]
    return results
