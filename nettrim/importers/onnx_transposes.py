"""Orders of values: which axes lie how in a tensor, and the transpose that gives another order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def natural_order(positions: Array) -> tuple[int, ...]:
    """Return the axes of an activation from the one whose values lie furthest apart to the one side by side."""

    def distance(axis: int) -> int:
        first = np.moveaxis(positions, axis, 0).reshape(positions.shape[axis], -1)[:2, 0]
        return int(first[-1] - first[0])

    return tuple(sorted(range(positions.ndim), key=lambda axis: (-distance(axis), axis)))


def find_transpose(sources: Array) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the shape and the permutation of its axes that put value ``sources[i]`` in place i; None without any.

    Places are counted in digits of mixed radix, so the fewest axes come out: from the inside, a digit is the longest
    run of equal distances.

    Parameters
    ----------
    sources : Array
        (n_values,) a permutation of 0 to n_values - 1.
    """
    digits: list[tuple[int, int]] = []  # (values, distance in the source), outermost first
    inner = 1
    while inner < sources.size:
        steps = np.diff(sources[::inner])
        differing = np.flatnonzero(steps != steps[0])
        count = 1 + int(differing[0]) if differing.size else 1 + steps.size
        digits.insert(0, (count, int(steps[0])))
        inner *= count
        if sources.size % inner:
            return None
    by_distance = sorted(range(len(digits)), key=lambda digit: -digits[digit][1])
    shape = tuple(digits[digit][0] for digit in by_distance)
    permutation = tuple(by_distance.index(digit) for digit in range(len(digits)))
    turned = np.arange(sources.size).reshape(shape).transpose(permutation).reshape(-1)
    return (shape, permutation) if np.array_equal(turned, sources) else None


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Return the permutation that undoes one."""
    return tuple(int(axis) for axis in np.argsort(order))
