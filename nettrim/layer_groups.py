"""A layer's place in its networks as convex problems, one a group, and the groups' solutions as the layer's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nettrim.frontier import Frontier
from nettrim.layer_problem import Constraint, LayerProblem, build_problem, share
from nettrim.layer_rows import layer_groups, layer_inputs, layer_responses
from nettrim.layer_solution import LayerSolution, SolverStatus
from nettrim.layer_targets import LayerTarget, aim, plain_target
from nettrim.structure import L1, Structure
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer

FROM_BEST_TO_WORST = (
    SolverStatus.SOLVED,
    SolverStatus.MAX_ITERATIONS,
    SolverStatus.INFEASIBLE,
    SolverStatus.NUMERICAL_ERROR,
)


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


def layer_problems(
    original: Network, source: Network, plan: LayerPlan, constraint: Constraint, structure: Structure = L1
) -> tuple[LayerProblem, ...]:
    """Return a layer's problem, or one for each group of a convolution.

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
    groups, _ = layer_groups(graph, layer)
    problems = []
    for group in range(groups):
        neurons = slice(group * len(weight) // groups, (group + 1) * len(weight) // groups)
        response = None if Y is None else Y[neurons]
        problem = build_problem(
            X[group],
            W[:, neurons],
            bias[neurons],
            target.function,
            target=response,
            constraint=constraint,
            structure=structure,
        )
        if response is not None and target != plain_target(layer):
            problem = aim(problem, target, response, None if shift is None else shift[neurons])
        problems.append(problem)
    return tuple(problems)


def merge_solutions(problems: Sequence[LayerProblem], solutions: Sequence[LayerSolution]) -> LayerSolution:
    """Return the layer's solution: outputs side by side, distances and balls in the Euclidean norm, worst status.

    W is (n_inputs of a group, n_outputs of all groups), the shape of a grouped convolution's weights.
    """
    if len(solutions) == 1:
        return solutions[0]
    joint = problems[0].is_joint
    radii = np.concatenate([np.atleast_1d(solution.epsilon) for solution in solutions])
    gaps = [solution.relative_gaps for solution in solutions]
    known = [gap for gap in gaps if gap is not None]
    distance = _norm([solution.distance for solution in solutions])
    return replace(
        solutions[0],
        W=np.concatenate([solution.W for solution in solutions], axis=1),
        bias=np.concatenate([solution.bias for solution in solutions]),
        status=max((solution.status for solution in solutions), key=FROM_BEST_TO_WORST.index),
        iterations=sum(solution.iterations for solution in solutions),
        epsilon=_norm(radii) if joint else radii,
        distance=distance,
        relative_distance=share(distance, _norm([problem.target_norm for problem in problems])),
        primal_residual=max(solution.primal_residual for solution in solutions),
        rounding=max(solution.rounding for solution in solutions),
        relative_gaps=np.concatenate(known) if len(known) == len(gaps) else None,
    )


def _norm(values: Sequence[float] | Array) -> float:
    return float(np.linalg.norm(values))
