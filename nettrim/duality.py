"""Lower bounds on a layer's penalty from dual points: the certificate of a solution, recomputed from the problem."""

from dataclasses import dataclass, replace

import numpy as np

from nettrim.layer_problem import SAMPLES_PER_BLOCK, LayerProblem, Violation
from nettrim.structure import Structure
from nettrim_runtime.graph import Array

SCALE_SWEEPS = 60  # of the fixed point in `best_bounds`; every iterate is valid
BLOCK_ENTRIES = 65_536  # of one array, worked on at a time
LARGEST = np.finfo(np.float32).max
SMALLEST_GAUGE = 1e-100  # of a dual point that is zero, and worth nothing at any scale
LARGEST_SCALE, SEARCH_STEPS = 1e6, 60  # of the scale beyond which bounded weights make the dual point cost


@dataclass(frozen=True, eq=False)
class DualSums:
    """What a dual point nu is worth, neuron by neuron.

    Attributes
    ----------
    value : Array
        (n_outputs,) inf over the box of <nu, z>.
    norms : Array
        (n_outputs,) norms of the ball's entries, divided by the distance weights.
    gauge : Array
        (n_outputs,) dual norm of X nu': the point is feasible when scaled by at most 1 / gauge.
    """

    value: Array
    norms: Array
    gauge: Array


def best_bounds(sums: DualSums, epsilon: float | Array) -> Array:
    """Return each neuron's share of the best lower bound, scaling each neuron's dual by its own factor t.

    Maximises sum(t * value) - epsilon * ||t * norms|| over 0 <= t <= 1 / gauge. With one ball a neuron the
    largest t is best; with a joint ball a fixed point is iterated, and every iterate is valid.

    Parameters
    ----------
    epsilon : float or Array
        As `LayerProblem.epsilon`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        limits = np.where(sums.gauge > 0, 1.0 / sums.gauge, 0.0)
        if np.ndim(epsilon):
            return np.maximum(0.0, limits * (sums.value - epsilon * sums.norms))
        t = np.where(sums.value > 0, limits, 0.0)
        best, shares = 0.0, np.zeros_like(limits)
        curvature = epsilon * sums.norms**2
        for _ in range(SCALE_SWEEPS):
            radius = float(np.linalg.norm(t * sums.norms))
            bound = float(t @ sums.value) - float(epsilon) * radius
            if bound > best:
                best, shares = bound, t * sums.value * (bound / float(t @ sums.value))
            wanted = np.where(curvature > 0, sums.value * radius / curvature, np.inf)
            t = np.where(sums.value > 0, np.minimum(limits, wanted), 0.0)
    return shares


def finite_sums(
    structure: Structure, value: Array, norms: Array, correlation: Array, epsilon: float | Array | None
) -> DualSums:
    """Return the sums of a dual point whose X nu' is ``correlation``, (n_inputs, n_outputs).

    Where weights have two finite bounds, the dual subtracts the conjugate of the penalty, which grows with the
    scale t: the best t of each neuron is searched and its conjugate taken off the value, so that `best_bounds`
    needs no case of its own. With a joint ball (no ``epsilon``) t ends where the conjugate is still zero.
    """
    if structure.is_cone:
        return DualSums(value, norms, np.asarray(structure.gauge(correlation), np.float64))
    free = replace(structure, lower=-np.inf, upper=np.inf)
    gauge = np.asarray(free.gauge(correlation), np.float64)
    if epsilon is None:
        return DualSums(value, norms, gauge)
    slope = value - epsilon * norms
    end = np.asarray(structure.gauge(correlation), np.float64)
    with np.errstate(divide="ignore"):
        start, limit = 1.0 / np.maximum(gauge, SMALLEST_GAUGE), np.where(end > 0, 1.0 / end, np.inf)

    def worth(t: Array) -> Array:
        return t * slope - np.asarray(structure.conjugate(correlation * t), np.float64)

    low, high = start, np.minimum(start * LARGEST_SCALE, limit)
    for _ in range(SEARCH_STEPS):  # the value is concave in t; the interval in log t
        first, second = low ** (2 / 3) * high ** (1 / 3), low ** (1 / 3) * high ** (2 / 3)
        rising = worth(first) < worth(second)
        low, high = np.where(rising, first, low), np.where(rising, high, second)
    t = np.where(worth(low) > worth(start), low, start)
    return DualSums(value - np.asarray(structure.conjugate(correlation * t), np.float64) / t, norms, 1.0 / t)


def certified_gaps(problem: LayerProblem, W: Array, reached: Violation, dual: Array) -> Array:
    """Return each unit's relative gap (penalty - bound) / penalty, (n_outputs,) float64, in float64 throughout.

    A unit is a neuron, the neurons that the structure couples, or with a joint ball the whole layer; its
    neurons all get its gap. Bounds and epsilon are widened to what W needs, so that a gap is never negative but
    for rounding; infinite where numbers are not finite.

    Parameters
    ----------
    W : Array
        (n_inputs, n_outputs).
    reached : Violation
        Of W and its bias.
    dual : Array
        (n_outputs, n_samples), minus the multiplier of Z = W'X + bias, up to a positive factor per neuron.
    """
    widened = replace(problem, structure=problem.structure.widened(W))
    return relative_gaps(problem, problem.structure.value(W.astype(np.float64)), dual_bounds(widened, dual, reached))


def relative_gaps(problem: LayerProblem, upper: Array, lower: Array) -> Array:
    """Return (upper - lower) / upper of each neuron's unit, at least 0; both (n_outputs,)."""
    unit = unit_of_neuron(problem, len(upper))
    whole, bound = (np.bincount(unit, values, minlength=unit.max(initial=0) + 1)[unit] for values in (upper, lower))
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(whole > 0, 1.0 - bound / whole, 0.0)
    finite: Array = np.where(np.isfinite(gaps), np.maximum(gaps, 0.0), np.inf)
    return finite


def unit_of_neuron(problem: LayerProblem, n_outputs: int) -> Array:
    """Return (n_outputs,) int: which unit each neuron belongs to."""
    return np.arange(n_outputs) // (n_outputs if problem.is_joint else problem.structure.unit_outputs)


def dual_bounds(problem: LayerProblem, dual: Array, reached: Violation) -> Array:
    """Return each neuron's share of a lower bound on the penalty of all U that keep the constraint.

    The value of the dual, max <nu, [lower, upper]> - epsilon ||nu|| subject to a dual norm of X nu' of at most 1
    and nu 1 = 0, at a feasible point made from ``dual``: clamped to the signs that infinite bounds allow, shifted
    or balanced to sum to zero, each neuron scaled.

    Parameters
    ----------
    dual : Array
        (n_outputs, n_samples), any numbers; the nearer to the dual solution, the better the bound.
    reached : Violation
        The bound holds for the larger of epsilon and this.
    """
    nu = np.empty(dual.shape)
    value, norms = np.empty(len(nu)), np.empty(len(nu))
    size = max(1, BLOCK_ENTRIES // problem.n_samples)
    for start in range(0, len(nu), size):
        rows = slice(start, start + size)
        nu[rows], value[rows], norms[rows] = _feasible_rows(problem, dual, reached.one_sided, rows)
    if problem.is_joint:
        epsilon: float | Array = max(float(problem.epsilon), float(np.linalg.norm(reached.ball)))
    else:
        epsilon = np.maximum(problem.epsilon, reached.ball)
    own = None if problem.is_joint else epsilon
    return best_bounds(finite_sums(problem.structure, value, norms, _correlation(problem, nu), own), epsilon)


def _feasible_rows(problem: LayerProblem, dual: Array, slack: Array, rows: slice) -> tuple[Array, Array, Array]:
    """Return some neurons' dual points, clamped and without mean, their inf over the box of <nu, z>, and norms."""
    lower, upper = problem.lower[rows], problem.upper[rows]
    below, above = np.isfinite(lower), np.isfinite(upper)
    free = (below & above).astype(np.float64)
    given = dual[rows].astype(np.float64)
    nu = np.maximum(given, 0.0) * below + np.minimum(given, 0.0) * above
    count = free.sum(axis=1)
    nu -= (nu.sum(axis=1) * (count > 0) / np.maximum(count, 1.0))[:, np.newaxis] * free
    nu[count == 0] = _balanced(nu[count == 0])
    positive = np.maximum(nu, 0.0)
    # Where a bound is infinite its factor is zero; products that choose take a tenth of the time of `where`.
    value = np.vecdot(positive, np.maximum(lower, -LARGEST)) + np.vecdot(nu - positive, np.minimum(upper, LARGEST))
    shared = nu
    if problem.constraint == "hard":
        shared = nu * free
        value -= slack[rows] * np.abs(nu - shared).sum(axis=1)
    if problem.distance_weights is not None:
        shared = shared / problem.distance_weights[rows]
    return nu, value, np.sqrt(np.vecdot(shared, shared))


def _balanced(nu: Array) -> Array:
    """Scale the positive or the negative part of each neuron down until they cancel."""
    positive, negative = np.maximum(nu, 0.0), np.maximum(-nu, 0.0)
    up, down = positive.sum(axis=1, keepdims=True), negative.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        grow = np.where(up > 0, np.minimum(1.0, down / up), 0.0)
        fall = np.where(down > 0, np.minimum(1.0, up / down), 0.0)
    balanced: Array = grow * positive - fall * negative
    return balanced


def _correlation(problem: LayerProblem, nu: Array) -> Array:
    """Return X nu', (n_inputs, n_outputs)."""
    correlation = np.zeros(problem.W.shape)
    for start in range(0, nu.shape[1], SAMPLES_PER_BLOCK):
        block = slice(start, start + SAMPLES_PER_BLOCK)
        for X, neurons in problem.groups:
            correlation[:, neurons] += X[:, block].astype(np.float64) @ nu[neurons, block].T
    return correlation
