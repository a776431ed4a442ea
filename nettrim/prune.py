"""Prune a network layer by layer: the parallel and the cascade scheme, for an epsilon or a sparsity."""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from nettrim.budget import Row, error_table, share_weights
from nettrim.frontier import Frontier, live_bytes
from nettrim.layer_memory import rows_within
from nettrim.layer_plan import LayerPlan, Network, layer_problem
from nettrim.layer_problem import Constraint, LayerProblem, neuron_distances
from nettrim.layer_rows import draw_positions, layer_groups
from nettrim.layer_search import SearchSettings, solve_to_epsilon, solve_to_nnz
from nettrim.layer_solution import LayerSolution
from nettrim.layer_targets import find_target, plain_target
from nettrim.polish import polish
from nettrim.sensitivity import output_sensitivity
from nettrim.structure import L1, Structure
from nettrim.structure_names import NOfM, parse_structure
from nettrim.structured_search import PatternSettings, solve_n_of_m
from nettrim.unseen_weights import target_variation, with_unseen_weights
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer

ALLOCATION_ROWS = 2500  # columns a layer for the table that shares a sparsity among the layers
LEAST_IMPORTANCE = 1e-6  # of a layer's largest: of outputs that nothing reads
SENSITIVITY_SAMPLES = 512  # for the means of squared derivatives
KEPT_DENSE = "kept dense"  # depthwise convolutions, which have few weights, and what fits as it is
ALREADY_SPARSE = "already sparse"  # of layers that only move values: nothing to gain, none of their weights counts
DEFAULT_BUDGET_BYTES = 2 << 30
FRONTIER_SHARE, RUN_SHARE = 0.25, 0.25  # of the memory budget; the solver has what the frontier leaves
FEWEST_IMAGES = 8


class _Goal(NamedTuple):
    """How many weights a layer keeps, and what each of its outputs counts."""

    nnz: int
    importance: Array


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
        Share of all prunable weights to remove; layers share it at equal cost of the output error.
    mode : Mode
        CASCADE gives a layer the already pruned network's inputs, PARALLEL the original ones.
    constraint : {"distance", "hard"}
        The convex program: distance to the box, or the inequalities as published.
    gamma : float
        Cascade slack: a layer may miss by sqrt(gamma) times what its original weights miss.
    max_rows : int
        Samples, or patches of a convolution, that a layer's problem holds at most.
    memory_budget_bytes : int
        What activations kept, one run of a batch and one layer's solve may take together, by formula. Rows of a
        problem and images are reduced to it. The samples and the network itself come on top.
    follow : bool
        Hold a layer's response behind the Add, clamp or max-pool that alone reads it (`nettrim.layer_targets`)
        instead of at its own output. The published form, "hard", never does.
    structure : str
        What is pruned together, as `nettrim.structure_names.parse_structure` reads it: l1 for single weights,
        1x4, 1x16, 4x1, columns, neurons, or n:m, which also fixes the sparsity.
    depthwise : bool
        Prune depthwise convolutions too.
    cautious : bool
        The samples are no data, but random numbers: a relative epsilon is of how much a response varies instead of
        its norm, and weights that only these samples never need are kept (`nettrim.unseen_weights`).
    polish : bool
        Tune the weights that are left afterwards, block by block (`nettrim.polish`): the solutions' distances are
        then those of the weights before.
    """

    relative_epsilon: float = 0.05
    sparsity: float | None = None
    mode: Mode = Mode.CASCADE
    constraint: Constraint = "distance"
    gamma: float = 1.1
    max_rows: int = 10_000
    memory_budget_bytes: int = DEFAULT_BUDGET_BYTES
    follow: bool = True
    structure: str = "l1"
    depthwise: bool = False
    cautious: bool = False
    polish: bool = False
    search: SearchSettings = field(default_factory=SearchSettings)


@dataclass(frozen=True, eq=False)
class PrunedLayer:
    """What happened to one layer; ``solution`` is None when it was kept as it is.

    ``fit_rows`` counts the samples, or patches of a convolution, of its problem, in all steps that share its weight.
    ``response`` is the tensor whose error the solution's distance bounds: the layer's output, or what an Add or
    max-pool makes of it. Of steps it is the first's, and the distance is that of all, each on the states of the
    original weight.
    ``is_polished`` says that weights and biases were tuned after the solution, so that it holds for others.
    """

    name: str
    status: str
    solution: LayerSolution | None
    fit_rows: int = 0
    response: str = ""
    is_polished: bool = False


@dataclass(frozen=True, eq=False)
class PruneResult:
    """The pruned float graph, and each layer's outcome in execution order."""

    graph: Graph
    layers: tuple[PrunedLayer, ...]


@dataclass(frozen=True, eq=False)
class Budget:
    """What the weights of a network's layers are worth: from it, any sparsity can be shared.

    Attributes
    ----------
    tables, sizes, importance : Mapping
        By layer: `error_table`, its number of weights, and what the squared error of each of its outputs counts.
    total : int
        Weights of the network, those of layers that are kept dense included.
    """

    tables: Mapping[str, Sequence[Row]]
    sizes: Mapping[str, int]
    importance: Mapping[str, Array]
    total: int

    def share(self, sparsity: float) -> dict[str, int]:
        """Return how many weights each layer keeps; layers that are kept dense count as well."""
        prunable = sum(self.sizes.values())
        wanted = max(0, round((1 - sparsity) * self.total) - (self.total - prunable))
        return dict(self.sizes) if wanted >= prunable else share_weights(self.tables, self.sizes, wanted)


def prune(
    graph: Graph,
    samples: Array,
    settings: PruneSettings,
    rng: np.random.Generator,
    on_layer: Callable[[str], None] = lambda _: None,
    *,
    budget: Budget | None = None,
) -> PruneResult:
    """Prune every layer of a float graph.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32, none of them held out.
    on_layer : callable
        Called with a sentence before each step, for progress.
    budget : Budget or None
        What `measure_budget` found on the same graph, for several sparsities in a row; None measures it.

    Raises
    ------
    DataError
        When the memory budget does not hold the smallest problem of a layer.
    """
    plans = _plan_layers(graph, _fitting_images(graph, len(samples), settings), settings, rng)
    goals: dict[str, _Goal] = {}
    if settings.sparsity is not None:
        budget = budget or measure_budget(graph, samples, settings, rng, on_layer)
        counts = budget.share(settings.sparsity)
        goals = {name: _Goal(counts[name], budget.importance[name]) for name in counts}
    original = _open(graph, samples, plans.values(), settings)
    source = _open(graph, samples, plans.values(), settings) if settings.mode is Mode.CASCADE else original
    pruned, results, n_plans = graph, [], len(plans)
    for layer in graph.layers:
        if layer.name not in plans:
            status = ALREADY_SPARSE if _is_already_sparse(graph, layer) else KEPT_DENSE
            results.append(PrunedLayer(layer.name, status, None, response=layer.output))
            continue
        on_layer(f"pruning {layer.name}, layer {n_plans - len(plans) + 1} of {n_plans}")
        plan = plans.pop(layer.name)
        problem = layer_problem(original, source, plan, settings.constraint, _penalty(settings))
        solution = _solve(problem, goals.get(layer.name), settings)
        status = solution.status.value
        results.append(PrunedLayer(layer.name, status, solution, problem.n_samples, plan.target.tensor))
        pruned = _with_solution(pruned, layer, solution)
        if settings.mode is Mode.CASCADE:
            source = replace(source, graph=pruned)
            source.forget((plan, *plans.values()))
        for network in (original, source):
            network.release(plans.values())
    if settings.polish:
        on_layer("polishing")
        pruned = polish(graph, pruned, samples[: _fitting_images(graph, len(samples), settings)], rng)
        results = [replace(result, status=f"{result.status}, polished", is_polished=True) for result in results]
    return PruneResult(pruned, tuple(results))


def measure_budget(
    graph: Graph,
    samples: Array,
    settings: PruneSettings,
    rng: np.random.Generator,
    on_layer: Callable[[str], None] = lambda _: None,
) -> Budget:
    """Measure what each layer's density costs the output's error, in the parallel scheme on few rows.

    Parameters as of `prune`.
    """
    few = replace(settings, max_rows=min(settings.max_rows, ALLOCATION_ROWS))
    plans = _plan_layers(graph, _fitting_images(graph, len(samples), few), few, rng)
    importance = _importance(graph, samples, plans, rng)
    network = _open(graph, samples, plans.values(), few)
    tables, sizes = {}, {}
    for number, name in enumerate(list(plans), start=1):
        on_layer(f"measuring what weights are worth in {name}, layer {number} of {len(importance)}")
        plan = plans.pop(name)
        outputs = [graph.tensors[step.output] for step, _ in plan.steps(graph)]
        positions = sum(output.size // output.shape[-1] for output in outputs)
        problem = layer_problem(network, network, plan, settings.constraint, _penalty(settings))
        tables[name] = error_table(problem, positions * importance[name], settings.search)
        sizes[name] = problem.W.size
        network.release(plans.values())
    counted = [layer for layer in graph.layers if not _is_already_sparse(graph, layer)]
    return Budget(tables, sizes, importance, sum(graph.tensors[layer.weight].size for layer in counted))


def is_prunable(graph: Graph, layer: Layer, settings: PruneSettings) -> bool:
    """Whether a layer's weights are pruned: depthwise convolutions if asked for, others unless already sparse.

    Weights that are all equal are a scaling of one channel, or a mean, and stay. Steps that share a weight are one
    layer if they differ in nothing but their input.
    """
    weight = graph.tensors[layer.weight].values()
    steps = {_step(graph, op) for op in graph.sharing(layer.weight)}
    if _is_already_sparse(graph, layer) or len(steps) > 1 or (weight == weight.flat[0]).all():
        return False
    groups, _ = layer_groups(graph, layer)
    return groups == 1 or settings.depthwise or graph.tensors[layer.weight].shape[-1] > 1


def _step(graph: Graph, layer: Layer) -> tuple[Layer, tuple[int, ...]]:
    """Return what a layer's program depends on beside its inputs' values."""
    return replace(layer, name="", input="", output=""), graph.tensors[layer.output].shape


def _is_already_sparse(graph: Graph, layer: Layer) -> bool:
    """Whether each output keeps at most one of several inputs: shortcuts that only drop pixels or add channels."""
    rows = graph.tensors[layer.weight].values().reshape(graph.tensors[layer.weight].shape[0], -1)
    return rows.shape[1] > 1 and bool((np.count_nonzero(rows, axis=1) <= 1).all())


def _plan_layers(
    graph: Graph, n_images: int, settings: PruneSettings, rng: np.random.Generator
) -> dict[str, LayerPlan]:
    """Choose each prunable layer's target, and rows that fit the memory budget."""
    budget = int((1 - FRONTIER_SHARE) * settings.memory_budget_bytes)
    unsettled = [layer.name for layer in graph.layers if is_prunable(graph, layer, settings)]
    plans = {}
    for layer in graph.layers:
        if layer.name not in unsettled:
            continue
        unsettled.remove(layer.name)
        n_steps = len(graph.sharing(layer.weight))
        follows = settings.follow and settings.constraint == "distance" and n_steps == 1
        target = find_target(graph, layer, unsettled) if follows else plain_target(layer)
        groups, n_inputs = layer_groups(graph, layer)
        fitting = rows_within(budget, layer.name, (n_inputs, graph.tensors[layer.weight].shape[0], groups))
        rows = min(settings.max_rows, fitting) // n_steps
        plans[layer.name] = LayerPlan(
            layer, target, draw_positions(graph, layer, n_images, rows, rng, pool=target.pool)
        )
    return plans


def _fitting_images(graph: Graph, n_samples: int, settings: PruneSettings) -> int:
    """Return how many samples' activations may be kept at a time, of the original and of the pruned network."""
    share = int(FRONTIER_SHARE * settings.memory_budget_bytes)
    networks = 2 if settings.mode is Mode.CASCADE else 1
    fitting = share // (networks * live_bytes(graph))
    if fitting < min(n_samples, FEWEST_IMAGES):
        raise DataError(
            f"{graph.name}: keeping the activations of {FEWEST_IMAGES} samples needs "
            f"{FEWEST_IMAGES * networks * live_bytes(graph):,} bytes, found a budget of {share:,} bytes for it: "
            "raise memory_budget_bytes (--memory)"
        )
    return min(n_samples, fitting)


def _open(graph: Graph, samples: Array, plans: Iterable[LayerPlan], settings: PruneSettings) -> Network:
    used = max((len(plan.positions) for plan in plans), default=1)
    return Network(graph, Frontier(graph, samples[:used], int(RUN_SHARE * settings.memory_budget_bytes)))


def _importance(
    graph: Graph, samples: Array, plans: Mapping[str, LayerPlan], rng: np.random.Generator
) -> dict[str, Array]:
    """Return for each layer what its outputs' squared errors count at the network's output."""
    tensors = {name: [target.tensor for _, target in plan.steps(graph)] for name, plan in plans.items()}
    wanted = {tensor for responses in tensors.values() for tensor in responses}
    found = output_sensitivity(graph, samples[:SENSITIVITY_SAMPLES], wanted, rng)
    importance = {}
    for name, responses in tensors.items():
        squares = np.mean([found[tensor] for tensor in responses], axis=0)
        importance[name] = np.maximum(squares, LEAST_IMPORTANCE * squares.max(initial=0.0) or 1.0)
    return importance


def _solve(problem: LayerProblem, goal: _Goal | None, settings: PruneSettings) -> LayerSolution:
    pattern = parse_structure(settings.structure)
    if isinstance(pattern, NOfM):
        search = PatternSettings(settings.search.admm, settings.search.refit)
        return solve_n_of_m(_with_epsilon(problem, settings), pattern, search)
    if goal is None:
        solution = solve_to_epsilon(_with_epsilon(problem, settings), settings.search)
        return with_unseen_weights(problem, solution) if settings.cautious else solution
    return solve_to_nnz(problem, *goal, settings.search)


def _penalty(settings: PruneSettings) -> Structure:
    structure = parse_structure(settings.structure)
    return L1 if isinstance(structure, NOfM) else structure


def _with_epsilon(problem: LayerProblem, settings: PruneSettings) -> LayerProblem:
    """Allow at least what the original weights need on pruned inputs, with the cascade's slack."""
    if settings.cautious:
        problem = problem.with_epsilon(settings.relative_epsilon * target_variation(problem))
    else:
        problem = problem.with_relative_epsilon(settings.relative_epsilon)
    needed = neuron_distances(problem, problem.W, problem.bias) * np.sqrt(settings.gamma)
    if problem.is_joint:
        return problem.with_epsilon(max(float(problem.epsilon), float(np.linalg.norm(needed))))
    return problem.with_epsilon(np.maximum(problem.epsilon, needed))


def _with_solution(graph: Graph, layer: Layer, solution: LayerSolution) -> Graph:
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    values = np.ascontiguousarray(solution.W.T.reshape(weight.shape))
    return graph.with_tensors((replace(weight, data=values), replace(bias, data=solution.bias)))
