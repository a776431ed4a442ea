"""Fewer weights at the least distance: optimal brain surgeon on the distance to the box, regrowth, refit."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dsyr

from nettrim.layer_problem import LayerProblem, neuron_distances
from nettrim.refit import FittedNeuron, RefitSettings, fit_neurons, fit_on_support
from nettrim.structure import L1Norm, Structure
from nettrim_runtime.graph import Array

SAMPLES_PER_BLOCK = 2048
ROUGH = 1e-3  # tolerance of a fit that is followed by another one
MOST_LOSSES = 3.0  # of the mean share: a neuron that would lose more waits for the next round
FEW_WEIGHTS = 16  # of a neuron, that are priced at least
SHRINK_AT = 0.8  # of a matrix's weights that are left: then the others' rows are dropped
LARGEST_GROWTH = 0.3  # of the weights that can be dropped
FIRST_SHARE, SMALLEST_SHARE = 0.9, 0.1  # of the room within epsilon that is used up at once
MOST_AT_ONCE = 0.5  # of a neuron's weights
FEWEST_GONE = 5e-3  # of the weights, for another round to follow


@dataclass(frozen=True)
class EliminationSettings:
    """How long to look for a better support.

    Attributes
    ----------
    refit : RefitSettings
        Of the fits between and after the eliminations.
    rounds : int
        Eliminations, in geometric steps, with a fit before each: the samples at which a neuron's distance bends
        change on the way.
    growth : tuple of float
        Weights that grow back in each cycle, as a share of those wanted, before as many are eliminated again.
    smallest_gain : float
        Share of the squared distance that a cycle must gain for another one to follow.
    growth_within : tuple of float
        As ``growth``, of the weights that are there, where epsilon is the goal.
    """

    refit: RefitSettings = field(default_factory=RefitSettings)
    rounds: int = 1
    growth: tuple[float, ...] = (1.0, 1.0, 0.5)
    smallest_gain: float = 5e-3
    growth_within: tuple[float, ...] = (0.3,)


def choose_weights(
    problem: LayerProblem,
    W: Array,
    bias: Array,
    nnz: int,
    *,
    importance: Array | None = None,
    settings: EliminationSettings | None = None,
) -> tuple[Array, Array]:
    """Keep ``nnz`` weights at a small distance: eliminate, then let weights grow back and eliminate again.

    Each cycle is kept only if the distance falls, neurons weighted by their importance; zeros of the original
    weights, and inputs that are always zero, stay zero.

    Parameters
    ----------
    W, bias : Array
        (n_inputs, n_outputs) and (n_outputs,): where to start, with ``nnz`` weights or more.
    importance : Array or None
        (n_outputs,) positive: what a neuron's squared distance counts; None means all alike.

    Returns
    -------
    W, bias : Array
        float32, new arrays.
    """
    settings = settings or EliminationSettings()
    weight = np.ones(problem.W.shape[1]) if importance is None else importance
    usable = (problem.W != 0) & problem.live_weights
    W, bias = eliminate(problem, W, bias, nnz, importance=weight, settings=settings)
    cost = _cost(problem, W, bias, weight)
    for share in settings.growth:
        extra = min(share * nnz, LARGEST_GROWTH * (np.count_nonzero(usable) - nnz))
        support = regrow(problem, W, bias, usable, round(extra), importance=weight)
        grown = eliminate(problem, W, bias, nnz, support=support, importance=weight, settings=settings)
        found = _cost(problem, *grown, weight)
        if found >= cost:
            break
        (W, bias), gain, cost = grown, cost - found, found
        if gain < settings.smallest_gain * cost:
            break
    return W, bias


def eliminate(
    problem: LayerProblem,
    W: Array,
    bias: Array,
    nnz: int,
    *,
    support: Array | None = None,
    importance: Array | None = None,
    settings: EliminationSettings | None = None,
) -> tuple[Array, Array]:
    """Remove weights one by one, always the one that costs least, until ``nnz`` are left; then refit.

    Optimal brain surgeon (Hassibi, Stork 1992) neuron by neuron, with the Hessian of the neuron's own squared
    distance: samples that lie inside the box do not count. Removing weight p costs w_p^2 / [H^-1]_pp.

    Parameters
    ----------
    support : Array or None
        (n_inputs, n_outputs) bool: the weights to start with; None means those of W that are not zero.

    Returns
    -------
    W, bias : Array
        float32, new arrays; no more weights than ``nnz``.
    """
    settings = settings or EliminationSettings()
    support = W != 0 if support is None else support
    start = int(np.count_nonzero(support))
    for round_ in range(1, settings.rounds + 1) if start > nnz else ():
        before, last = int(np.count_nonzero(support)), round_ == settings.rounds
        count = nnz if last else round(start * (max(nnz, 1) / start) ** (round_ / settings.rounds))
        price = partial(price_weights, most=MOST_LOSSES * (1 - count / before))
        rough = replace(settings.refit, tolerance=max(ROUGH, settings.refit.tolerance))
        fits = fit_neurons(problem, np.where(support, W, 0), bias, support, rough, use=price)
        W, bias = _without(fits, _cheapest(fits, count, importance), W.shape)
        support = support & (W != 0)
    return fit_on_support(problem, np.where(support, W, np.float32(0)), bias, support, settings.refit)


def eliminate_within(
    problem: LayerProblem, W: Array, bias: Array, settings: EliminationSettings | None = None
) -> tuple[Array, Array]:
    """Remove as many weights as epsilon leaves room for; the distance is checked in float64 after every refit.

    Parameters
    ----------
    W, bias : Array
        (n_inputs, n_outputs) and (n_outputs,), within epsilon; otherwise they come back as they are.

    Returns
    -------
    W, bias : Array
        float32, within epsilon, with as many weights or fewer.
    """
    settings = settings or EliminationSettings()
    if not is_within(problem, W, bias):
        return W, bias
    W, bias = _fill_room(problem, W, bias, W != 0, settings)
    usable = (problem.W != 0) & problem.live_weights
    for share in settings.growth_within:
        nnz = int(np.count_nonzero(W))
        support = regrow(problem, W, bias, usable, round(share * nnz))
        grown = fit_on_support(problem, W, bias, support, settings.refit)
        found = _fill_room(problem, *grown, support, settings) if is_within(problem, *grown) else grown
        if np.count_nonzero(found[0]) >= nnz:
            break
        W, bias = found
    return W, bias


def is_unstructured(structure: Structure) -> bool:
    """Return whether weights are chosen one by one: no groups, bounds, signs or costs."""
    return isinstance(structure, L1Norm) and not structure.is_bounded and np.ndim(structure.costs) == 0


def is_within(problem: LayerProblem, W: Array, bias: Array) -> bool:
    """Return whether the distance keeps epsilon: that of all neurons in a joint ball, else that of each."""
    distances = neuron_distances(problem, W, bias)
    reached = np.linalg.norm(distances) if problem.is_joint else distances
    return bool(np.all(reached <= problem.epsilon))


def regrow(
    problem: LayerProblem, W: Array, bias: Array, usable: Array, extra: int, *, importance: Array | None = None
) -> Array:
    """Return (n_inputs, n_outputs) bool: the support of W and ``extra`` more weights, the most promising ones.

    A weight promises what one Newton step on it alone would take off the squared distance, g^2 / H_pp.

    Parameters
    ----------
    usable : Array
        (n_inputs, n_outputs) bool: weights that may be not zero.
    importance : Array or None
        As of `choose_weights`.
    """
    slopes, curvature = np.zeros(W.shape), np.zeros(W.shape)
    for (X, neurons), start in itertools.product(problem.groups, range(0, problem.n_samples, SAMPLES_PER_BLOCK)):
        block = slice(start, start + SAMPLES_PER_BLOCK)
        lower, upper, columns = problem.lower[neurons, block], problem.upper[neurons, block], X[:, block]
        Z = W[:, neurons].T @ columns + bias[neurons, np.newaxis]
        excess = Z - np.minimum(np.maximum(Z, lower), upper)
        slopes[:, neurons] += columns @ excess.T
        curvature[:, neurons] += np.square(columns) @ ((excess != 0) | (lower == upper)).T.astype(np.float32)
    gains = slopes**2 / np.maximum(curvature, np.finfo(np.float32).tiny)
    gains = np.where(usable & (W == 0), gains if importance is None else gains * importance, 0.0)
    extra = min(extra, int(np.count_nonzero(gains)))
    grown = np.zeros(W.size, bool)
    grown[np.argsort(-gains, axis=None, kind="stable")[:extra]] = True
    support: Array = (W != 0) | grown.reshape(W.shape)
    return support


def _fill_room(
    problem: LayerProblem, W: Array, bias: Array, support: Array, settings: EliminationSettings
) -> tuple[Array, Array]:
    """Remove weights until what they cost together uses up epsilon; a step too far is taken back and halved."""
    share = FIRST_SHARE
    while share > SMALLEST_SHARE:
        fits = fit_neurons(problem, W, bias, support, settings.refit, use=partial(price_weights, most=MOST_AT_ONCE))
        squares = neuron_distances(problem, W, bias) ** 2
        room = np.square(problem.epsilon) - (np.sum(squares) if problem.is_joint else squares)
        nnz = int(np.count_nonzero(support))
        less = _without(fits, _affordable(fits, share * room), W.shape)[0] != 0
        gone = nnz - int(np.count_nonzero(less))
        if not gone:
            break
        fitted = fit_on_support(problem, np.where(less, W, np.float32(0)), bias, less, settings.refit)
        if not is_within(problem, *fitted):
            share /= 2
            continue
        (W, bias), support = fitted, less
        if gone < FEWEST_GONE * nnz:
            break
    return W, bias


def _cost(problem: LayerProblem, W: Array, bias: Array, importance: Array) -> float:
    return float(importance @ neuron_distances(problem, W, bias) ** 2)


class Priced(NamedTuple):
    """A fitted neuron without its Hessian, the order in which its weights go, and what each one then costs.

    Attributes
    ----------
    rows, weights : Array
        As of `FittedNeuron`.
    order : Array
        (n_support,) int, places in its support.
    costs : Array
        (n_support,) float64.
    """

    rows: Array
    weights: Array
    order: Array
    costs: Array


def price_weights(fitted: FittedNeuron, most: float = 1.0) -> Priced:
    """Eliminate a share ``most`` of a neuron's weights one by one; the others come last, at an infinite cost."""
    weights, inverse = fitted.weights.copy(), np.asfortranarray(np.linalg.inv(fitted.hessian))
    size = len(weights) - 1  # the bias stays
    order, costs = np.zeros(size, int), np.full(size, np.inf)
    places = np.arange(size)  # in the support, of the weights that the matrix still holds
    left, n_left = np.ones(size, bool), size
    price, column = np.full(size, np.inf), np.empty(size + 1)
    steps = min(size, math.ceil(most * size) + FEW_WEIGHTS)
    for step in range(steps):
        np.divide(np.square(weights[:-1]), inverse.diagonal()[:-1], out=price, where=left)
        gone = int(price.argmin())
        order[step], costs[step] = places[gone], price[gone]
        left[gone], price[gone], n_left = False, np.inf, n_left - 1
        column[:gone], column[gone:] = inverse[gone, :gone], inverse[gone:, gone]  # only the lower triangle is kept up
        pivot = column[gone]
        weights -= weights[gone] / pivot * column
        inverse = dsyr(-1.0 / pivot, column, lower=1, a=inverse, overwrite_a=1)
        if n_left <= SHRINK_AT * len(places):
            kept = np.append(left, True)
            weights, inverse = weights[kept], np.asfortranarray(inverse[np.ix_(kept, kept)])
            places, price, column = places[left], price[left], np.empty(n_left + 1)
            left = left[left]
    order[steps:] = places[left]
    return Priced(fitted.rows, fitted.weights, order, costs)


def _cheapest(priced: Sequence[Priced], nnz: int, importance: Array | None) -> Array:
    """Return (n_outputs,) int: how many weights each neuron loses when ``nnz`` are left.

    No weight goes before those that precede it in its neuron's order: it counts at least what they cost.
    """
    factors = np.ones(len(priced)) if importance is None else importance
    costs = [np.maximum.accumulate(one.costs) * factor for one, factor in zip(priced, factors, strict=True)]
    neurons = np.repeat(np.arange(len(priced)), [len(one) for one in costs])
    gone = np.argsort(np.concatenate(costs), kind="stable")[: max(len(neurons) - nnz, 0)]
    return np.bincount(neurons[gone], minlength=len(priced))


def _affordable(priced: Sequence[Priced], room: Array) -> Array:
    """Return (n_outputs,) int: how many weights each neuron can lose within its own room, or all within one."""
    if np.ndim(room):
        return np.array(
            [np.searchsorted(np.cumsum(one.costs), r, "right") for one, r in zip(priced, room, strict=True)]
        )
    costs = np.sort(np.concatenate([np.maximum.accumulate(one.costs) for one in priced]))
    return _cheapest(priced, len(costs) - int(np.searchsorted(np.cumsum(costs), room, "right")), None)


def _without(priced: Sequence[Priced], gone: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the fitted weights, (n_inputs, n_outputs), without the first ones in each neuron's order, and biases."""
    W, bias = np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)
    for neuron, one in enumerate(priced):
        kept = one.order[gone[neuron] :]
        W[one.rows[kept], neuron], bias[neuron] = one.weights[kept], one.weights[-1]
    return W, bias
