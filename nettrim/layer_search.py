"""One layer to a wanted number of weights, or within a wanted distance: convex screen, selection, refit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral

import numpy as np

from nettrim.admm import (
    PreparedLayer,
    initial_state,
    iterate,
    prepare,
    read_solution,
    sparse_weights,
)
from nettrim.admm_loop import AdmmSettings, AdmmState
from nettrim.elimination import EliminationSettings, choose_weights, eliminate_within, is_unstructured, is_within
from nettrim.layer_problem import LayerProblem, distance, share
from nettrim.layer_solution import LayerSolution, SolverStatus, evaluate
from nettrim.refit import RefitSettings
from nettrim.structured_search import refit_within, support_of
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array

FIRST_RELATIVE_EPSILON = 0.1
SMALLEST_RELATIVE_EPSILON = 1e-3  # below it the search fills up with the largest original weights
FIRST_SLOPE = 0.7  # -d log(nnz) / d log(epsilon), from 0.5 at 5 % to 1.1 at 30 % on LeNet-300-100
SLOPE_RANGE = (0.2, 4.0)
SLACK = 1.02  # times the original weights' distance, which a screen's epsilon exceeds: there it is feasible
LARGEST_SURPLUS = 0.2  # of the weights that can be dropped
NARROW = 0.1  # of log(epsilon): between such ends, what a rough screen keeps is no longer told apart
TIGHTER = 0.98  # times epsilon, when the refitted weights miss it


@dataclass(frozen=True)
class SearchSettings:
    """How to look for epsilon.

    Attributes
    ----------
    admm : AdmmSettings
        Of the solve that counts.
    refit : RefitSettings
        Of the fit on the chosen support.
    screen_gap, screen_iterations : float, int
        Looser gap and fewer iterations of the solves that only look for epsilon.
    choice_gap, choice_iterations : float, int
        The same of the solve whose weights elimination chooses from: it needs a bound, hardly the optimum.
    surplus : float
        Share of weights that the screen keeps beyond those wanted; at most 0.2 of what it could drop.
    elimination : EliminationSettings or None
        From the screen's weights to fewer at the same distance; None keeps the convex program's own support, or the
        largest of its weights. Weights with a structure or bounds are always chosen by size.
    plain : bool
        Return the convex program's own solution at its epsilon, as published: no refit and no elimination.
    rounds : int
        Refits, the first of all that the screen kept, each next one of fewer in geometric steps; 2 or more. Of
        weights that are chosen by size.
    max_solves : int
        Epsilons to try before the best one so far is taken.
    """

    admm: AdmmSettings = field(default_factory=AdmmSettings)
    refit: RefitSettings = field(default_factory=RefitSettings)
    screen_gap: float = 3e-2
    screen_iterations: int = 100
    choice_gap: float = 1e-2
    choice_iterations: int = 1500
    elimination: EliminationSettings | None = field(default_factory=EliminationSettings)
    plain: bool = False
    surplus: float = 1.5
    rounds: int = 5
    max_solves: int = 12

    @property
    def screen(self) -> AdmmSettings:
        """The settings of a solve that only looks for epsilon."""
        return self._looser(self.screen_gap, self.screen_iterations)

    @property
    def choice(self) -> AdmmSettings:
        """The settings of the solve that elimination starts from."""
        return self._looser(self.choice_gap, self.choice_iterations)

    def _looser(self, relative_gap: float, max_iterations: int) -> AdmmSettings:
        return replace(
            self.admm,
            relative_gap=max(relative_gap, self.admm.relative_gap),
            max_iterations=min(max_iterations, self.admm.max_iterations),
        )


def solve_to_nnz(
    problem: LayerProblem, nnz: int, importance: Array | None = None, settings: SearchSettings | None = None
) -> LayerSolution:
    """Keep ``nnz`` weights: find the epsilon whose screen keeps more, then choose among those (`nettrim.elimination`).

    With a structure or bounds, or without elimination, the largest are taken and refitted, in rounds; a weight's size
    is |w| times the root mean square of its input. When even the smallest epsilon keeps fewer, the largest original
    weights fill up.

    Parameters
    ----------
    problem : LayerProblem
        Its epsilon does not matter: the screen has one joint ball.
    nnz : int
        Weights to keep; inputs that are always zero and neurons that a bias alone answers for get none,
        so there may be fewer.
    importance : Array or None
        (n_outputs,) positive: what a neuron's squared distance counts when weights are eliminated.

    Returns
    -------
    LayerSolution
        ``epsilon``, ``status`` and ``relative_gap`` are those of the last screen, before the selection.
    """
    settings = settings or SearchSettings()
    if not isinstance(nnz, Integral) or nnz < 0:
        raise DataError(f"solve_to_nnz: nnz is {nnz!r}, expected a number of weights, 0 or more")
    problem = problem.with_epsilon(0.0)
    layer = prepare(problem, settings.admm)
    state = initial_state(layer, settings.admm)
    usable = (problem.W != 0) & problem.live_weights & layer.live_outputs
    if nnz >= np.count_nonzero(usable):
        bias = np.where(layer.live_outputs, problem.bias, layer.constant)
        whole = problem.structure.project(np.where(usable, problem.W, np.float32(0)))
        return evaluate(problem, *refit_within(problem, whole, bias, whole != 0, settings.refit), SolverStatus.SOLVED)
    surplus = min(settings.surplus * nnz, LARGEST_SURPLUS * (int(np.count_nonzero(usable)) - nnz))
    epsilon = _find_epsilon(layer, state, (nnz + 0.7 * surplus, nnz + 1.3 * surplus), settings)
    eliminates = settings.elimination is not None and is_unstructured(problem.structure) and nnz > 0
    solve = settings.choice if eliminates else settings.admm
    iterate(layer, state, epsilon, solve)
    screen = read_solution(layer, state, epsilon, solve)
    if settings.elimination and eliminates:
        start = _largest(problem, screen.W, usable, max(screen.nnz, nnz))
        first = np.where(start, np.where(screen.W != 0, screen.W, problem.W), np.float32(0))
        W, bias = choose_weights(problem, first, screen.bias, nnz, importance=importance, settings=settings.elimination)
    else:
        W, bias = _select(problem, screen, usable, nnz, settings)
    return _refitted(problem.with_epsilon(epsilon), screen, W, bias)


def solve_to_epsilon(problem: LayerProblem, settings: SearchSettings | None = None) -> LayerSolution:
    """Solve at the problem's epsilon, refit on the support, and remove what the refit has made room for.

    Every step is checked in float64. With a structure or bounds, or without elimination, the support is the convex
    program's.

    Returns
    -------
    LayerSolution
        SOLVED only if the distance keeps epsilon; in the hard form the refit minimises the distance to the whole
        box, so that a one-sided entry may exceed its bound by what `primal_residual` says. When the solver cannot
        reach that, the original weights
        come back if they do, with the status that says why.
    """
    settings = settings or SearchSettings()
    layer = prepare(problem, settings.admm)
    state = initial_state(layer, settings.admm)
    epsilon = problem.epsilon
    for _ in range(2):
        iterate(layer, state, epsilon, settings.admm)
        screen = read_solution(layer, state, epsilon, settings.admm)
        W, bias = screen.W, screen.bias
        if not settings.plain:
            W, bias = refit_within(problem, W, bias, W != 0, settings.refit)
        reached = is_within(problem, W, bias)
        if reached or screen.status is not SolverStatus.SOLVED:
            break
        epsilon = TIGHTER * epsilon
    if reached:
        if settings.elimination and not settings.plain and is_unstructured(problem.structure):
            W, bias = eliminate_within(problem, W, bias, settings.elimination)
        return _refitted(problem, screen, W, bias)
    solution = _refitted(problem, screen, W, bias)
    status = SolverStatus.MAX_ITERATIONS if solution.status is SolverStatus.SOLVED else solution.status
    allowed = np.array_equal(problem.structure.project(problem.W), problem.W)
    if allowed and distance(problem, problem.W, problem.bias) < solution.distance:
        return evaluate(problem, problem.W, problem.bias, status, iterations=state.iterations)
    return replace(solution, status=status)


def sparsity_path(
    problem: LayerProblem, relative_epsilons: Sequence[float], settings: SearchSettings | None = None
) -> tuple[tuple[float, int, float], ...]:
    """Return (relative_epsilon, nnz, distance) of the screen at each epsilon, with warm starts and no refit.

    A table for sharing a budget among layers: loose tolerances, so counts are good to about one per cent.

    Parameters
    ----------
    relative_epsilons : sequence of float
        Shares of ||Y||_F, in any order; the rows come in the same order.
    """
    settings = settings or SearchSettings()
    layer = prepare(problem, settings.admm)
    state = initial_state(layer, settings.admm)
    rows = {}
    for relative_epsilon in sorted(set(relative_epsilons), reverse=True):
        iterate(layer, state, relative_epsilon * problem.target_norm, settings.screen)
        W, bias = sparse_weights(layer, state)
        rows[relative_epsilon] = (relative_epsilon, int(np.count_nonzero(W)), distance(problem, W, bias))
    return tuple(rows[relative_epsilon] for relative_epsilon in relative_epsilons)


def _find_epsilon(
    layer: PreparedLayer, state: AdmmState, window: tuple[float, float], settings: SearchSettings
) -> float:
    """Return an epsilon whose screen keeps a number of weights in the window, or the nearest with more.

    Secant steps in (log epsilon, log nnz), bisection where they leave the bracket; every solve starts warm.
    """
    norm = layer.problem.target_norm
    wanted = np.log(max(sum(window) / 2, 1.0))
    feasible = share(distance(layer.problem, layer.problem.W, layer.problem.bias), norm)  # above it the screen is easy
    low = np.log(max(SMALLEST_RELATIVE_EPSILON, SLACK * min(feasible, 1.0)))  # enough weights at low, too few at high
    high = low + np.log(1 / SMALLEST_RELATIVE_EPSILON)
    x, slope = max(np.log(FIRST_RELATIVE_EPSILON), low), FIRST_SLOPE
    last: tuple[float, float] | None = None
    for _ in range(settings.max_solves):
        iterate(layer, state, float(np.exp(x)) * norm, settings.screen)
        kept = int(np.count_nonzero(layer.backend.read(state.rows.S)[:, :-1]))
        if math.ceil(window[0]) <= kept <= window[1]:
            return float(np.exp(x)) * norm
        low, high = (x, high) if kept > window[0] else (low, x)
        if high - low < NARROW:
            break
        point = (x, float(np.log(max(kept, 0.5))))
        if last is not None and x != last[0]:
            slope = float(np.clip((last[1] - point[1]) / (x - last[0]), *SLOPE_RANGE))
        last = point
        x += (point[1] - wanted) / slope
        if not low < x < high:
            x = (low + high) / 2
    return float(np.exp(low)) * norm


def _select(
    problem: LayerProblem, screen: LayerSolution, usable: Array, nnz: int, settings: SearchSettings
) -> tuple[Array, Array]:
    """Take the largest weights and refit, several times: what a refit makes small goes in the next round."""
    W, bias = screen.W, screen.bias
    for count in np.geomspace(max(screen.nnz, nnz), nnz, settings.rounds).round() if nnz > 0 else (0,):
        support = _largest(problem, W, usable, int(count))
        start = np.where(support, np.where(W != 0, W, problem.W), np.float32(0))
        W, bias = refit_within(problem, start, bias, support, settings.refit)
    return W, bias


def _largest(problem: LayerProblem, W: Array, usable: Array, nnz: int) -> Array:
    """Return (n_inputs, n_outputs) bool: nnz weights, in whole groups, largest in |w| * rms(input), screened first."""
    rms = problem.input_rms
    screened, original = np.abs(W) * rms, np.abs(problem.W) * rms
    size = np.where(W != 0, screened + original.max(initial=0.0), np.where(usable, original, 0.0))
    return support_of(problem.structure, size, nnz)


def _refitted(problem: LayerProblem, screen: LayerSolution, W: Array, bias: Array) -> LayerSolution:
    return evaluate(
        problem,
        W,
        bias,
        screen.status,
        iterations=screen.iterations,
        gaps=screen.relative_gaps,
    )
