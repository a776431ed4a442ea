"""How the inputs or the outputs of a layer fall into consecutive blocks, also after some of them are left out."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from nettrim_runtime.graph import Array

Tensor = Any  # an array of NumPy or of another library


@dataclass(frozen=True, eq=False)
class AxisBlocks:
    """The blocks of one axis; arrays are folded and spread along their first.

    Attributes
    ----------
    sizes : Array
        (n_blocks,) float64: members in the whole layer; (1,) of 1.0 when every entry is a block of its own.
    block_of : Array or None
        (n_entries,) int64: each entry's block; None when every entry is one of its own.
    slots : Array or None
        (n_blocks, width) int64: the entries of each block, filled up with n_entries; None when there is one block,
        or when ``block_of`` is None.
    """

    sizes: Array
    block_of: Array | None = None
    slots: Array | None = None

    def fold(self, x: Tensor) -> Tensor:
        """Return the sums over each block, (n_blocks, m) from (n_entries, m)."""
        if self.block_of is None:
            return x
        xp = array_namespace(x)
        if self.slots is None:
            return xp.sum(x, axis=0, keepdims=True)
        n_blocks, width = self.slots.shape
        if n_blocks * width > len(self.block_of):
            x = xp.concat([x, xp.zeros_like(x[:1, :])])
        slots, _ = _placed(self, xp, device(x))
        # One gather for full and for partial blocks: as fast as reshaping full ones, and torch has it too.
        members = xp.reshape(xp.take(x, slots, axis=0), (n_blocks, width, x.shape[1]))
        return xp.sum(members, axis=1)

    def spread(self, y: Tensor) -> Tensor:
        """Return each entry's value from its block's: (n_entries, m), or (1, m) for all, from (n_blocks, m)."""
        if self.slots is None:
            return y
        xp = array_namespace(y)
        _, block_of = _placed(self, xp, device(y))
        return xp.take(y, block_of, axis=0)

    def restrict(self, kept: Array) -> "AxisBlocks":
        """Return the blocks of the entries marked in ``kept``, (n_entries,) bool; sizes stay the whole layer's."""
        if self.block_of is None:
            return self
        if self.slots is None:
            return replace(self, block_of=self.block_of[kept])
        used, block_of = np.unique(self.block_of[kept], return_inverse=True)
        return AxisBlocks(self.sizes[used], block_of, _slots(block_of, len(used)))

    def numbers(self, n_entries: int) -> Array:
        """Return (n_entries,) int64: each entry's block, also when it is its own."""
        return np.arange(n_entries) if self.block_of is None else self.block_of


@lru_cache(maxsize=64)
def axis_blocks(n_entries: int, size: int | None) -> AxisBlocks:
    """Return consecutive blocks of ``size``, the last one maybe shorter; None means one block of all."""
    if size == 1:
        return AxisBlocks(np.ones(1))
    if size is None:
        return AxisBlocks(np.array([float(n_entries)]), np.zeros(n_entries, np.int64))
    block_of = np.arange(n_entries) // size
    sizes = np.bincount(block_of).astype(np.float64)
    return AxisBlocks(sizes, block_of, _slots(block_of, len(sizes)))


def _slots(block_of: Array, n_blocks: int) -> Array:
    counts = np.bincount(block_of, minlength=n_blocks)
    rank = np.arange(len(block_of)) - (np.cumsum(counts) - counts)[block_of]
    slots = np.full((n_blocks, int(counts.max(initial=0))), len(block_of))
    slots[block_of, rank] = np.arange(len(block_of))
    return slots


@lru_cache(maxsize=64)
def _placed(axis: AxisBlocks, xp: Any, where: Any) -> tuple[Tensor, Tensor]:
    """Return flat slots and block_of on a device, moved there once."""
    assert axis.slots is not None
    return xp.asarray(axis.slots.reshape(-1), device=where), xp.asarray(axis.block_of, device=where)
