"""What a solver returns for one layer, and the certificate of its optimality, recomputed from the problem."""

import enum
from dataclasses import dataclass

import numpy as np

from nettrim.layer_problem import (
    SAMPLES_PER_BLOCK,
    LayerProblem,
    constraint_violation,
    distance,
    in_ball,
    l1_norm,
    share,
)
from nettrim_runtime.graph import Array

SCALE_SWEEPS = 60  # of the fixed point in `_scaled_bound`; every iterate is valid


class SolverStatus(enum.Enum):
    """How a solve ended; the values are the names in files and tables."""

    SOLVED = "solved"
    MAX_ITERATIONS = "max_iterations"
    INFEASIBLE = "infeasible"
    NUMERICAL_ERROR = "numerical_error"


@dataclass(frozen=True, eq=False)
class LayerSolution:
    """Pruned weights of one layer. Distances are in float64 and recomputed from the problem.

    Attributes
    ----------
    W : Array
        (n_inputs, n_outputs) float32 with exact zeros.
    bias : Array
        (n_outputs,) float32.
    iterations : int
        ADMM iterations, of all solves of a search together.
    epsilon : float
        Allowed distance of the convex program that chose the weights.
    distance, relative_distance : float
        `layer_problem.distance` of W and bias; the same over ||Y||_F.
    primal_residual : float
        Violation of the constraint at ``epsilon``: how far the ball is exceeded or, in the hard form,
        the largest excess of a one-sided entry if that is more.
    dual_residual : float
        Last change between iterates times rho, over the norm of the dual.
    relative_gap : float or None
        (||W||_1 - certified lower bound) / ||W||_1 of the l1 program, before any refit or selection, at the
        accuracy reached: epsilon and bounds are widened to what W needs. None when no bound could be computed.
    """

    W: Array
    bias: Array
    status: SolverStatus
    iterations: int
    epsilon: float
    distance: float
    relative_distance: float
    primal_residual: float
    dual_residual: float
    relative_gap: float | None

    @property
    def nnz(self) -> int:
        """Number of weights that are not zero; biases are not counted."""
        return int(np.count_nonzero(self.W))

    @property
    def sparsity(self) -> float:
        """Share of weights that are zero."""
        return 1.0 - self.nnz / self.W.size


def evaluate(
    problem: LayerProblem,
    W: Array,
    bias: Array,
    status: SolverStatus,
    *,
    iterations: int = 0,
    dual_residual: float = 0.0,
    gap: float | None = None,
) -> LayerSolution:
    """Return a solution whose distance and violation are computed from the problem by formula, in float64."""
    reached, excess = constraint_violation(problem, W, bias)
    whole = reached if problem.constraint == "distance" else distance(problem, W, bias)
    return LayerSolution(
        W=W,
        bias=bias,
        status=status,
        iterations=iterations,
        epsilon=problem.epsilon,
        distance=whole,
        relative_distance=share(whole, problem.target_norm),
        primal_residual=max(0.0, reached - problem.epsilon, excess),
        dual_residual=dual_residual,
        relative_gap=gap,
    )


def relative_gap(problem: LayerProblem, W: Array, bias: Array, dual: Array) -> float | None:
    """Return (||W||_1 - L) / ||W||_1, L a lower bound on every feasible point's l1 norm, in float64.

    L is the value of the joint-ball dual, max <nu, [lower, upper]> - epsilon ||nu||_F subject to |X nu'| <= 1 and
    nu 1 = 0, at the best feasible point made from ``dual``: clamped to the signs that infinite bounds allow,
    balanced to sum to zero, each neuron scaled. Bounds and epsilon are widened to what W needs, so the gap is
    never negative but for rounding.

    Parameters
    ----------
    W, bias : Array
        The l1 solution, (n_inputs, n_outputs) and (n_outputs,).
    dual : Array
        (n_outputs, n_samples), minus the multiplier of Z = W'X + bias, up to a positive factor per neuron.

    Returns
    -------
    float or None
        None when the numbers are not finite.
    """
    primal = l1_norm(W)
    if primal == 0:
        return 0.0
    bound = dual_bound(problem, dual, constraint_violation(problem, W, bias))
    return max(0.0, 1.0 - bound / primal) if np.isfinite(bound) and np.isfinite(primal) else None


def dual_bound(problem: LayerProblem, dual: Array, reached: tuple[float, float]) -> float:
    """Return a lower bound on ||U||_1 over all U that keep the constraint within ``reached``.

    Parameters
    ----------
    dual : Array
        (n_outputs, n_samples), any numbers; the nearer to the dual solution, the better the bound.
    reached : (float, float)
        As `constraint_violation`: distance of the ball's entries, largest excess of the others.
        The bound holds for max(epsilon, distance).
    """
    nu = np.asarray(dual, np.float64)
    nu = np.where(np.isinf(problem.lower), np.minimum(nu, 0.0), nu)
    nu = np.where(np.isinf(problem.upper), np.maximum(nu, 0.0), nu)
    repaired = (_shifted(problem, nu), _balanced(nu))
    return max(0.0, *(_bound_at(problem, candidate, reached) for candidate in repaired))


def _shifted(problem: LayerProblem, nu: Array) -> Array:
    """Project each neuron onto nu 1 = 0 along the entries whose sign is free; neurons without any get zero."""
    free = in_ball(problem)
    count = free.sum(axis=1, keepdims=True)
    moved: Array = np.where(free, nu - nu.sum(axis=1, keepdims=True) / np.maximum(count, 1), nu)
    return np.where(count > 0, moved, 0.0)


def _balanced(nu: Array) -> Array:
    """Scale the positive or the negative part of each neuron down until they cancel."""
    positive, negative = np.maximum(nu, 0.0), np.maximum(-nu, 0.0)
    up, down = positive.sum(axis=1, keepdims=True), negative.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        grow = np.where(up > 0, np.minimum(1.0, down / up), 0.0)
        fall = np.where(down > 0, np.minimum(1.0, up / down), 0.0)
    balanced: Array = grow * positive - fall * negative
    return balanced


def _bound_at(problem: LayerProblem, nu: Array, reached: tuple[float, float]) -> float:
    hard = problem.constraint == "hard"
    shared = nu * in_ball(problem) if hard else nu
    value = _support_value(problem, nu)
    if hard:
        value -= reached[1] * np.abs(nu - shared).sum(axis=1)
    norms = np.sqrt(np.einsum("ij,ij->i", shared, shared))
    correlation = _largest_correlation(problem, nu)
    with np.errstate(divide="ignore"):
        limits = np.where(correlation > 0, 1.0 / correlation, 0.0)
    return _scaled_bound(value, norms, limits, max(problem.epsilon, reached[0]))


def _support_value(problem: LayerProblem, nu: Array) -> Array:
    """Return (n_outputs,): inf over the box of <nu, z>, neuron by neuron."""
    lower = np.where(np.isinf(problem.lower), 0.0, problem.lower)
    upper = np.where(np.isinf(problem.upper), 0.0, problem.upper)
    value: Array = np.sum(np.where(nu > 0, nu * lower, nu * upper), axis=1)
    return value


def _largest_correlation(problem: LayerProblem, nu: Array) -> Array:
    """Return (n_outputs,): max over inputs of |X nu'|."""
    correlation = np.zeros(problem.W.shape)
    for start in range(0, nu.shape[1], SAMPLES_PER_BLOCK):
        block = slice(start, start + SAMPLES_PER_BLOCK)
        correlation += problem.X[:, block].astype(np.float64) @ nu[:, block].T
    largest: Array = np.max(np.abs(correlation), axis=0)
    return largest


def _scaled_bound(value: Array, norms: Array, limits: Array, epsilon: float) -> float:
    """Maximise sum(t * value) - epsilon * ||t * norms|| over 0 <= t <= limits, from t = limits."""
    t, best = np.where(value > 0, limits, 0.0), 0.0
    curvature = epsilon * norms**2
    for _ in range(SCALE_SWEEPS):
        radius = float(np.linalg.norm(t * norms))
        best = max(best, float(t @ value) - epsilon * radius)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(curvature > 0, value * radius / curvature, np.inf)
        t = np.where(value > 0, np.minimum(limits, wanted), 0.0)
    return best
