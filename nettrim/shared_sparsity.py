"""One number of kept weights for a network, shared among its layers."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np

PATH_EPSILONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
SMALLEST_EPSILON = 1e-3  # of the path: there a layer keeps all its weights

Key = TypeVar("Key", bound=Hashable)  # a layer, or a group of one


def kept_counts(
    paths: Mapping[Key, tuple[tuple[float, int], ...]], sizes: Mapping[Key, int], total: int
) -> dict[Key, int]:
    """Share ``total`` kept weights among layers so that all have about one relative epsilon.

    Parameters
    ----------
    paths : Mapping
        Per layer, (relative epsilon, nnz) with epsilon rising.
    sizes : Mapping
        Per layer, its number of weights.

    Returns
    -------
    dict
        Per layer, how many weights to keep; they add up to ``total``, or to all weights if that is less.
    """

    def at(log_epsilon: float) -> dict[Key, int]:
        return {name: _interpolate(paths[name], sizes[name], log_epsilon) for name in paths}

    low, high = np.log(SMALLEST_EPSILON), 0.0
    for _ in range(60):  # halves the interval until it has no width in float64
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) > total else (low, middle)
    counts = at(high)
    missing = min(total, sum(sizes.values())) - sum(counts.values())
    for name in sorted(counts, key=lambda name: -sizes[name]):
        extra = min(missing, sizes[name] - counts[name])
        counts[name], missing = counts[name] + extra, missing - extra
    return counts


def _interpolate(path: tuple[tuple[float, int], ...], size: int, log_epsilon: float) -> int:
    points = [(SMALLEST_EPSILON, size), *path, (1.0, 0)]
    nnz = np.minimum.accumulate([count for _, count in points])
    return int(np.interp(log_epsilon, np.log([epsilon for epsilon, _ in points]), nnz))
