"""What nettrim's solver takes: whole layers, one iteration against its matrix products, growth with the sizes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.activations import RELU
from nettrim.admm import initial_state, iterate, prepare, solve
from nettrim.admm_loop import AdmmSettings
from nettrim.layer_problem import Constraint, LayerProblem, build_problem
from nettrim.layer_solution import LayerSolution
from nettrim_runtime.graph import Array

SETTINGS = AdmmSettings(threads=1)  # the defaults, on one thread as everyone here
ENDLESS = AdmmSettings(threads=1, relative_gap=0.0)  # for a number of iterations that is given
FEW, MANY = 10, 40  # iterations: their difference is free of what a solve does once
GROWTH_BASE = (300, 100, 2000)  # inputs, outputs, samples
GROWTH_FACTORS = (0.25, 0.5, 1, 2, 4)
GROWTH_AXES = ("n_inputs", "n_outputs", "n_samples")


@dataclass(frozen=True, eq=False)
class TimedSolve:
    """A solution, and the median of some runs' wall times; every run gives the same bits."""

    solution: LayerSolution
    seconds: float

    @property
    def worst_gap(self) -> float:
        """The largest certified gap of a neuron; infinite when there is none or a constraint is not kept."""
        gap = self.solution.relative_gap
        return float("inf") if gap is None or not self.solution.is_feasible else gap


def solve_timed(problem: LayerProblem, repeats: int = 1, settings: AdmmSettings = SETTINGS) -> TimedSolve:
    """Solve a layer as a user does, preparation and certificate included."""
    solutions: list[LayerSolution] = []
    seconds = _median_seconds(lambda: solutions.append(solve(problem, settings)), repeats)
    return TimedSolve(solutions[-1], seconds)


def iteration_over_products(problem: LayerProblem, repeats: int) -> float:
    """Return the time of an iteration, checks included, over that of its two matrix products alone.

    Both in float32 on one thread, in turns; the iteration is that of all neurons: none is done.
    """
    layer = prepare(problem, ENDLESS)

    def run(iterations: int) -> None:
        state = initial_state(layer, ENDLESS)
        start = time.perf_counter()
        iterate(layer, state, problem.epsilon, _limited(iterations))
        spent[iterations].append(time.perf_counter() - start)

    spent: dict[int, list[float]] = {FEW: [], MANY: []}
    products = []
    live = problem.live_inputs  # what the solver iterates on
    W, X = np.ascontiguousarray(problem.W[live].T), problem.X[live]
    response = W @ X
    for _ in range(repeats):
        run(FEW)
        products.append(_median_seconds(lambda: (W @ X, response @ X.T), FEW))
        run(MANY)
    iteration = (statistics.median(spent[MANY]) - statistics.median(spent[FEW])) / (MANY - FEW)
    return iteration / statistics.median(products)


def measure_growth(
    base: Sequence[int], factors: Sequence[float], repeats: int
) -> Mapping[str, list[tuple[int, int, float]]]:
    """Return, for each of inputs, outputs and samples, (size, iterations, seconds) with the other two at ``base``."""
    found: dict[str, list[tuple[int, int, float]]] = {axis: [] for axis in GROWTH_AXES}
    for place, axis in enumerate(GROWTH_AXES):
        for factor in factors:
            shape = [round(size * (factor if index == place else 1)) for index, size in enumerate(base)]
            timed = solve_timed(random_layer_problem(shape), repeats)
            found[axis].append((shape[place], timed.solution.iterations, timed.seconds))
    return found


def random_layer_problem(shape: Sequence[int], constraint: Constraint = "distance") -> LayerProblem:
    """Return a ReLU layer of (n_inputs, n_outputs, n_samples) with correlated inputs, not negative as after a ReLU."""
    rng = np.random.default_rng(0)
    n_inputs, n_outputs, n_samples = shape
    causes = rng.normal(size=(max(1, n_inputs // 4), n_samples))
    mixing = rng.normal(size=(n_inputs, len(causes))) / np.sqrt(len(causes))
    X: Array = np.maximum(mixing @ causes + 0.5 * rng.normal(size=(n_inputs, n_samples)), 0)
    W = rng.normal(size=(n_inputs, n_outputs)) * rng.random((n_inputs, n_outputs)) ** 2 / np.sqrt(n_inputs)
    return build_problem(X, W, np.zeros(n_outputs), RELU, relative_epsilon=0.1, constraint=constraint, ball="neuron")


def _limited(iterations: int) -> AdmmSettings:
    return AdmmSettings(threads=1, relative_gap=0.0, max_iterations=iterations)


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    with threadpool_limits(limits=1):
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
