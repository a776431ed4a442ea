"""The alternating direction method of multipliers for one layer: both forms of the constraint, one loop."""

import itertools
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.layer_problem import LayerProblem, distance, gram_matrix, in_ball
from nettrim.layer_solution import LayerSolution, SolverStatus, evaluate, relative_gap
from nettrim.proximal import box_excess, drop_kept_share, frobenius_norm, kept_share, shared_square, soft_threshold
from nettrim.refit import RefitSettings, fit_on_support
from nettrim_runtime.graph import Array

DISTANCE_SCALE, HARD_SCALE = 0.4, 0.2  # times ||A||_F / sqrt(n_inputs): measured on LeNet-300-100
BLOCK_NEURONS, BLOCK_MACS = 75, 10_000_000  # neurons a thread works on, at most, and a product worth a thread
INFEASIBLE_SHARE = 1e-4  # of ||Y||_F that the least distance must exceed epsilon by: above float32 noise

Each = Callable[..., Iterable[Any]]  # map over the blocks, in this thread or in several


@dataclass(frozen=True)
class AdmmSettings:
    """How hard to try.

    Attributes
    ----------
    alpha : float
        Over-relaxation, 1.0-1.9.
    rho : float
        First penalty, in units of 1 / rms(W); balanced from there.
    eps_abs, eps_rel : float
        Stopping tolerances of the primal and the dual residual, with OSQP's meaning: absolute (an entry, in
        units of rms(W)) and relative to the norms that the residuals compare.
    margin : float
        Share of epsilon to stay inside: the sparse iterate meets the constraint to the tolerances only,
        so with a margin it meets epsilon itself.
    max_iterations : int
        Iterations before giving up with MAX_ITERATIONS.
    check_every : int
        Iterations between two looks at the residuals.
    balance_factor, balance_threshold : float
        rho is multiplied or divided by the factor when the residuals differ by more than the threshold.
    balance_iterations : int
        After so many rho stays: balancing for ever can cycle, at a constant rho ADMM converges.
    """

    alpha: float = 1.8
    rho: float = 0.5
    eps_abs: float = 1e-6
    eps_rel: float = 1e-4
    margin: float = 1e-3
    max_iterations: int = 2000
    check_every: int = 10
    balance_factor: float = 2.0
    balance_threshold: float = 3.0
    balance_iterations: int = 200


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
    A : Array
        (n_live_inputs + 1, n_samples) float32: X / scale and a row for the bias.
    C_inverse : Array
        (n_live_inputs + 1, n_live_inputs + 1) float32, the inverse of A A' + I, without the 1 for the bias.
    lower, upper : Array
        (n_live_outputs, n_samples) float32, the box / scale.
    ball : Array or None
        (n_live_outputs, n_samples) float32, 1.0 where an entry shares the ball; None when all do.
    bias_unit : float
        The bias is the last row of the weights times this.
    weight_unit : float
        Root mean square of the original weights: the unit of 1 / rho and eps_abs.
    """

    problem: LayerProblem
    live_inputs: Array
    live_outputs: Array
    constant: Array
    A: Array
    C_inverse: Array
    lower: Array
    upper: Array
    ball: Array | None
    scale: float
    bias_unit: float
    weight_unit: float


@dataclass(eq=False)
class NeuronBlock:
    """The iterates of some neurons, overwritten in place; one thread works on one block.

    Attributes
    ----------
    lower, upper, ball : Array
        (n_neurons, n_samples) float32, their rows of the `PreparedLayer`.
    W_fit, W_sparse, dual : Array
        (n_live_inputs + 1, n_neurons) float32: the two copies of the weights and the scaled dual of their split.
    response, response_dual : Array
        (n_neurons, n_samples) float32: W_fit' A and the scaled dual of its split.
    work, spare : Array
        (n_neurons, n_samples) float32: after a step the copy Z of the response, and the response before it.
    W_step : Array
        (n_live_inputs + 1, n_neurons) float32: the last change of W_fit.
    """

    lower: Array
    upper: Array
    ball: Array | None
    W_fit: Array
    W_sparse: Array
    dual: Array
    response: Array
    response_dual: Array
    work: Array
    spare: Array
    W_step: Array


@dataclass(eq=False)
class AdmmState:
    """All iterates of a layer; run them on at another epsilon for a warm start.

    Attributes
    ----------
    primal_residual, dual_residual : float
        At the last check, over the norms that they compare.
    """

    blocks: tuple[NeuronBlock, ...]
    rho: float
    iterations: int = 0
    primal_residual: float = np.inf
    dual_residual: float = np.inf
    converged: bool = False


def solve(problem: LayerProblem, settings: AdmmSettings | None = None) -> LayerSolution:
    """Solve one layer's convex program; the published one is Aghasi et al. 2017, eq. (4).

    Returns
    -------
    LayerSolution
        W is the sparse copy. SOLVED means that the residuals are within tolerance and W keeps the constraint.
        Not converging, a target out of reach and numbers that overflow are statuses, never exceptions.
    """
    settings = settings or AdmmSettings()
    layer = prepare(problem)
    state = initial_state(layer, settings)
    iterate(layer, state, problem.epsilon, settings)
    return read_solution(layer, state, problem.epsilon)


def prepare(problem: LayerProblem) -> PreparedLayer:
    """Reduce, scale so that both splits weigh alike, and factorise once for all neurons and epsilons."""
    with threadpool_limits(limits=1):  # the same sums whatever the number of cores
        return _prepare(problem)


def initial_state(layer: PreparedLayer, settings: AdmmSettings) -> AdmmState:
    """Return the original weights with zero duals."""
    problem = layer.problem
    bias = problem.bias[layer.live_outputs] / np.float32(layer.bias_unit)
    W = np.concatenate([problem.W[np.ix_(layer.live_inputs, layer.live_outputs)], bias[np.newaxis]])
    n_blocks = max(1, min(-(-W.shape[1] // BLOCK_NEURONS), layer.A.size * W.shape[1] // BLOCK_MACS))
    edges = np.linspace(0, W.shape[1], n_blocks + 1).astype(int)
    with threadpool_limits(limits=1):
        blocks = tuple(_block(layer, W, slice(start, stop)) for start, stop in itertools.pairwise(edges))
    return AdmmState(blocks, settings.rho / layer.weight_unit)


def iterate(layer: PreparedLayer, state: AdmmState, epsilon: float, settings: AdmmSettings) -> None:
    """Run ADMM in place until the residuals are small and the sparse copy keeps the constraint."""
    # Blocks of neurons in parallel with one BLAS thread each: the order of sums does not depend on the number of
    # cores, and a busy core delays one block instead of stopping every matrix product.
    with threadpool_limits(limits=1), ThreadPoolExecutor(min(len(state.blocks), os.cpu_count() or 1)) as workers:
        each = workers.map if len(state.blocks) > 1 else map
        _iterate(layer, state, epsilon, settings, each)


def read_solution(layer: PreparedLayer, state: AdmmState, epsilon: float) -> LayerSolution:
    """Return the sparse copy and its certificate, recomputed from the problem in float64."""
    problem = layer.problem.with_epsilon(epsilon)
    W, bias = sparse_weights(layer, state)
    if not (np.all(np.isfinite(W)) and np.all(np.isfinite(bias))):
        return evaluate(problem, problem.W, problem.bias, SolverStatus.NUMERICAL_ERROR, iterations=state.iterations)
    if state.converged:
        status = SolverStatus.SOLVED
    else:
        status = SolverStatus.INFEASIBLE if _is_infeasible(problem) else SolverStatus.MAX_ITERATIONS
    gap = relative_gap(problem, W, bias, _dual(layer, state, epsilon))
    return evaluate(problem, W, bias, status, iterations=state.iterations, dual_residual=state.dual_residual, gap=gap)


def sparse_weights(layer: PreparedLayer, state: AdmmState) -> tuple[Array, Array]:
    """Return the sparse copy, (n_inputs, n_outputs), and the bias, (n_outputs,), of the whole layer."""
    sparse = np.concatenate([block.W_sparse for block in state.blocks], axis=1)
    W = np.zeros_like(layer.problem.W)
    W[np.ix_(layer.live_inputs, layer.live_outputs)] = sparse[:-1]
    bias = layer.constant.copy()
    bias[layer.live_outputs] = sparse[-1] * np.float32(layer.bias_unit)
    return W, bias


def _prepare(problem: LayerProblem) -> PreparedLayer:
    floor, ceiling = problem.lower.max(axis=1), problem.upper.min(axis=1)
    live_inputs, live_outputs = problem.live_inputs, floor > ceiling
    A = np.concatenate([problem.X[live_inputs], np.ones((1, problem.X.shape[1]), np.float32)])
    units = np.ones(len(A))
    gram = gram_matrix(A)
    units[-1] = np.sqrt(np.trace(gram[:-1, :-1]) / max(A[:-1].size, 1)) or 1.0
    gram *= units * units[:, np.newaxis]
    factor = HARD_SCALE if problem.constraint == "hard" else DISTANCE_SCALE
    scale = factor * float(np.sqrt(np.trace(gram) / len(A)))
    C = gram / scale**2
    C[np.diag_indices(len(C) - 1)] += 1.0  # the bias has no second copy
    A *= (units / scale).astype(np.float32)[:, np.newaxis]
    return PreparedLayer(
        problem=problem,
        live_inputs=live_inputs,
        live_outputs=live_outputs,
        constant=np.clip(problem.bias, floor, np.maximum(floor, ceiling)),
        A=A,
        C_inverse=np.linalg.inv(C).astype(np.float32),
        lower=problem.lower[live_outputs] / np.float32(scale),
        upper=problem.upper[live_outputs] / np.float32(scale),
        ball=in_ball(problem)[live_outputs].astype(np.float32) if problem.constraint == "hard" else None,
        scale=scale,
        bias_unit=float(units[-1]),
        weight_unit=frobenius_norm(problem.W) / math.sqrt(problem.W.size) or 1.0,
    )


def _block(layer: PreparedLayer, W: Array, neurons: slice) -> NeuronBlock:
    own = np.ascontiguousarray(W[:, neurons])
    response = own.T @ layer.A
    return NeuronBlock(
        lower=layer.lower[neurons],
        upper=layer.upper[neurons],
        ball=None if layer.ball is None else layer.ball[neurons],
        W_fit=own,
        W_sparse=own.copy(),
        dual=np.zeros_like(own),
        response=response,
        response_dual=np.zeros_like(response),
        work=np.empty_like(response),
        spare=np.empty_like(response),
        W_step=np.zeros_like(own),
    )


def _iterate(layer: PreparedLayer, state: AdmmState, epsilon: float, settings: AdmmSettings, each: Each) -> None:
    radius = epsilon * (1.0 - settings.margin) / layer.scale
    state.converged = False
    for iteration in range(1, settings.max_iterations + 1):
        kept = kept_share(sum(each(_find_excess, state.blocks)), radius)
        list(each(partial(_step, layer, state.rho, settings.alpha, kept), state.blocks))
        state.iterations += 1
        if iteration % settings.check_every:
            continue
        within = _measure(layer, state, settings, each)
        if not np.isfinite(state.primal_residual + state.dual_residual):
            return
        if within and _keeps_constraint(layer, state, epsilon, settings, each):
            state.converged = True
            return
        if iteration <= settings.balance_iterations:
            _balance(state, settings)


def _find_excess(block: NeuronBlock) -> float:
    """Set ``work`` to T = Q - D1 and ``spare`` to its excess over the box; return the ball's share, squared."""
    T = np.subtract(block.response, block.response_dual, out=block.work)
    return shared_square(box_excess(T, block.lower, block.upper, out=block.spare), block.ball)


def _step(layer: PreparedLayer, rho: float, alpha: float, kept: float, block: NeuronBlock) -> None:
    """Finish one iteration of a block, in place.

    Z <- projection(Q - D1), S <- soft_threshold(W - D2, 1/rho), both relaxed by alpha, then in increments
    W <- W + C^-1 (A (Z + D1 - Q)' + S + D2 - W): the right side tends to zero, so float32 suffices.
    With E the excess of Q - D1 over the constraint set, the relaxed Z + D1 - Q is (1 - alpha) D1 - alpha E.
    """
    Q, D1, W, D2 = block.response, block.response_dual, block.W_fit, block.dual
    E = drop_kept_share(block.spare, kept, block.ball)
    block.work -= E
    block.W_sparse = soft_threshold(W - D2, 1.0 / rho)
    block.W_sparse[-1] = W[-1]  # the bias has no second copy, and its row of D2 stays zero
    E *= np.float32(alpha)
    D1 *= np.float32(1.0 - alpha)
    D1 -= E
    D2 += np.float32(alpha) * (block.W_sparse - W)
    block.W_step = layer.C_inverse @ (layer.A @ D1.T + D2)
    W += block.W_step
    D2[:-1] -= block.W_step[:-1]
    D1 += Q
    block.response, block.spare = np.matmul(W.T, layer.A, out=E), Q
    D1 -= block.response


def _measure(layer: PreparedLayer, state: AdmmState, settings: AdmmSettings, each: Each) -> bool:
    """Set both residuals and return whether they are within tolerance."""
    sizes = np.sqrt(np.sum(list(each(_squares, state.blocks)), axis=0))
    primal, change, copies, duals = float(sizes[0]), float(sizes[1]), float(max(sizes[2:4])), float(sizes[4])
    count = sum(block.work.size + block.W_fit.size for block in state.blocks)
    floor = settings.eps_abs * layer.weight_unit * math.sqrt(count)
    state.primal_residual = primal / copies if copies > 0 else primal
    state.dual_residual = change / duals if duals > 0 else change
    return primal <= floor + settings.eps_rel * copies and change <= floor + settings.eps_rel * duals


def _squares(block: NeuronBlock) -> tuple[float, ...]:
    """Return the squared norms of Z - Q and S - W, their change, (Z, S), (Q, W) and the duals; work, spare are used."""
    copies = shared_square(block.work) + shared_square(block.W_sparse)
    fits = shared_square(block.response) + shared_square(block.W_fit)
    duals = shared_square(block.response_dual) + shared_square(block.dual)
    block.work -= block.response
    block.spare -= block.response
    primal = shared_square(block.work) + shared_square(block.W_sparse - block.W_fit)
    return primal, shared_square(block.spare) + shared_square(block.W_step), copies, fits, duals


def _keeps_constraint(
    layer: PreparedLayer, state: AdmmState, epsilon: float, settings: AdmmSettings, each: Each
) -> bool:
    """Whether the sparse copy lies within epsilon, by its float32 response."""
    square = sum(each(partial(_sparse_excess, layer), state.blocks))
    count = sum(block.work.size for block in state.blocks)
    floor = settings.eps_abs * layer.weight_unit * math.sqrt(count)
    return math.sqrt(square) <= max(epsilon / layer.scale, floor)


def _sparse_excess(layer: PreparedLayer, block: NeuronBlock) -> float:
    Z = np.matmul(block.W_sparse.T, layer.A, out=block.work)
    return shared_square(box_excess(Z, block.lower, block.upper, out=block.spare), block.ball)


def _balance(state: AdmmState, settings: AdmmSettings) -> None:
    """Move rho toward equal relative residuals; only the scaled duals follow, the factorisation stays."""
    primal, dual = state.primal_residual, state.dual_residual
    if primal > settings.balance_threshold * dual:
        factor = settings.balance_factor
    elif dual > settings.balance_threshold * primal:
        factor = 1.0 / settings.balance_factor
    else:
        return
    state.rho *= factor
    for block in state.blocks:
        block.dual /= np.float32(factor)
        block.response_dual /= np.float32(factor)


def _dual(layer: PreparedLayer, state: AdmmState, epsilon: float) -> Array:
    """Return minus the multiplier of the response, up to a positive factor: minus what the next step would clip."""
    kept = kept_share(sum(map(_find_excess, state.blocks)), epsilon / layer.scale)
    dual = np.zeros(layer.problem.target.shape, np.float32)
    dual[layer.live_outputs] = -np.concatenate([drop_kept_share(b.spare, kept, b.ball) for b in state.blocks])
    return dual


def _is_infeasible(problem: LayerProblem) -> bool:
    """Whether even all weights together cannot come within epsilon of the box. Asked only without convergence."""
    reach = problem.epsilon + INFEASIBLE_SHARE * problem.target_norm
    if distance(problem, problem.W, problem.bias) <= reach:
        return False
    support = np.broadcast_to(problem.live_inputs[:, np.newaxis], problem.W.shape)
    W, bias = fit_on_support(problem, problem.W, problem.bias, support, RefitSettings(ridge=0.0))
    return distance(problem, W, bias) > reach
