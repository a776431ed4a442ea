"""Least distance to the box when weights have bounds: what tells a program without a solution from a slow one."""

import numpy as np
from scipy.optimize import Bounds, minimize

from nettrim.layer_problem import LayerProblem, neuron_distances
from nettrim_runtime.graph import Array

FINE = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-9}


def least_distances_in_bounds(problem: LayerProblem) -> Array:
    """Return (n_outputs,) float64: how near each neuron can come to its box with weights within their bounds.

    Minimises dist^2 / 2, which is smooth and convex, by L-BFGS-B; all weights count, no penalty.
    """
    W, bias = problem.structure.project(problem.W), problem.bias
    lower, upper = (np.broadcast_to(bound, W.shape) for bound in (problem.structure.lower, problem.structure.upper))
    found, offset = np.zeros_like(W), np.zeros_like(bias)
    for X, neurons in problem.groups:
        A = np.concatenate([X, np.ones((1, X.shape[1]), np.float32)]).astype(np.float64)
        for neuron in range(neurons.start, neurons.stop):
            box = problem.lower[neuron].astype(np.float64), problem.upper[neuron].astype(np.float64)
            bounds = Bounds(np.append(lower[:, neuron], -np.inf), np.append(upper[:, neuron], np.inf))
            start = np.append(W[:, neuron], bias[neuron]).astype(np.float64)
            fitted = minimize(
                _half_square, start, args=(A, *box), jac=True, method="L-BFGS-B", bounds=bounds, options=FINE
            ).x
            found[:, neuron], offset[neuron] = fitted[:-1], fitted[-1]
    return neuron_distances(problem, problem.structure.project(found), offset)


def _half_square(u: Array, A: Array, lower: Array, upper: Array) -> tuple[float, Array]:
    """Return dist(u'A, [lower, upper])^2 / 2 and its gradient."""
    response = u @ A
    excess = response - np.clip(response, lower, upper)
    return float(excess @ excess) / 2, A @ excess
