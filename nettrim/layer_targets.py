"""Where a layer's response is held: at its own output, or further on, behind an Add, a clamp or a max-pool."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from nettrim.activations import Activation as SolverActivation
from nettrim.activations import fused_activation
from nettrim.boxes import pool_box, shifted_box, window_winners
from nettrim.frontier import graph_between
from nettrim.layer_problem import LayerProblem
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import NO_PADDING, Activation, ActivationFunction, Add, Layer, MaxPool2d, Op


@dataclass(frozen=True)
class LayerTarget:
    """The response that a layer's program bounds: pool(activation(layer + addend)).

    Attributes
    ----------
    response : str
        The tensor behind activation and addend, before the pooling. Its original values are the target.
    activation : ActivationFunction
        The clamp that makes it.
    addend : str or None
        The other summand; the network being pruned gives its values, so the layer repairs their error too.
    pool : MaxPool2d or None
        What alone reads the response: windows that neither overlap nor are padded.
    """

    response: str
    activation: ActivationFunction
    addend: str | None = None
    pool: MaxPool2d | None = None

    @property
    def tensor(self) -> str:
        """The tensor whose error the distance bounds."""
        return self.pool.output if self.pool else self.response

    @property
    def window(self) -> int:
        """Entries of the layer's output that make one response."""
        return self.pool.kernel_size.height * self.pool.kernel_size.width if self.pool else 1

    @property
    def function(self) -> SolverActivation:
        """The activation as the solver sees it."""
        return fused_activation(self.activation)


def plain_target(layer: Layer) -> LayerTarget:
    """Return the layer's own output."""
    return LayerTarget(layer.output, layer.activation)


def find_target(graph: Graph, layer: Layer, unsettled: Collection[str]) -> LayerTarget:
    """Return the furthest response that a layer's program can hold, as nothing else reads what lies between.

    Parameters
    ----------
    unsettled : collection of str
        Names of layers that change after this one: an Add with a summand that depends on one of them is not
        followed. The last of its branches then repairs the sum, and no slack is given twice.
    """
    target = plain_target(layer)
    reader = _only_reader(graph, target.response)
    if isinstance(reader, Add) and target.activation is ActivationFunction.NONE:
        addend = reader.second if reader.first == target.response else reader.first
        if addend != target.response and _is_whole(graph, reader) and not _depends_on(graph, addend, unsettled):
            target = replace(target, response=reader.output, activation=reader.activation, addend=addend)
            reader = _only_reader(graph, target.response)
    if isinstance(reader, Activation) and target.activation is ActivationFunction.NONE:
        target = replace(target, response=reader.output, activation=reader.activation)
        reader = _only_reader(graph, target.response)
    if isinstance(reader, MaxPool2d) and _is_partition(reader):
        target = replace(target, pool=reader)
    return target


def aim(problem: LayerProblem, target: LayerTarget, response: Array, shift: Array | None) -> LayerProblem:
    """Return a layer's problem with the box and the target of a response further on; epsilon stays.

    The distance bounds the error of that response: ||pool(activation(U'X + shift)) - pool(Y)||_F. The
    problem's target holds each pooled value at its window's winner and 0 elsewhere, so its norm is that of the
    pooled response.

    Parameters
    ----------
    response : Array
        (n_outputs, n_columns) float32, the original `LayerTarget.response`; windows side by side.
    shift : Array or None
        (n_outputs, n_columns) float32, the addend of the network being pruned.
    """
    if target.pool:
        lower, upper = pool_box(response, target.function, target.window)
        response = np.where(window_winners(response, target.window), response, np.float32(0))
    else:
        lower, upper = target.function.box(response)
    if shift is not None:
        lower, upper = shifted_box(lower, upper, shift)
    return replace(problem, lower=lower, upper=upper, target=response, activation=target.function)


def _is_whole(graph: Graph, op: Add) -> bool:
    """Whether both summands have the shape of the sum, neither being broadcast."""
    return graph.tensors[op.first].shape == graph.tensors[op.second].shape


def _only_reader(graph: Graph, tensor: str) -> Op | None:
    readers = graph.consumers(tensor)
    return readers[0] if len(readers) == 1 and tensor not in graph.outputs else None


def _depends_on(graph: Graph, tensor: str, layers: Collection[str]) -> bool:
    part = graph_between(graph, graph.inputs, tensor)
    weights = {layer.weight for layer in graph.layers if layer.name in layers}
    return any(layer.weight in weights for layer in part.layers)


def _is_partition(pool: MaxPool2d) -> bool:
    """Whether no two windows share a pixel and none is padded."""
    apart = pool.stride.height >= pool.kernel_size.height and pool.stride.width >= pool.kernel_size.width
    return apart and pool.padding == NO_PADDING
