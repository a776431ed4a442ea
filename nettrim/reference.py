"""One layer's convex program by CVXPY: the reference for the solver, and the route for a user's own constraints."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nettrim.duality import certified_gaps
from nettrim.errors import UsageError
from nettrim.layer_problem import LayerProblem, constraint_violation, in_ball
from nettrim.layer_solution import LayerSolution, SolverStatus, evaluate
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array

Constraints = Callable[[Any, Any], Sequence[Any]]  # (U, bias), CVXPY expressions -> CVXPY constraints

ZERO_SHARE = 1e-5  # of a neuron's largest contribution: what general solvers leave of a zero
STATUSES = {
    "optimal": SolverStatus.SOLVED,
    "optimal_inaccurate": SolverStatus.MAX_ITERATIONS,
    "user_limit": SolverStatus.MAX_ITERATIONS,
    "infeasible": SolverStatus.INFEASIBLE,
    "infeasible_inaccurate": SolverStatus.INFEASIBLE,
}  # of CVXPY; any other is a NUMERICAL_ERROR


@dataclass(frozen=True, eq=False)
class CvxpyProgram:
    """A layer's program in CVXPY's terms.

    Attributes
    ----------
    program : cvxpy.Problem
        What `run_program` solves.
    U, bias : cvxpy.Expression
        (n_inputs, n_outputs) and (n_outputs,), affine in the program's variables.
    limits : tuple of Limit
        The constraints on the response, for their multipliers.
    has_own_constraints : bool
        Whether the user added some.
    """

    program: Any
    U: Any
    bias: Any
    limits: tuple["Limit", ...]
    has_own_constraints: bool

    @property
    def solver_seconds(self) -> float:
        """What the last solver took: with its setup, without CVXPY's compilation; NaN when it failed."""
        stats = self.program.solver_stats
        if stats is None or stats.solve_time is None:
            return float("nan")
        return float(stats.solve_time + (stats.setup_time or 0.0))  # SCS states them apart, the others the sum


@dataclass(frozen=True, eq=False)
class Limit:
    """One CVXPY constraint on the response.

    Attributes
    ----------
    neuron : int or None
        None for the ball that all neurons share.
    samples : Array
        (n,) int: which entries of the neuron a bound is for; empty for a ball.
    sign : int
        1 for upper bounds, -1 for lower bounds, 0 for a ball and where no multiplier is wanted.
    """

    constraint: Any
    neuron: int | None
    samples: Array
    sign: int


def solve_with_cvxpy(
    problem: LayerProblem, solver: str = "CLARABEL", constraints: Constraints | None = None, **solver_options: Any
) -> LayerSolution:
    """Solve a layer's program with a general convex solver: for any convex constraint, but slow.

    Parameters
    ----------
    solver : str
        A conic solver that CVXPY has installed: "CLARABEL", "SCS".
    constraints : callable or None
        Given (U, bias), CVXPY expressions of shapes (n_inputs, n_outputs) and (n_outputs,), returns further
        convex constraints: ``lambda U, bias: [cvxpy.sum(U, axis=0) == 0]``.
    **solver_options
        Passed on to ``cvxpy.Problem.solve``.

    Returns
    -------
    LayerSolution
        Weights below a share of 1e-5 of their neuron's largest are zero. Constraints that nothing can keep are
        the status INFEASIBLE, a solver that fails is NUMERICAL_ERROR, both with the original weights. With
        ``constraints`` there are no gaps: the certificate is that of the program without them.

    Raises
    ------
    UsageError
        CVXPY is not installed, or has no such solver.
    """
    return run_program(problem, build_program(problem, constraints), solver, **solver_options)


def build_program(
    problem: LayerProblem, constraints: Constraints | None = None, *, compress: bool = True
) -> CvxpyProgram:
    """Return the program of a layer, as small as CVXPY can have it.

    Slack variables stand only where the box is not a point, and inputs that are always zero have no column.
    Variables are in units of the inputs and the responses: solvers' tolerances are partly absolute.

    Parameters
    ----------
    constraints : callable or None
        As in `solve_with_cvxpy`.
    compress : bool
        Replace a neuron's equations A u = y, where they outnumber the inputs, by the triangular factor of them:
        ||A u - y|| = ||R u - Q'y||, the same program in fewer rows.
    """
    cp = _cvxpy()
    if len(problem.groups) > 1:
        raise DataError(
            f"reference solver: the problem has {len(problem.groups)} groups of inputs, expected one: build a problem "
            "for each group, or solve with nettrim.admm.solve"
        )
    units = _units(problem)
    V = cp.Variable((len(problem.X) + 1, problem.W.shape[1]))
    U, bias = V[:-1] * (units.response / units.input), V[-1] * units.response
    neurons = [_Neuron(problem, units, V, index) for index in range(problem.W.shape[1])]
    limits = [limit for neuron in neurons for limit in neuron.bounds()]
    if problem.is_joint:
        parts = [part for neuron in neurons for part in neuron.excesses(limits, compress=compress)]
        limits += _ball(parts, problem.total_epsilon / units.response, None)
    else:
        radii = np.asarray(problem.epsilon) / units.response
        for neuron in neurons:
            parts = neuron.excesses(limits, compress=compress)
            limits += _ball(parts, float(radii[neuron.index]), neuron.index)
    own = [] if constraints is None else list(constraints(U, bias))
    within = [*(limit.constraint for limit in limits), *problem.structure.cvxpy_constraints(U), *own]
    penalty = problem.structure.cvxpy_penalty(V[:-1])  # in other units than U: penalties are homogeneous
    return CvxpyProgram(cp.Problem(cp.Minimize(penalty), within), U, bias, tuple(limits), constraints is not None)


def run_program(problem: LayerProblem, program: CvxpyProgram, solver: str, **solver_options: Any) -> LayerSolution:
    """Solve what `build_program` made of ``problem``; as `solve_with_cvxpy`."""
    cp = _cvxpy()
    if solver.upper() not in cp.installed_solvers():
        raise UsageError(f"CVXPY has no solver {solver!r}, expected one of: {', '.join(cp.installed_solvers())}")

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")  # the status says so
            program.program.solve(solver=solver, **solver_options)
        status = STATUSES.get(program.program.status, SolverStatus.NUMERICAL_ERROR)
    except cp.SolverError:
        status = SolverStatus.NUMERICAL_ERROR
    if status in {SolverStatus.INFEASIBLE, SolverStatus.NUMERICAL_ERROR}:
        return evaluate(problem, problem.W, problem.bias, status)
    W, bias = _with_zeros(problem, program.U.value), np.asarray(program.bias.value)
    if not (np.all(np.isfinite(W)) and np.all(np.isfinite(bias))):
        return evaluate(problem, problem.W, problem.bias, SolverStatus.NUMERICAL_ERROR)
    gaps = None
    if not program.has_own_constraints:
        reached = constraint_violation(problem, W, bias)
        gaps = certified_gaps(problem, W, reached, _dual(problem, program, W, bias))
    return evaluate(problem, W.astype(np.float32), bias.astype(np.float32), status, gaps=gaps)


def one_neuron(problem: LayerProblem, neuron: int) -> LayerProblem:
    """Return the problem of one neuron of a layer with one ball a neuron.

    Raises
    ------
    DataError
        The neurons share a ball, or the structure couples them.
    """
    if problem.is_joint or problem.structure.unit_outputs > 1:
        raise DataError("one_neuron: the neurons share a ball or a structure, expected ball='neuron' and no coupling")
    own = slice(neuron, neuron + 1)
    weights = problem.distance_weights
    return replace(
        problem,
        W=problem.W[:, own],
        bias=problem.bias[own],
        target=problem.target[own],
        lower=problem.lower[own],
        upper=problem.upper[own],
        epsilon=np.asarray(problem.epsilon)[own],
        distance_weights=None if weights is None else weights[own],
        structure=problem.structure.restrict(None, own),
    )


@dataclass(frozen=True, eq=False)
class _Units:
    """The live inputs with a column of ones, (n_samples, n_live_inputs + 1) float64, in units of ``input``."""

    A: Array
    live: Array
    input: float
    response: float


@dataclass(frozen=True, eq=False)
class _Neuron:
    """One neuron's part of the program; V (n_inputs + 1, n_outputs) is the program's variable."""

    problem: LayerProblem
    units: _Units
    V: Any
    index: int

    def bounds(self) -> list[Limit]:
        """Return the bounds of the entries outside the ball."""
        outside = ~self._in_ball
        equal = np.flatnonzero(outside & (self._lower == self._upper))
        above = np.flatnonzero(outside & np.isfinite(self._upper) & (self._lower < self._upper))
        below = np.flatnonzero(outside & np.isfinite(self._lower) & (self._lower < self._upper))
        return [
            *self._limit(equal, 0, lambda z: z == self._lower[equal]),
            *self._limit(above, 1, lambda z: z <= self._upper[above]),
            *self._limit(below, -1, lambda z: z >= self._lower[below]),
        ]

    def excesses(self, limits: list[Limit], *, compress: bool) -> list[Any]:
        """Return the vectors that the ball bounds together; appends the limits that define their slack."""
        cp = _cvxpy()

        weights = self._weights
        points = np.flatnonzero(self._in_ball & (self._lower == self._upper))
        parts = []
        if len(points):
            rows = weights[points, np.newaxis] * self.units.A[points]
            target = weights[points] * self._lower[points]
            if compress and len(points) > rows.shape[1] + 1:
                factor = np.linalg.qr(np.column_stack([rows, target])).R
                rows, target = factor[:, :-1], factor[:, -1]
            parts.append(rows @ self._v - target)
        bounded = np.isfinite(self._lower) | np.isfinite(self._upper)
        ranges = np.flatnonzero(self._in_ball & bounded & (self._lower < self._upper))
        if len(ranges):
            slack = cp.Variable(len(ranges), nonneg=True)
            parts.append(cp.multiply(weights[ranges], slack) if self.problem.distance_weights is not None else slack)
            above, below = np.isfinite(self._upper[ranges]), np.isfinite(self._lower[ranges])
            limits += self._limit(ranges[above], 0, lambda z: z <= self._upper[ranges[above]] + slack[above])
            limits += self._limit(ranges[below], 0, lambda z: z >= self._lower[ranges[below]] - slack[below])
        return parts

    def _limit(self, samples: Array, sign: int, build: Callable[[Any], Any]) -> list[Limit]:
        if len(samples) == 0:
            return []
        return [Limit(build(self.units.A[samples] @ self._v), self.index, samples, sign)]

    @property
    def _v(self) -> Any:
        return self.V[self.units.live, self.index]

    @property
    def _in_ball(self) -> Array:
        epsilon = self.problem.epsilon
        if not np.broadcast_to(epsilon, len(self.problem.bias))[self.index] > 0:
            return np.zeros(self.problem.X.shape[1], bool)  # a cone without interior is nothing for solvers
        mask: Array = in_ball(self.problem)[self.index] | (self.problem.constraint == "distance")
        return mask

    @property
    def _lower(self) -> Array:
        lower: Array = self.problem.lower[self.index].astype(np.float64) / self.units.response
        return lower

    @property
    def _upper(self) -> Array:
        upper: Array = self.problem.upper[self.index].astype(np.float64) / self.units.response
        return upper

    @property
    def _weights(self) -> Array:
        weights = self.problem.distance_weights
        return np.ones(self.problem.X.shape[1]) if weights is None else weights[self.index].astype(np.float64)


def _cvxpy() -> Any:
    try:
        import cvxpy  # noqa: PLC0415  # an extra of the package
    except ModuleNotFoundError as error:
        raise UsageError("CVXPY is not installed, it solves what is asked here: pip install cvxpy") from error
    return cvxpy


def _ball(parts: list[Any], radius: float, neuron: int | None) -> list[Limit]:
    cp = _cvxpy()

    if not parts:
        return []
    return [Limit(cp.norm(cp.hstack(parts)) <= radius, neuron, np.zeros(0, int), 0)]


def _units(problem: LayerProblem) -> _Units:
    input_unit, response_unit = _rms(problem.X), _rms(problem.target)
    X = problem.X[problem.live_inputs].astype(np.float64).T / input_unit
    A = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    return _Units(A, np.append(np.flatnonzero(problem.live_inputs), len(problem.X)), input_unit, response_unit)


def _rms(values: Array) -> float:
    """Return the root mean square of the entries that are not zero; 1 without any."""
    count = np.count_nonzero(values)
    return float(np.sqrt(np.sum(np.square(values, dtype=np.float64)) / count)) if count else 1.0


def _with_zeros(problem: LayerProblem, W: Array) -> Array:
    """Return W with zeros for what hardly moves its neuron, weights counted times the size of their inputs."""
    size, original = np.abs(W) * problem.input_rms, np.abs(problem.W) * problem.input_rms
    largest = np.max(size, axis=0, initial=0.0)
    smallest = ZERO_SHARE * np.maximum(largest, ZERO_SHARE * _rms(original))  # neurons without any weight
    return np.where(size > smallest, W, 0.0)


def _dual(problem: LayerProblem, program: CvxpyProgram, W: Array, bias: Array) -> Array:
    """Return minus the multipliers of the response, (n_outputs, n_samples); zero for neurons with epsilon 0.

    Those of a ball's entries are along the excess: compressed entries have no multipliers of their own.
    """
    response = W.T @ problem.X.astype(np.float64) + bias[:, np.newaxis]
    weights = 1.0 if problem.distance_weights is None else problem.distance_weights.astype(np.float64)
    excess = weights * (response - np.clip(response, problem.lower, problem.upper))
    if problem.constraint == "hard":
        excess = np.where(in_ball(problem), excess, 0.0)
    norms = np.linalg.norm(excess, axis=None if problem.is_joint else 1, keepdims=True)
    slopes = np.zeros((len(bias), 1))
    dual: Array = np.zeros_like(excess)
    for limit in program.limits:
        if limit.samples.size == 0:
            slopes[slice(None) if limit.neuron is None else limit.neuron] = limit.constraint.dual_value
        elif limit.sign:
            dual[limit.neuron, limit.samples] = -limit.sign * limit.constraint.dual_value
    dual -= slopes * weights * excess / np.where(norms > 0, norms, 1.0)
    dual /= _rms(problem.X)  # from the program's units to those of W
    return dual
