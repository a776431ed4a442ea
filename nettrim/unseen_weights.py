"""Weights that random samples never need, and data might: of inputs and neurons that only these samples leave silent.

Random numbers are unlike real inputs. Beside large biases a network may hardly answer to them, so that constants are
within a small share of a response's norm, and hidden neurons may be silent that speak on real inputs.
"""

import numpy as np

from nettrim.layer_problem import LayerProblem
from nettrim.layer_solution import LayerSolution, evaluate
from nettrim_runtime.graph import Array


def target_variation(problem: LayerProblem) -> float:
    """Return the Frobenius norm of what a layer's target adds to each neuron's mean, in float64."""
    target = problem.target.astype(np.float64)
    return float(np.linalg.norm(target - target.mean(axis=1, keepdims=True)))


def with_unseen_weights(problem: LayerProblem, solution: LayerSolution) -> LayerSolution:
    """Return a solution with the original weights of inputs that are always zero, and of neurons that kept none.

    On the samples at hand, the first change nothing. The others answered with a constant; they are what they were.

    Parameters
    ----------
    problem : LayerProblem
        That of the solution, whatever its epsilon.
    """
    is_constant: Array = ~np.any(solution.W, axis=0)  # (n_outputs,)
    W = np.where(problem.live_weights & ~is_constant, solution.W, problem.W)
    bias = np.where(is_constant, problem.bias, solution.bias)
    return evaluate(
        problem.with_epsilon(solution.epsilon),
        W,
        bias,
        solution.status,
        iterations=solution.iterations,
        gaps=solution.relative_gaps,
    )
