"""A layer's place in its networks as a convex problem."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nettrim.frontier import Frontier
from nettrim.layer_problem import Constraint, LayerProblem, build_problem
from nettrim.layer_rows import layer_inputs, layer_responses
from nettrim.layer_targets import LayerTarget, aim, plain_target
from nettrim.structure import L1, Structure
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer's program before its numbers: one for all steps that share the layer's weight.

    Attributes
    ----------
    target : LayerTarget
        The layer's own output where steps share its weight.
    positions : Array
        (n_used_samples, n_positions), by `layer_rows.draw_positions`, the same of every step.
    """

    layer: Layer
    target: LayerTarget
    positions: Array

    def steps(self, graph: Graph) -> tuple[tuple[Layer, LayerTarget], ...]:
        """Return the operators that share the layer's weight, each with its target; mostly the layer alone."""
        layers = graph.sharing(self.layer.weight)
        return tuple((step, plain_target(step)) for step in layers) if len(layers) > 1 else ((self.layer, self.target),)

    def tensors(self, graph: Graph) -> set[str]:
        """Return what the program reads of a network."""
        steps = self.steps(graph)
        addend = {self.target.addend} if self.target.addend else set()
        return {step.input for step, _ in steps} | {target.response for _, target in steps} | addend


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
        self.frontier.release(self.graph, {name for plan in plans for name in plan.tensors(self.graph)})

    def forget(self, plans: Iterable[LayerPlan]) -> None:
        """Drop the values that depend on a weight of these plans, as it changed or will."""
        self.frontier.forget(self.graph, {plan.layer.weight for plan in plans})


def layer_problem(
    original: Network, source: Network, plan: LayerPlan, constraint: Constraint, structure: Structure = L1
) -> LayerProblem:
    """Return a layer's problem; the inputs of a grouped convolution are (n_groups, n_inputs, n_columns).

    Steps that share the layer's weight stand one after the other, each with the inputs that the original weight leads
    to: in ``source`` the layer is not pruned yet.

    Parameters
    ----------
    original, source : Network
        Whose response is the target, and whose inputs and addend the problem has: the same in the parallel
        scheme, the network pruned so far in the cascade.
    """
    layer, target, graph = plan.layer, plan.target, original.graph
    weight, bias = graph.tensors[layer.weight].values(), graph.tensors[layer.bias].values()
    W = weight.reshape(len(weight), -1).T
    steps = plan.steps(graph)
    inputs = [layer_inputs(graph, step, source.value(step.input), plan.positions) for step, _ in steps]
    X = np.concatenate(inputs, axis=-1)
    is_own = source is original and target == plain_target(layer)  # what build_problem computes from X itself
    Y = None if is_own else _responses(original, [target.response for _, target in steps], plan.positions)
    shift = layer_responses(source.value(target.addend), plan.positions) if target.addend else None
    problem = build_problem(
        X[0] if len(X) == 1 else X, W, bias, target.function, target=Y, constraint=constraint, structure=structure
    )
    return problem if Y is None or target == plain_target(layer) else aim(problem, target, Y, shift)


def _responses(network: Network, tensors: Iterable[str], positions: Array) -> Array:
    return np.concatenate([layer_responses(network.value(tensor), positions) for tensor in tensors], axis=-1)
