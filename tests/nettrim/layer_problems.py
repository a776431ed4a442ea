"""Small random layer problems, and their optimum by CVXPY."""

import numpy as np

from nettrim.activations import fused_activation
from nettrim.layer_problem import Constraint, LayerProblem, build_problem
from nettrim.layer_solution import SolverStatus
from nettrim.reference import solve_with_cvxpy
from nettrim_runtime.ops import ActivationFunction


def random_problem(
    seed: int = 0,
    shape: tuple[int, int, int] = (12, 4, 60),
    activation: ActivationFunction = ActivationFunction.RELU,
    relative_epsilon: float = 0.2,
    constraint: Constraint = "distance",
) -> LayerProblem:
    """Return a problem of (n_inputs, n_outputs, n_samples); correlated inputs, pre-activations on both sides of 0."""
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs, n_samples = shape
    mixing = np.eye(n_inputs) + 0.3 * rng.normal(size=(n_inputs, n_inputs))
    X = mixing @ rng.normal(size=(n_inputs, n_samples))
    W = rng.normal(size=(n_inputs, n_outputs)) * rng.random((n_inputs, n_outputs)) ** 2
    bias = 0.3 * rng.normal(size=n_outputs)
    if activation is ActivationFunction.RELU6:
        W, bias = 2 * W, bias + 3  # both saturations are reached
    return build_problem(
        X, W, bias, fused_activation(activation), relative_epsilon=relative_epsilon, constraint=constraint
    )


def optimal_l1_norm(problem: LayerProblem, solver: str = "CLARABEL") -> float:
    """Return the optimum of the program as MATH states it, by CVXPY; of a structure, the optimal penalty."""
    solution = solve_with_cvxpy(problem, solver)
    assert solution.status is SolverStatus.SOLVED
    return float(np.sum(problem.structure.value(solution.W)))
