"""Small random layer problems, and their optimum by CVXPY."""

import numpy as np

from nettrim.layer_problem import Constraint, LayerProblem, build_problem, in_ball
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
    return build_problem(X, W, bias, activation, relative_epsilon=relative_epsilon, constraint=constraint)


def optimal_l1_norm(problem: LayerProblem) -> float:
    """Return the optimum of the program as MATH states it, by CVXPY with Clarabel."""
    import cvxpy as cp

    U, b = cp.Variable(problem.W.shape), cp.Variable((1, problem.W.shape[1]))
    Z = cp.Variable(problem.target.shape)
    response = U.T @ problem.X.astype(float) + b.T @ np.ones((1, problem.X.shape[1]))
    above, below = np.isfinite(problem.lower), np.isfinite(problem.upper)
    lower, upper = np.where(above, problem.lower, 0.0), np.where(below, problem.upper, 0.0)
    within = [cp.multiply(above, Z - lower) >= 0, cp.multiply(below, upper - Z) >= 0]
    shared = in_ball(problem) if problem.constraint == "hard" else np.ones(problem.target.shape)
    within.append(cp.norm(cp.multiply(shared, response - Z), "fro") <= problem.epsilon)
    if problem.constraint == "hard":
        within.append(cp.multiply(1.0 - shared, response - Z) == 0)
    program = cp.Problem(cp.Minimize(cp.sum(cp.abs(U))), within)
    return float(program.solve(solver=cp.CLARABEL))
