"""Least distance to the box on a given support, by semismooth Newton: one small system a neuron."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from nettrim.blas_threads import one_blas_thread
from nettrim.layer_problem import SAMPLES_PER_BLOCK, LayerProblem, gram_matrix, neuron_distances
from nettrim_runtime.graph import Array

SINGULAR = 1e-9  # of the mean diagonal of the Hessian: makes rank-deficient supports solvable
NOISE = 1e-9  # of the Hessian's trace: what products in float32 leave
SHORTEST_STEP = 1e-3
Result = TypeVar("Result")

MOST_WORKERS = 4  # neurons at once; each holds a copy of its rows of X


@dataclass(frozen=True)
class RefitSettings:
    """When to stop.

    Attributes
    ----------
    max_iterations : int
        Newton steps a neuron; a handful is usual.
    tolerance : float
        Share of the squared distance that a step must gain for another one to follow.
    ridge : float
        Weight of ||w||^2 / 2 beside dist^2 / 2, in units of an input's mean sum of squares. Keeps the weights of
        inputs that hardly ever speak from growing, which would cost resolution when they are quantised.
    prior : float
        Weight of ||w - w_original||^2 / 2, in the same units times inputs over samples: what few samples do not tell
        stays as it was trained.
    """

    max_iterations: int = 20
    tolerance: float = 1e-7
    ridge: float = 1e-4
    prior: float = 0.02


def refit(problem: LayerProblem, W: Array, bias: Array, settings: RefitSettings | None = None) -> tuple[Array, Array]:
    """Minimise dist^2 / 2 over the weights that are not zero and the bias, neuron by neuron.

    The zeros stay, the distance of no neuron increases (checked in float64). In the hard form the distance
    to the whole box is minimised as well: the sum of all violations shrinks, but a one-sided entry that was
    kept exactly may exceed its bound afterwards. ||activation(Z) - Y||_F <= distance holds in both.

    Parameters
    ----------
    W, bias : Array
        (n_inputs, n_outputs) and (n_outputs,); W is best near the solution already.

    Returns
    -------
    W, bias : Array
        float32, new arrays.
    """
    return fit_on_support(problem, W, bias, W != 0, settings or RefitSettings())


def fit_on_support(
    problem: LayerProblem, W: Array, bias: Array, support: Array, settings: RefitSettings
) -> tuple[Array, Array]:
    """Do as `refit` with the weights marked in ``support``, (n_inputs, n_outputs) bool; the others stay as they are."""
    fitted, offset = W.astype(np.float32), bias.astype(np.float32)
    found = fit_neurons(problem, W, bias, support, settings, use=lambda one: (one.rows, one.weights))
    for neuron, (rows, weights) in enumerate(found):
        fitted[rows[:-1], neuron], offset[neuron] = weights[:-1], weights[-1]
    with one_blas_thread():
        before, after = neuron_distances(problem, W, bias), neuron_distances(problem, fitted, offset)
    better = after < before
    return np.where(better, fitted, W), np.where(better, offset, bias)


@dataclass(frozen=True, eq=False)
class FittedNeuron:
    """One neuron at the least dist^2 / 2 on its support.

    Attributes
    ----------
    rows : Array
        (n_support + 1,) int: the inputs of its support, and n_inputs for the bias.
    weights : Array
        (n_support + 1,) float64, the bias last.
    hessian : Array
        (n_support + 1, n_support + 1) float64: the sum of x x' over the samples outside the box or at a box of one
        point, and the ridge.
    """

    rows: Array
    weights: Array
    hessian: Array


def fit_neurons(
    problem: LayerProblem,
    W: Array,
    bias: Array,
    support: Array,
    settings: RefitSettings,
    *,
    use: Callable[[FittedNeuron], Result],
) -> list[Result]:
    """Return what ``use`` makes of each neuron, fitted as by `fit_on_support`, in order; several at a time."""
    start = np.concatenate([W, bias[np.newaxis]]).astype(np.float32)
    free = np.concatenate([support, np.ones((1, len(bias)), bool)])
    prior = settings.prior * len(W) / problem.n_samples
    centre = prior / max(settings.ridge + prior, np.finfo(float).tiny) * np.append(problem.W, bias[np.newaxis], axis=0)

    def fit_neuron(A: Array, gram: Array, ridge: Array, neuron: int) -> Result:
        rows, fixed = np.flatnonzero(free[:, neuron]), np.flatnonzero(~free[:, neuron] & (start[:, neuron] != 0))
        offset = start[fixed, neuron] @ A[fixed]
        lower, upper = problem.lower[neuron] - offset, problem.upper[neuron] - offset
        piece = _Piece(A[rows], gram[np.ix_(rows, rows)], lower, upper, ridge[rows], centre[rows, neuron])
        return use(FittedNeuron(rows, *_newton(piece, start[rows, neuron], settings)))

    # One BLAS thread a neuron: on small matrices threads cost more than they give, on a busy machine 30 times more.
    with one_blas_thread(), ThreadPoolExecutor(min(MOST_WORKERS, os.cpu_count() or 1)) as workers:
        results: list[Result] = []
        for X, neurons in problem.groups:
            A = np.concatenate([X, np.ones((1, X.shape[1]), np.float32)])
            gram = gram_matrix(A)
            energy = np.trace(gram[:-1, :-1]) / max(np.count_nonzero(np.diag(gram)[:-1]), 1)
            ridge = np.append(np.full(len(W), (settings.ridge + prior) * energy), 0.0)
            results += workers.map(partial(fit_neuron, A, gram, ridge), range(neurons.start, neurons.stop))
        return results


@dataclass(frozen=True, eq=False)
class _Piece:
    """One neuron: A (n_support + 1, n_samples) float32, its Gram matrix and box, each row's ridge and centre."""

    A: Array
    gram: Array
    lower: Array
    upper: Array
    ridge: Array
    centre: Array

    def response(self, u: Array) -> Array:
        """Return u'A, (n_samples,) float64, multiplied in float32: A is too large to convert every time."""
        z: Array = (u.astype(np.float32) @ self.A).astype(np.float64)
        return z

    def value(self, u: Array, z: Array) -> float:
        excess = self.excess(z)
        return float(excess @ excess + self.ridge @ (u - self.centre) ** 2)

    def gradient(self, u: Array, z: Array) -> Array:
        """Return half the derivative of `value`."""
        slope: Array = self.A @ self.excess(z).astype(np.float32) + self.ridge * (u - self.centre)
        return slope

    def excess(self, z: Array) -> Array:
        outside: Array = z - np.clip(z, self.lower, self.upper)
        return outside

    def curved(self, z: Array) -> Array:
        """Return where the squared distance bends: outside the interval, or at an interval of one point."""
        samples: Array = (z < self.lower) | (z > self.upper) | (self.lower == self.upper)
        return samples

    def hessian(self, curved: Array) -> Array:
        """Return the sum of a a' over the curved samples."""
        return self.gram if np.all(curved) else self.products(curved)

    def products(self, samples: Array) -> Array:
        """Return the sum of a a' over some samples: float32 products in blocks, added up in float64."""
        total = np.zeros((len(self.A), len(self.A)))
        for start in range(0, len(samples), SAMPLES_PER_BLOCK):
            block = slice(start, start + SAMPLES_PER_BLOCK)
            columns = self.A[:, block][:, samples[block]]
            total += columns @ columns.T
        return total


def _newton(piece: _Piece, start: Array, settings: RefitSettings) -> tuple[Array, Array]:
    """Minimise `value`, piecewise quadratic: exact once a whole step leaves the curved samples the same.

    Returns the minimiser and half the second derivative there.
    """
    u = start.astype(np.float64)
    z = piece.response(u)
    value, curved = piece.value(u, z), piece.curved(z)
    H = piece.hessian(curved)
    floor = NOISE * np.trace(piece.gram)
    for _ in range(settings.max_iterations):
        if value == 0:
            break
        step = np.linalg.solve(_damped(H, piece.ridge + floor), piece.gradient(u, z))  # SciPy's BLAS has own threads
        z_step = piece.response(step)
        length = 1.0
        while (moved := piece.value(u - length * step, z - length * z_step)) > value and length > SHORTEST_STEP:
            length /= 2
        if not moved < value:
            break
        gain, value = value - moved, moved
        u, z = u - length * step, z - length * z_step
        before, curved = curved, piece.curved(z)
        H = H + piece.products(curved & ~before) - piece.products(before & ~curved)
        if gain <= settings.tolerance * value or (length == 1.0 and np.array_equal(before, curved)):
            break
    return u, _damped(H, piece.ridge + floor)


def _damped(H: Array, ridge: Array) -> Array:
    damped: Array = H + np.diag(SINGULAR * np.trace(H) / len(H) + ridge)
    return damped
