"""The solver that the authors of Net-Trim published, run as it is from a checkout of its repository."""

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.solver_ours import SETTINGS, TimedSolve, solve_timed
from nettrim.layer_problem import LayerProblem, constraint_violation, l1_norm
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array

FILE_NAME = "NetTrimSolver_np.py"
RHO = 1.0  # as in the manual of the code; the rest are its defaults
RELATIVE_GAP = 1e-2  # certified; theirs ends some 2 % above the optimum of a constraint that it exceeds as well
SLACK_SHARE = 0.9  # of what their weights need beyond the constraint: ours get less

AuthorsSolver = Callable[[Array, Array, Array, float, float], Array]


@dataclass(frozen=True, eq=False)
class AuthorsComparison:
    """The same published program by both, a joint ball.

    Their weights exceed the constraint, and a norm below the optimum is what they get for it. Ours are therefore
    solved with 0.9 times the excess that theirs have, so that both norm and violation can be compared, and only to
    a gap that still leaves the smaller norm.

    Attributes
    ----------
    their_norm, our_norm : float
        ||W||_1 without biases, which theirs penalise and ours do not.
    their_violation, our_violation : float
        The larger of what exceeds the ball and of what exceeds a one-sided bound, absolute.
    strict : TimedSolve
        Ours without any excess, with the default settings.
    """

    problem: LayerProblem
    their_seconds: float
    their_norm: float
    their_violation: float
    ours: TimedSolve
    strict: TimedSolve

    @property
    def our_norm(self) -> float:
        return l1_norm(self.ours.solution.W)

    @property
    def strict_norm(self) -> float:
        return l1_norm(self.strict.solution.W)

    @property
    def our_violation(self) -> float:
        solution = self.ours.solution
        return max(violation(self.problem, solution.W, solution.bias))

    @property
    def is_fair(self) -> bool:
        """Whether ours is at least as good in both respects."""
        return self.our_norm <= self.their_norm and self.our_violation <= self.their_violation


def load_authors_solver(checkout: Path) -> AuthorsSolver:
    """Import ``net_trim_solver`` from a checkout of github.com/DNNToolBox/Net-Trim.

    Raises
    ------
    DataError
        The folder does not hold it.
    """
    found = sorted(checkout.rglob(FILE_NAME))
    if not found:
        raise DataError(f"{checkout}: no {FILE_NAME} in it, expected a checkout of github.com/DNNToolBox/Net-Trim")
    spec = importlib.util.spec_from_file_location("authors_solver", found[0])
    if spec is None or spec.loader is None:
        raise DataError(f"{found[0]}: cannot be imported, expected a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    solver: AuthorsSolver = module.net_trim_solver
    return solver


def compare_with_authors(
    solver: AuthorsSolver, problem: LayerProblem, n_outputs: int, repeats: int
) -> AuthorsComparison:
    """Solve one published program, V = 0, for a layer's first neurons with a joint ball, by both on one thread.

    Parameters
    ----------
    problem : LayerProblem
        In the hard form.
    """
    problem = _first_neurons(problem, n_outputs)
    X = np.concatenate([problem.X, np.ones((1, problem.X.shape[1]))]).astype(np.float64)
    Y = problem.target.astype(np.float64)
    with threadpool_limits(limits=1), contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        U = solver(X, Y, np.zeros_like(Y), problem.total_epsilon, RHO)
        seconds = time.perf_counter() - start
    ball, one_sided = violation(problem, U[:-1], U[-1])
    slack = np.float32(SLACK_SHARE * one_sided)
    wider = replace(
        problem,
        epsilon=problem.total_epsilon + SLACK_SHARE * ball,
        upper=np.where(np.isinf(problem.lower), problem.upper + slack, problem.upper),
    )
    strict = solve_timed(problem, repeats)
    ours = solve_timed(wider, repeats, replace(SETTINGS, relative_gap=RELATIVE_GAP))
    return AuthorsComparison(problem, seconds, l1_norm(U[:-1]), max(ball, one_sided), ours, strict)


def _first_neurons(problem: LayerProblem, count: int) -> LayerProblem:
    own = slice(count)
    return replace(
        problem,
        W=problem.W[:, own],
        bias=problem.bias[own],
        target=problem.target[own],
        lower=problem.lower[own],
        upper=problem.upper[own],
        epsilon=0.0,
    ).with_relative_epsilon(0.1, "joint")


def violation(problem: LayerProblem, W: Array, bias: Array) -> tuple[float, float]:
    """Return what exceeds the joint ball, and the largest excess over a one-sided bound; at least 0."""
    reached = constraint_violation(problem, W, bias)
    return max(0.0, float(np.linalg.norm(reached.ball)) - problem.total_epsilon), float(np.max(reached.one_sided))
