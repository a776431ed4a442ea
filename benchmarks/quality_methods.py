"""One-shot pruning methods that users can download, reimplemented from their papers' formulas.

All minimise ||W'X - U'X||_F for one layer at a given number of weights. A row of ones, never pruned, lets those that
solve least squares refit the bias too, which can only help them.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.elimination import price_weights
from nettrim.layer_problem import LayerProblem, gram_matrix
from nettrim.refit import FittedNeuron
from nettrim_runtime.graph import Array

Pruned = tuple[Array, Array]
Method = Callable[[LayerProblem], Callable[[int], Pruned]]  # prepares a layer once, then prunes to a number

DAMPING = 0.01  # of the Hessian's mean diagonal, as SparseGPT and OBC take
SOLVABLE = 1e-9  # of it, for least squares of a support
BLOCK = 128  # columns of SparseGPT's mask
ALPS_RHO, ALPS_EVERY, ALPS_ITERATIONS = 0.1, 3, 300
ALPS_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))  # share of the support that changed above, factor of rho


def magnitude(problem: LayerProblem) -> Callable[[int], Pruned]:
    """Keep the layer's largest |w|."""
    return lambda nnz: (problem.W * _largest(np.abs(problem.W), nnz), problem.bias)


def magnitude_with_least_squares(problem: LayerProblem) -> Callable[[int], Pruned]:
    """Keep the layer's largest |w|, and fit them and the biases to the responses."""
    gram = _gram(problem)
    return lambda nnz: _least_squares(problem, gram, _largest(np.abs(problem.W), nnz))


def wanda(problem: LayerProblem) -> Callable[[int], Pruned]:
    """Keep in each neuron the largest |w| ||x||_2: Sun, Liu, Bair, Kolter (2023), arXiv 2306.11695, equation (1)."""
    norms = np.sqrt(np.sum(np.square(problem.X, dtype=np.float64), axis=1))
    scores = np.abs(problem.W) * norms[:, np.newaxis]

    def prune(nnz: int) -> Pruned:
        rank = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0, kind="stable")
        each, rest = divmod(nnz, scores.shape[1])
        support = rank < each
        support |= _largest(np.where(rank == each, scores, -1.0), rest) & (rank == each)
        return problem.W * support, problem.bias

    return prune


def sparse_gpt(problem: LayerProblem) -> Callable[[int], Pruned]:
    """Sweep over the inputs, pruning by w^2 / [U]_jj^2 block by block and letting later inputs make up for each one.

    Frantar, Alistarh (2023), arXiv 2301.00774, algorithm 1; U'U is the inverse Hessian. The row of ones comes last.
    """
    live, hessian = _live_hessian(problem)
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T  # upper

    def prune(nnz: int) -> Pruned:
        rows = np.vstack([problem.W[live], problem.bias]).astype(np.float64)
        n_live, diagonal = len(live), np.diag(factor)[:, np.newaxis]
        for start in range(0, n_live, BLOCK):
            stop = min(start + BLOCK, n_live)
            kept = round(nnz * stop / n_live) - round(nnz * start / n_live)
            mask = _largest((rows[start:stop] / diagonal[start:stop]) ** 2, kept)
            for row in range(start, stop):
                error = np.where(mask[row - start], 0.0, rows[row]) / factor[row, row]
                rows[row:] -= np.outer(factor[row, row:], error)
            rows[start:stop] *= mask
        return _whole(problem, live, rows)

    return prune


def obc(problem: LayerProblem) -> Callable[[int], Pruned]:
    """Eliminate weights of each neuron one by one, and take the cheapest eliminations of all neurons.

    Frantar, Singh, Alistarh (2022), arXiv 2208.11580, algorithms 1 and 2. For a squared error, the weights left have
    the values of least squares on their support.
    """
    live, hessian = _live_hessian(problem)
    rows = np.append(live, len(problem.W))
    with threadpool_limits(limits=1), ThreadPoolExecutor(os.cpu_count()) as workers:
        columns = np.vstack([problem.W[live], problem.bias]).T.astype(np.float64)
        priced = list(workers.map(lambda w: price_weights(FittedNeuron(rows, w, hessian)), columns))
    when = np.zeros((len(live), len(priced)))
    for neuron, one in enumerate(priced):
        when[one.order, neuron] = np.maximum.accumulate(one.costs)
        when[one.order, neuron] *= 1 + 1e-12 * np.arange(len(live))  # ties in the neuron's own order
    gram = _gram(problem)

    def prune(nnz: int) -> Pruned:
        support = np.zeros(problem.W.shape, bool)
        support[live] = _largest(when, nnz)
        return _least_squares(problem, gram, support)

    return prune


def alps(problem: LayerProblem) -> Callable[[int], Pruned]:
    """ADMM on the number of weights with a rising penalty, then least squares on the support found.

    Meng, Behdin, Wang, Mazumder (2024), arXiv 2406.07831, algorithm 1; the least squares is exact here where the
    paper takes conjugate gradients.
    """
    live, hessian = _live_hessian(problem)
    scale = 1 / np.sqrt(np.diag(hessian))
    values, vectors = np.linalg.eigh(hessian * np.outer(scale, scale))
    start = np.vstack([problem.W[live], problem.bias]) / scale[:, np.newaxis]
    target = vectors @ (values[:, np.newaxis] * (vectors.T @ start))
    gram = _gram(problem)

    def prune(nnz: int) -> Pruned:
        rho, dual, D = ALPS_RHO, np.zeros_like(start), _project(start, nnz)
        before = D[:-1] != 0
        for iteration in range(1, ALPS_ITERATIONS + 1):
            W = vectors @ ((vectors.T @ (target - dual + rho * D)) / (values + rho)[:, np.newaxis])
            D = _project(W + dual / rho, nnz)
            dual += rho * (W - D)
            if iteration % ALPS_EVERY == 0:
                changed = np.count_nonzero((D[:-1] != 0) != before) / max(nnz, 1)
                if not changed:
                    break
                rho *= next(factor for share, factor in ALPS_GROWTH if changed > share)
                before = D[:-1] != 0
        support = np.zeros(problem.W.shape, bool)
        support[live] = D[:-1] != 0
        return _least_squares(problem, gram, support)

    return prune


METHODS: Mapping[str, Method] = {
    "magnitude": magnitude,
    "magnitude + least squares": magnitude_with_least_squares,
    "Wanda": wanda,
    "SparseGPT": sparse_gpt,
    "OBC": obc,
    "ALPS": alps,
}


def _largest(scores: Array, count: int) -> Array:
    """Return a mask of the ``count`` largest scores."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores, axis=None, kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def _project(W: Array, nnz: int) -> Array:
    """Keep the largest weights, and the last row."""
    kept: Array = np.vstack([W[:-1] * _largest(np.abs(W[:-1]), nnz), W[-1:]])
    return kept


def _gram(problem: LayerProblem) -> Array:
    return gram_matrix(np.vstack([problem.X, np.ones((1, problem.X.shape[1]), np.float32)]))


def _live_hessian(problem: LayerProblem) -> tuple[Array, Array]:
    """Return the inputs that are not always zero, and their damped Gram matrix, ones last."""
    live = np.flatnonzero(problem.live_inputs)
    with_ones = np.append(live, len(problem.W))
    hessian = _gram(problem)[np.ix_(with_ones, with_ones)]
    hessian += DAMPING * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    return live, hessian


def _least_squares(problem: LayerProblem, gram: Array, support: Array) -> Pruned:
    """Fit each neuron's support and bias to its responses."""
    whole = np.vstack([problem.W, problem.bias]).astype(np.float64)
    fitted = np.zeros_like(whole)
    damping = SOLVABLE * np.mean(np.diag(gram))
    for neuron in range(whole.shape[1]):
        rows = np.append(np.flatnonzero(support[:, neuron]), len(support))
        hessian = gram[np.ix_(rows, rows)] + damping * np.eye(len(rows))
        fitted[rows, neuron] = np.linalg.solve(hessian, gram[rows] @ whole[:, neuron])
    return fitted[:-1].astype(np.float32), fitted[-1].astype(np.float32)


def _whole(problem: LayerProblem, live: Array, rows: Array) -> Pruned:
    W = np.zeros_like(problem.W)
    W[live] = rows[:-1]
    return W, rows[-1].astype(np.float32)
