"""A layer's place in its networks as a convex problem."""

from collections.abc import Iterable
from dataclasses import dataclass

from nettrim.frontier import Frontier
from nettrim.layer_problem import Constraint, LayerProblem, build_problem
from nettrim.layer_rows import layer_inputs, layer_responses
from nettrim.layer_targets import LayerTarget, aim, plain_target
from nettrim.structure import L1, Structure
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer's program before its numbers.

    Attributes
    ----------
    positions : Array
        (n_used_samples, n_positions), by `layer_rows.draw_positions`.
    """

    layer: Layer
    target: LayerTarget
    positions: Array

    @property
    def tensors(self) -> set[str]:
        """What the program reads of a network."""
        addend = {self.target.addend} if self.target.addend else set()
        return {self.layer.input, self.target.response} | addend


@dataclass(frozen=True, eq=False)
class Network:
    """A graph, and the values of its tensors on the calibration samples."""

    graph: Graph
    frontier: Frontier

    def value(self, tensor: str) -> Array:
        """Return a tensor on all samples, (n_samples, *shape) float32."""
        return self.frontier.value(self.graph, tensor)

    def release(self, plans: Iterable[LayerPlan]) -> None:
        """Drop the values that none of these plans needs."""
        self.frontier.release(self.graph, {tensor for plan in plans for tensor in plan.tensors})


def layer_problem(
    original: Network, source: Network, plan: LayerPlan, constraint: Constraint, structure: Structure = L1
) -> LayerProblem:
    """Return a layer's problem; the inputs of a grouped convolution are (n_groups, n_inputs, n_columns).

    Parameters
    ----------
    original, source : Network
        Whose response is the target, and whose inputs and addend the problem has: the same in the parallel
        scheme, the network pruned so far in the cascade.
    """
    layer, target, graph = plan.layer, plan.target, original.graph
    weight, bias = graph.tensors[layer.weight].values(), graph.tensors[layer.bias].values()
    W = weight.reshape(len(weight), -1).T
    X = layer_inputs(graph, layer, source.value(layer.input), plan.positions)
    is_own = source is original and target == plain_target(layer)  # what build_problem computes from X itself
    Y = None if is_own else layer_responses(original.value(target.response), plan.positions)
    shift = layer_responses(source.value(target.addend), plan.positions) if target.addend else None
    problem = build_problem(
        X[0] if len(X) == 1 else X, W, bias, target.function, target=Y, constraint=constraint, structure=structure
    )
    return problem if Y is None or target == plain_target(layer) else aim(problem, target, Y, shift)
