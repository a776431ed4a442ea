"""The alternating direction method of multipliers for one layer: both forms of the constraint, one loop."""

from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.admm_loop import AdmmSettings, AdmmState, run_loop
from nettrim.admm_rows import Rows
from nettrim.backend import Backend, find_backend
from nettrim.bounded_fit import least_distances_in_bounds
from nettrim.duality import certified_gaps
from nettrim.layer_problem import LayerProblem, constraint_violation, gram_matrix, in_ball, neuron_distances
from nettrim.layer_solution import LayerSolution, SolverStatus, evaluate
from nettrim.refit import RefitSettings, fit_on_support
from nettrim_runtime.graph import Array

DISTANCE_SCALE, HARD_SCALE = 0.4, 0.27  # times ||A||_F / sqrt(n_inputs): measured on LeNet-300-100
BOUNDED_MARGIN = 1e-3  # of the least distance within bounds, which an iteration finds from above
INFEASIBLE_SHARE = 1e-4  # of ||Y||_F that the least distance must exceed epsilon by: above float32 noise


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """A problem reduced, scaled and factorised: all that does not depend on epsilon.

    Left out are inputs that are zero in every sample, and neurons whose box holds a constant: the bias alone
    answers for those, at no cost and no distance.

    Attributes
    ----------
    live_inputs, live_outputs : Array
        (n_inputs,) and (n_outputs,) bool: what takes part.
    constant : Array
        (n_outputs,) float32: the bias that answers for a neuron that is left out.
    A : tuple of Array
        By group, (n_live_inputs + 1, n_samples) float32, of the backend: X / scale and a row for the bias.
    C_inverse : tuple of Array
        By group, (n_live_inputs + 1, n_live_inputs + 1) float32, of the backend: the inverse of A A' + I, without
        the 1 for the bias.
    bias_unit : float
        The bias is the last column of the weights times this.
    """

    problem: LayerProblem
    backend: Backend
    live_inputs: Array
    live_outputs: Array
    constant: Array
    A: tuple[Array, ...]
    C_inverse: tuple[Array, ...]
    scale: float
    bias_unit: float


def solve(problem: LayerProblem, settings: AdmmSettings | None = None) -> LayerSolution:
    """Solve one layer's convex program.

    Aghasi, Abdi, Romberg, "Fast Convex Pruning of Deep Neural Networks" (2020), section 4, with both
    constraint forms, over-relaxation, residual balancing and a stop at a certified duality gap.

    Returns
    -------
    LayerSolution
        A feasible point whenever one was met: the sparse iterate, scaled up to reach epsilon. Not converging is
        a status, never an exception.
    """
    settings = settings or AdmmSettings()
    return solve_prepared(prepare(problem, settings), settings)


def solve_prepared(layer: PreparedLayer, settings: AdmmSettings) -> LayerSolution:
    """Do as `solve` with what `prepare` has made."""
    epsilon = layer.problem.epsilon
    state = initial_state(layer, settings)
    iterate(layer, state, epsilon, settings)
    return read_solution(layer, state, epsilon, settings)


def prepare(problem: LayerProblem, settings: AdmmSettings | None = None) -> PreparedLayer:
    """Reduce, scale and factorise a problem; ``epsilon`` is not used."""
    settings = settings or AdmmSettings()
    with threadpool_limits(limits=1):  # the same sums whatever the number of cores
        return _prepare(problem, settings)


def initial_state(layer: PreparedLayer, settings: AdmmSettings) -> AdmmState:
    """Return the original weights with zero duals."""
    problem, backend, live = layer.problem, layer.backend, layer.live_outputs
    bias = problem.bias[live] / np.float32(layer.bias_unit)
    usable = np.where(problem.live_weights, problem.W, np.float32(0))
    W = np.concatenate([usable[np.ix_(layer.live_inputs, live)].T, bias[:, np.newaxis]], axis=1)
    coupled = problem.is_joint or problem.structure.unit_outputs > 1
    scale = np.float32(layer.scale)
    lower, upper = (backend.load(bound[live] / scale) for bound in (problem.lower, problem.upper))
    ball = in_ball(problem)[live].astype(np.float32) if problem.constraint == "hard" else None
    weights = None if problem.distance_weights is None else problem.distance_weights[live]
    W = backend.load(np.ascontiguousarray(W))
    Q = backend.xp.zeros_like(lower)
    rows = Rows(
        backend=backend,
        structure=problem.structure.restrict(layer.live_inputs, live),
        A=layer.A,
        C_inverse=layer.C_inverse,
        index=np.arange(len(W)),
        group=np.repeat(np.arange(len(layer.A)), len(live) // len(layer.A))[live],
        W=W,
        S=backend.xp.zeros_like(W),
        D2=backend.xp.zeros_like(W),
        Q=Q,
        D1=backend.xp.zeros_like(Q),
        lower=lower,
        upper=upper,
        ball=None if ball is None else backend.load(ball),
        weights=None if weights is None else backend.load(weights),
        point=lower == upper,
        rho=settings.rho / _weight_sizes(problem.W[:, live], coupled=coupled),
    )
    rows.respond(W, out=Q)
    return AdmmState(
        rows=rows,
        W=backend.read(W).copy(),
        dual=np.zeros((len(W), problem.n_samples), np.float32),
        gap=np.full(len(W), np.inf),
        iterations=0,
        neuron_iterations=np.zeros(len(W), int),
    )


def iterate(layer: PreparedLayer, state: AdmmState, epsilon: float | Array, settings: AdmmSettings) -> None:
    """Run ADMM in place until every neuron, or with a joint ball the layer, has the certified gap."""
    radius = np.asarray(epsilon, np.float64) / layer.scale
    run_loop(state, radius if radius.ndim == 0 else radius[layer.live_outputs], settings)


def read_solution(
    layer: PreparedLayer, state: AdmmState, epsilon: float | Array, settings: AdmmSettings
) -> LayerSolution:
    """Return the best feasible weights and their certificate, recomputed from the problem in float64."""
    problem = layer.problem.with_epsilon(epsilon)
    W, bias = _whole(layer, state.W)
    if not state.is_finite:
        return evaluate(problem, problem.W, problem.bias, SolverStatus.NUMERICAL_ERROR, iterations=state.iterations)
    dual = np.zeros(problem.target.shape, np.float32)
    dual[layer.live_outputs] = state.dual
    reached = constraint_violation(problem, W, bias)
    gaps = certified_gaps(problem, W, reached, dual)
    solution = evaluate(problem, W, bias, SolverStatus.SOLVED, iterations=state.iterations, gaps=gaps, reached=reached)
    if solution.is_feasible and solution.relative_gap is not None and solution.relative_gap <= settings.relative_gap:
        return solution
    status = SolverStatus.MAX_ITERATIONS
    if not solution.is_feasible and _is_infeasible(problem):
        status = SolverStatus.INFEASIBLE
    return replace(solution, status=status)


def sparse_weights(layer: PreparedLayer, state: AdmmState) -> tuple[Array, Array]:
    """Return the sparse copy as it is, (n_inputs, n_outputs), and the bias, (n_outputs,), of the whole layer."""
    return _whole(layer, layer.backend.read(state.rows.S))


def _weight_sizes(W: Array, *, coupled: bool) -> Array:
    """Return (n_outputs,) root mean squares of each neuron's weights, or of all where neurons share one rho."""
    squares = np.mean(np.square(W, dtype=np.float64), axis=0)
    whole = float(np.mean(squares)) if squares.size else 1.0
    sizes: Array = np.sqrt(np.where(coupled | (squares == 0), whole or 1.0, squares))
    return sizes


def _whole(layer: PreparedLayer, rows: Array) -> tuple[Array, Array]:
    W = np.zeros_like(layer.problem.W)
    W[np.ix_(layer.live_inputs, layer.live_outputs)] = rows[:, :-1].T
    bias = layer.constant.copy()
    bias[layer.live_outputs] = rows[:, -1] * np.float32(layer.bias_unit)
    return W, bias


def _prepare(problem: LayerProblem, settings: AdmmSettings) -> PreparedLayer:
    floor, ceiling = problem.lower.max(axis=1), problem.upper.min(axis=1)
    coupled = problem.structure.unit_outputs > 1
    live_inputs, live_outputs = problem.live_inputs, (floor > ceiling) | coupled
    A = [np.concatenate([X[live_inputs], np.ones((1, X.shape[1]), np.float32)]) for X, _ in problem.groups]
    grams = np.stack([gram_matrix(rows) for rows in A])
    units = np.ones(grams.shape[1])
    energy = float(np.trace(grams[:, :-1, :-1], axis1=1, axis2=2).mean())
    units[-1] = np.sqrt(energy / max(A[0][:-1].size, 1)) or 1.0
    grams *= units * units[:, np.newaxis]
    factor = settings.scale or (HARD_SCALE if problem.constraint == "hard" else DISTANCE_SCALE)
    scale = factor * float(np.sqrt(np.trace(grams, axis1=1, axis2=2).mean() / len(units)))
    C = grams / scale**2
    inputs = np.arange(len(units) - 1)
    C[:, inputs, inputs] += 1.0  # the bias has no second copy
    for rows in A:
        np.multiply(rows, (units / scale).astype(np.float32)[:, np.newaxis], out=rows)
    backend = find_backend(settings.backend)
    return PreparedLayer(
        problem=problem,
        backend=backend,
        live_inputs=live_inputs,
        live_outputs=live_outputs,
        constant=np.clip(problem.bias, floor, np.maximum(floor, ceiling)),
        A=tuple(backend.load(rows) for rows in A),
        C_inverse=tuple(backend.load(inverse) for inverse in np.linalg.inv(C).astype(np.float32)),
        scale=scale,
        bias_unit=float(units[-1]),
    )


def _is_infeasible(problem: LayerProblem) -> bool:
    """Whether even all weights, within their bounds, cannot come within epsilon of the box.

    Asked only without convergence.
    """
    weights = problem.distance_weights
    # The fit makes the plain distance least; the weighted one is at least the smallest weight times that.
    plain, smallest = replace(problem, distance_weights=None), 1.0 if weights is None else weights.min(axis=1)

    def is_too_far(distances: Array) -> bool:
        least = np.linalg.norm(distances) if problem.is_joint else distances
        return bool(np.any(least > problem.epsilon + INFEASIBLE_SHARE * problem.target_norm))

    def out_of_reach(W: Array, bias: Array) -> bool:
        return is_too_far(smallest * neuron_distances(plain, W, bias))

    if problem.structure.contains(problem.W) and not out_of_reach(problem.W, problem.bias):
        return False
    if problem.structure.is_bounded:
        least = smallest * least_distances_in_bounds(plain)
        return is_too_far(least * (1 - BOUNDED_MARGIN))
    settings = RefitSettings(ridge=0.0, prior=0.0)
    return out_of_reach(*fit_on_support(plain, problem.W, problem.bias, problem.live_weights, settings))
