"""General convex solvers on single neurons of a layer, through CVXPY: what they take and what they reach."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms import sum_squares  # type: ignore[attr-defined]  # its stubs leave it out

from nettrim.layer_problem import LayerProblem
from nettrim.reference import CvxpyProgram, build_program, one_neuron

LARGEST_OBJECTIVE_ERROR = 1e-3  # of the optimum: a peer that stops farther away has not solved the program
CLARABEL = "Clarabel"


@dataclass(frozen=True)
class Peer:
    """A solver with its options and the formulation it gets.

    Attributes
    ----------
    compress : bool
        As `nettrim.reference.build_program`: fewer rows, the same program.
    is_penalised : bool
        Solve min ||u||_1 + m dist^2 instead of the program with the ball, m such that the solution is the same.
    """

    name: str
    solver: str
    compress: bool
    options: dict[str, Any] = field(default_factory=dict)
    is_penalised: bool = False


@dataclass(frozen=True)
class PeerTime:
    """One peer on some neurons of one layer.

    Attributes
    ----------
    seconds : float
        Median over the neurons of the solver's own time, its setup included; infinite when it failed on one.
    objective_error : float
        Largest distance of ||u||_1 from the optimum, relative.
    """

    peer: Peer
    seconds: float
    objective_error: float

    @property
    def counts(self) -> bool:
        """Whether it solved the program itself, every time."""
        return not self.peer.is_penalised and self.objective_error <= LARGEST_OBJECTIVE_ERROR


def all_peers(*, quick: bool) -> tuple[Peer, ...]:
    """Return every peer in its formulations; ``quick`` leaves out what has lost in every full run."""
    return tuple(_peers((True,) if quick else (True, False), quick=quick))


def time_peers(
    problem: LayerProblem, neurons: Sequence[int], peers: Sequence[Peer], before_each: Callable[[], None]
) -> tuple[PeerTime, ...]:
    """Give each of some neurons of a layer with one ball a neuron to every peer; ``before_each`` is called between.

    Norms are compared with that of the first peer that ends without reservations; the penalised ones, which come
    last, get the multiplier of its ball.
    """
    peers = sorted(peers, key=lambda peer: peer.is_penalised)
    seconds = np.full((len(peers), len(neurons)), np.inf)
    norms = np.full((len(peers), len(neurons)), np.inf)
    optima = np.zeros(len(neurons))
    for column, neuron in enumerate(neurons):
        alone = _without_dead_inputs(one_neuron(problem, neuron))
        before_each()
        multiplier = 0.0
        for row, peer in enumerate(peers):
            program = build_program(alone, compress=peer.compress)
            if peer.is_penalised:
                program = _penalised(program, multiplier)
            status = _solve(program, peer)
            if status not in {cp.OPTIMAL, cp.OPTIMAL_INACCURATE}:
                continue
            seconds[row, column], norms[row, column] = program.solver_seconds, np.abs(program.U.value).sum()
            if status == cp.OPTIMAL and not optima[column]:
                optima[column] = norms[row, column]
                multiplier = float(_ball(program).dual_value / _ball(program).args[1].value)
    errors = np.max(np.abs(norms / optima - 1.0), axis=1)
    return tuple(PeerTime(peer, float(np.median(seconds[row])), float(errors[row])) for row, peer in enumerate(peers))


def fastest(times: Sequence[PeerTime], name: str | None = None) -> PeerTime:
    """Return the fastest peer that counts, of all or of one name."""
    return min((time for time in times if time.counts and name in {None, time.peer.name}), key=lambda t: t.seconds)


def draw_neurons(problem: LayerProblem, count: int, rng: np.random.Generator) -> list[int]:
    """Return some neurons that speak at all; the others are solved by their bias."""
    drawn = rng.choice(np.flatnonzero(np.asarray(problem.epsilon) > 0), count, replace=False)
    return [int(neuron) for neuron in drawn]


def _peers(compressions: Sequence[bool], *, quick: bool) -> Iterator[Peer]:
    for compress in compressions:
        yield Peer(CLARABEL, "CLARABEL", compress)
    for compress in compressions:
        yield Peer("SCS", "SCS", compress)  # CVXPY's default for SCS: 1e-5
        if not quick:
            yield Peer("SCS", "SCS", compress, {"eps": 1e-4})  # its own default
        yield Peer("SCS", "SCS", compress, {"eps": 1e-3})
        yield Peer("OSQP", "OSQP", compress, is_penalised=True)


def _solve(program: CvxpyProgram, peer: Peer) -> str:
    """Return CVXPY's status."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate")  # the norm is compared
            program.program.solve(solver=peer.solver, **peer.options)
    except cp.SolverError:
        return cp.SOLVER_ERROR
    return str(program.program.status)


def _ball(program: CvxpyProgram) -> Any:
    """Return the constraint norm(excess) <= radius of the only neuron."""
    (ball,) = (limit.constraint for limit in program.limits if limit.samples.size == 0)
    return ball


def _penalised(program: CvxpyProgram, multiplier: float) -> CvxpyProgram:
    """Return min penalty + multiplier / 2 * ||excess||^2, without the ball: a quadratic program."""
    ball, whole = _ball(program), program.program
    excess = ball.args[0].args[0]
    within = [constraint for constraint in whole.constraints if constraint is not ball]
    objective = whole.objective.args[0] + multiplier / 2 * sum_squares(excess)
    return replace(program, program=cp.Problem(cp.Minimize(objective), within))


def _without_dead_inputs(problem: LayerProblem) -> LayerProblem:
    live = problem.live_inputs
    return replace(problem, X=problem.X[live], W=problem.W[live])
