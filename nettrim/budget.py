"""One number of kept weights for a network, shared among its layers at equal marginal cost of the output error."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from nettrim.admm import initial_state, iterate, prepare, sparse_weights
from nettrim.elimination import EliminationSettings, eliminate, is_unstructured
from nettrim.layer_problem import LayerProblem, neuron_distances
from nettrim.layer_search import SearchSettings
from nettrim.refit import fit_on_support
from nettrim_runtime.graph import Array

SCREEN_EPSILONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # relative
LARGEST_DENSITY = 0.4  # from which elimination starts: from more it takes long, and a screen does as well
RATIO, FEWEST = 0.65, 8  # weights from one row of a table to the next, and at its end
GRID = 400  # interpolated rows a table
BISECTIONS = 100

Key = TypeVar("Key", bound=Hashable)  # a layer, or a group of one


class Row(NamedTuple):
    """What keeping so many weights costs: the expected squared error of the network's output."""

    nnz: int
    cost: float


def error_table(problem: LayerProblem, importance: Array, settings: SearchSettings | None = None) -> tuple[Row, ...]:
    """Return what a layer costs the network's output at falling numbers of weights.

    Screens with warm starts along epsilon, refitted; from `LARGEST_DENSITY` on, elimination.

    Parameters
    ----------
    importance : Array
        (n_outputs,) what each neuron's mean squared distance counts.
    """
    settings = settings or SearchSettings()
    plain = is_unstructured(problem.structure)
    most = LARGEST_DENSITY * problem.W.size if plain else 0.0
    rows = [Row(int(np.count_nonzero(problem.W)), 0.0)]
    start = np.zeros_like(problem.W), problem.bias
    for screened, offset in _screens(problem, settings):
        if np.count_nonzero(screened) < most and np.any(start[0]):
            break
        start = fit_on_support(problem, screened, offset, screened != 0, settings.refit)
        rows.append(_row(problem, *start, importance))
    once, (W, bias) = EliminationSettings(refit=settings.refit, rounds=1), start
    while plain and (nnz := int(RATIO * np.count_nonzero(W))) >= FEWEST:
        W, bias = eliminate(problem, W, bias, nnz, importance=importance, settings=once)
        rows.append(_row(problem, W, bias, importance))
    return (*rows, _row(problem, np.zeros_like(problem.W), bias, importance))


def _screens(problem: LayerProblem, settings: SearchSettings) -> list[tuple[Array, Array]]:
    """Return the convex program's weights and biases from the smallest epsilon to the largest."""
    layer = prepare(problem, settings.admm)
    state = initial_state(layer, settings.admm)
    screens = []
    for relative_epsilon in reversed(SCREEN_EPSILONS):
        iterate(layer, state, relative_epsilon * problem.target_norm, settings.screen)
        screens.append(sparse_weights(layer, state))
    return screens[::-1]


def share_weights(tables: Mapping[Key, Sequence[Row]], sizes: Mapping[Key, int], total: int) -> dict[Key, int]:
    """Share ``total`` kept weights among layers so that one weight more would gain about as much in any of them.

    Parameters
    ----------
    tables : Mapping
        Per layer, `error_table`; between its rows, costs are interpolated in logarithms.
    sizes : Mapping
        Per layer, its number of weights.

    Returns
    -------
    dict
        Per layer, how many weights to keep; they add up to ``total``, or to all weights if that is less.
    """
    curves = {name: _curve(rows) for name, rows in tables.items()}

    def at(price: float) -> dict[Key, int]:
        return {name: int(nnz[np.argmin(cost + price * nnz)]) for name, (nnz, cost) in curves.items()}

    highest = max((float(cost.max()) for _, cost in curves.values()), default=0.0) or 1.0
    low, high = np.log(highest) - 60.0, np.log(highest) + 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(np.exp(middle)).values()) > total else (low, middle)
    counts = at(np.exp(high))
    missing = min(total, sum(sizes.values())) - sum(counts.values())
    for name in sorted(counts, key=lambda name: -sizes[name]):
        extra = min(missing, sizes[name] - counts[name])
        counts[name], missing = counts[name] + extra, missing - extra
    return counts


def _row(problem: LayerProblem, W: Array, bias: Array, importance: Array) -> Row:
    squares = neuron_distances(problem, W, bias) ** 2 / problem.n_samples
    return Row(int(np.count_nonzero(W)), float(importance @ squares))


def _curve(rows: Sequence[Row]) -> tuple[Array, Array]:
    """Return rising numbers of weights and their costs, which do not rise."""
    by_nnz = sorted(rows)
    nnz = np.array([row.nnz for row in by_nnz], np.float64)
    cost = np.minimum.accumulate([row.cost for row in by_nnz])
    floor = max(float(cost.max()) * 1e-12, np.finfo(np.float64).tiny)
    grid = np.unique(np.rint(np.geomspace(1, max(nnz[-1], 1), GRID)))
    grid = np.union1d(np.append(grid, 0.0), nnz)
    logs = np.interp(np.log1p(grid), np.log1p(nnz), np.log(np.maximum(cost, floor)))
    return grid, np.exp(logs)
