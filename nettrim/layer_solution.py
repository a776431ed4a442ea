"""What a solver returns for one layer, and the certificate of its optimality, recomputed from the problem."""

import enum
from dataclasses import dataclass

import numpy as np

from nettrim.layer_problem import LayerProblem, Violation, constraint_violation, share
from nettrim_runtime.graph import Array

ROUNDING = 2e-7  # of ||Y||: a response of float32 weights cannot be nearer to its target than this


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
    epsilon : float or Array
        Allowed distance of the convex program that chose the weights, as `LayerProblem.epsilon`.
    distance, relative_distance : float
        `layer_problem.distance` of W and bias; the same over ||Y||_F.
    primal_residual : float
        Violation of the constraint at ``epsilon``: how far a ball is exceeded or, in the hard form,
        the largest excess of a one-sided entry if that is more; or by how much a weight leaves its bounds.
    rounding : float
        What a violation may be and still come from float32 weights alone.
    relative_gaps : Array or None
        (n_outputs,) certified (penalty - lower bound) / penalty of each neuron's unit, before any refit or
        selection: a neuron with its own ball, neurons that a structure couples, or the whole layer. At the
        accuracy reached: epsilon and bounds are widened to what W needs. None when none was computed.
    """

    W: Array
    bias: Array
    status: SolverStatus
    iterations: int
    epsilon: float | Array
    distance: float
    relative_distance: float
    primal_residual: float
    rounding: float
    relative_gaps: Array | None

    @property
    def is_feasible(self) -> bool:
        """Whether W keeps the constraint, but for float32 rounding of weights."""
        return self.primal_residual <= self.rounding

    @property
    def relative_gap(self) -> float | None:
        """The largest of the gaps; None when there are none or one is not finite."""
        if self.relative_gaps is None:
            return None
        worst = float(np.max(self.relative_gaps, initial=0.0))
        return worst if np.isfinite(worst) else None

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
    gaps: Array | None = None,
    reached: Violation | None = None,
) -> LayerSolution:
    """Return a solution whose distance and violation are computed from the problem by formula, in float64.

    ``reached`` is the violation of these weights, where it is known.
    """
    reached = reached or constraint_violation(problem, W, bias)
    total = float(np.linalg.norm(reached.distances))
    outside = float(np.max(np.abs(problem.structure.project(W) - W), initial=0.0))
    over = (np.linalg.norm(reached.ball) if problem.is_joint else reached.ball) - problem.epsilon
    return LayerSolution(
        W=W,
        bias=bias,
        status=status,
        iterations=iterations,
        epsilon=problem.epsilon,
        distance=total,
        relative_distance=share(total, problem.target_norm),
        primal_residual=max(0.0, float(np.max(over)), float(np.max(reached.one_sided)), outside),
        rounding=ROUNDING * problem.target_norm,
        relative_gaps=gaps,
    )
