"""Prune a network layer by layer: the parallel and the cascade scheme, for an epsilon or a sparsity."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.layer_problem import Constraint, LayerProblem, build_problem, distance
from nettrim.layer_rows import draw_positions, layer_inputs, layer_responses
from nettrim.layer_search import SearchSettings, solve_to_epsilon, solve_to_nnz, sparsity_path
from nettrim.layer_solution import LayerSolution
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Conv2d, Layer

Array = npt.NDArray[Any]

ALLOCATION_ROWS = 2500  # columns a layer for the path that shares a sparsity among the layers
PATH_EPSILONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
KEPT_DENSE = "kept dense"  # the status of grouped convolutions, which have few weights
SMALLEST_EPSILON = 1e-3  # of the path: there a layer keeps all its weights


class Mode(enum.Enum):
    """How layers depend on each other, in the papers' words."""

    CASCADE = "cascade"
    PARALLEL = "parallel"


@dataclass(frozen=True)
class PruneSettings:
    """How a network is pruned.

    Attributes
    ----------
    relative_epsilon : float
        Each layer's allowed distance as a share of the norm of its response; the goal unless ``sparsity`` is set.
    sparsity : float or None
        Share of all prunable weights to remove; layers share it by one common relative epsilon.
    mode : Mode
        CASCADE gives a layer the already pruned network's inputs, PARALLEL the original ones.
    constraint : {"distance", "hard"}
        The convex program: distance to the box, or the inequalities as published.
    gamma : float
        Cascade slack: a layer may miss by sqrt(gamma) times what its original weights miss.
    max_rows : int
        Samples, or patches of a convolution, that a layer's problem holds at most.
    """

    relative_epsilon: float = 0.05
    sparsity: float | None = None
    mode: Mode = Mode.CASCADE
    constraint: Constraint = "distance"
    gamma: float = 1.1
    max_rows: int = 10_000
    search: SearchSettings = field(default_factory=SearchSettings)


@dataclass(frozen=True, eq=False)
class PrunedLayer:
    """What happened to one layer; ``solution`` is None when it was kept dense.

    ``fit_rows`` counts the samples, or patches of a convolution, of its problem.
    """

    name: str
    status: str
    solution: LayerSolution | None
    fit_rows: int = 0


@dataclass(frozen=True, eq=False)
class PruneResult:
    """The pruned float graph, and each layer's outcome in execution order."""

    graph: Graph
    layers: tuple[PrunedLayer, ...]


def prune(
    graph: Graph,
    samples: Array,
    settings: PruneSettings,
    rng: np.random.Generator,
    on_layer: Callable[[str], None] = lambda _: None,
) -> PruneResult:
    """Prune every layer of a float graph.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32, none of them held out.
    on_layer : callable
        Called with a sentence before each step, for progress.
    """
    positions = {
        layer.name: draw_positions(graph, layer, len(samples), settings.max_rows, rng)
        for layer in graph.layers
        if is_prunable(layer)
    }
    counts = None
    if settings.sparsity is not None:
        counts = _share_sparsity(graph, samples, positions, settings, on_layer)
    pruned, results = graph, []
    for layer in graph.layers:
        if not is_prunable(layer):
            results.append(PrunedLayer(layer.name, KEPT_DENSE, None))
            continue
        on_layer(f"pruning {layer.name}")
        source = pruned if settings.mode is Mode.CASCADE else graph
        problem = _layer_problem(graph, source, layer, (samples, positions[layer.name]), settings)
        if counts is None:
            solution = solve_to_epsilon(_feasible(problem, settings), settings.search)
        else:
            solution = solve_to_nnz(problem, counts[layer.name], settings.search)
        results.append(PrunedLayer(layer.name, solution.status.value, solution, problem.X.shape[1]))
        pruned = _with_solution(pruned, layer, solution)
    return PruneResult(pruned, tuple(results))


def is_prunable(layer: Layer) -> bool:
    """Whether a layer's weights are pruned: all but grouped and depthwise convolutions."""
    return not isinstance(layer, Conv2d) or layer.groups == 1


def kept_counts(
    paths: Mapping[str, tuple[tuple[float, int], ...]], sizes: Mapping[str, int], total: int
) -> dict[str, int]:
    """Share ``total`` kept weights among layers so that all have about one relative epsilon.

    Parameters
    ----------
    paths : Mapping
        Per layer, (relative epsilon, nnz) with epsilon rising.
    sizes : Mapping
        Per layer, its number of weights.

    Returns
    -------
    dict
        Per layer, how many weights to keep; they add up to ``total``, or to all weights if that is less.
    """

    def at(log_epsilon: float) -> dict[str, int]:
        return {name: _interpolate(paths[name], sizes[name], log_epsilon) for name in paths}

    low, high = np.log(SMALLEST_EPSILON), 0.0
    for _ in range(60):  # halves the interval until it has no width in float64
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) > total else (low, middle)
    counts = at(high)
    missing = min(total, sum(sizes.values())) - sum(counts.values())
    for name in sorted(counts, key=lambda name: -sizes[name]):
        extra = min(missing, sizes[name] - counts[name])
        counts[name], missing = counts[name] + extra, missing - extra
    return counts


def _interpolate(path: tuple[tuple[float, int], ...], size: int, log_epsilon: float) -> int:
    points = [(SMALLEST_EPSILON, size), *path, (1.0, 0)]
    nnz = np.minimum.accumulate([count for _, count in points])
    return int(np.interp(log_epsilon, np.log([epsilon for epsilon, _ in points]), nnz))


def _share_sparsity(
    graph: Graph,
    samples: Array,
    positions: Mapping[str, Array],
    settings: PruneSettings,
    on_layer: Callable[[str], None],
) -> dict[str, int]:
    paths = {}
    sizes = {layer.name: graph.tensors[layer.weight].size for layer in graph.layers if layer.name in positions}
    total = sum(graph.tensors[layer.weight].size for layer in graph.layers)
    wanted = max(0, round((1 - (settings.sparsity or 0.0)) * total) - (total - sum(sizes.values())))
    if wanted >= sum(sizes.values()):
        return sizes
    for layer in graph.layers:
        if layer.name not in sizes:
            continue
        on_layer(f"sharing the sparsity: {layer.name}")
        chosen = positions[layer.name]
        few = chosen[: max(1, ALLOCATION_ROWS // chosen.shape[1])]
        problem = _layer_problem(graph, graph, layer, (samples, few), settings)
        path = sparsity_path(problem, PATH_EPSILONS, settings.search)
        paths[layer.name] = tuple((relative_epsilon, nnz) for relative_epsilon, nnz, _ in path)
    return kept_counts(paths, sizes, wanted)


def _layer_problem(
    original: Graph, source: Graph, layer: Layer, drawn: tuple[Array, Array], settings: PruneSettings
) -> LayerProblem:
    """Build a layer's problem from (samples, drawn positions): inputs of ``source``, target of ``original``."""
    weight, bias = original.tensors[layer.weight].values(), original.tensors[layer.bias].values()
    target = None if source is original else layer_responses(original, layer, *drawn)
    return build_problem(
        layer_inputs(source, layer, *drawn),
        weight.reshape(weight.shape[0], -1).T,
        bias,
        layer.activation,
        target=target,
        relative_epsilon=settings.relative_epsilon,
        constraint=settings.constraint,
    )


def _feasible(problem: LayerProblem, settings: PruneSettings) -> LayerProblem:
    """Allow at least what the original weights need on pruned inputs, with the cascade's slack."""
    needed = distance(problem, problem.W, problem.bias) * np.sqrt(settings.gamma)
    return problem.with_epsilon(max(problem.epsilon, float(needed)))


def _with_solution(graph: Graph, layer: Layer, solution: LayerSolution) -> Graph:
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    values = np.ascontiguousarray(solution.W.T.reshape(weight.shape))
    return graph.with_tensors((replace(weight, data=values), replace(bias, data=solution.bias)))
