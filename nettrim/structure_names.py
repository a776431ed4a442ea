"""The structures that the command line knows by name, and N:M sparsity, which is a pattern and no penalty."""

import re
from dataclasses import dataclass

import numpy as np

from nettrim.errors import UsageError
from nettrim.structure import L1, Groups, Structure
from nettrim_runtime.graph import Array

EXPECTED = "l1, columns, neurons, blocks as 1x4, 1x16, 4x1 (outputs x inputs), or n:m as 2:4"


@dataclass(frozen=True)
class NOfM:
    """At most ``n`` weights that are not zero in every ``m`` consecutive inputs of an output.

    Inputs of a convolution are ordered (height, width, channel). The last inputs, fewer than m, keep n as well.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse what is no sparsity."""
        if not 1 <= self.n < self.m:
            raise UsageError(f"structure {self.n}:{self.m}: expected n:m with 1 <= n < m, as 2:4")

    def select(self, sizes: Array) -> Array:
        """Return (n_inputs, n_outputs) bool: the n largest of every m, as `largest_of_every`."""
        return largest_of_every(sizes, self.n, self.m)

    def holds(self, W: Array) -> bool:
        """Whether weights (n_inputs, n_outputs) keep the pattern."""
        return np.array_equal(self.select(np.abs(W)), W != 0)


def largest_of_every(sizes: Array, n: int, m: int) -> Array:
    """Return (n_inputs, n_outputs) bool: the n largest of every m consecutive inputs of an output.

    Parameters
    ----------
    sizes : Array
        (n_inputs, n_outputs), not negative; those that are 0 are not kept, equal ones in order.
    """
    n_inputs, n_outputs = sizes.shape
    padded = np.zeros((-(-n_inputs // m) * m, n_outputs), sizes.dtype)
    padded[:n_inputs] = sizes
    groups = padded.reshape(-1, m, n_outputs)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :n]
    kept = np.zeros(groups.shape, bool)
    np.put_along_axis(kept, order, values=True, axis=1)
    chosen: Array = kept.reshape(padded.shape)[:n_inputs] & (sizes > 0)
    return chosen


def parse_structure(text: str) -> Structure | NOfM:
    """Return the structure that ``text`` names.

    Raises
    ------
    UsageError
        When it names none.
    """
    match text:
        case "l1":
            return L1
        case "columns":
            return Groups(block_shape=(None, 1))
        case "neurons":
            return Groups(block_shape=(1, None))
    found = re.fullmatch(r"([1-9]\d{0,5})([x:])([1-9]\d{0,5})", text)
    if found is None:
        raise UsageError(f"structure {text!r} is not known, expected one of: {EXPECTED}")
    first, second = int(found[1]), int(found[3])
    if found[2] == ":":
        return NOfM(first, second)
    return L1 if first == second == 1 else Groups(block_shape=(first, second))
