"""Kernels over blocks of rows: what they allocate on the way stays small, whatever the batch."""

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from nettrim_runtime.linear import Step

Array = npt.NDArray[Any]

BLOCK_VALUES = 4096  # int64 temporaries of a block stay in a core's first cache


def in_blocks(prepare_block: Callable[[Array, Array], Step], source: Array, output: Array) -> Step:
    """Prepare a kernel that works on each row, the last axis, by itself.

    Parameters
    ----------
    prepare_block : callable
        Takes some rows of source and output, (n_rows, depth), and prepares them.
    source, output : Array
        Of one shape, contiguous.
    """
    depth = source.shape[-1]
    rows, results = source.reshape(-1, depth), output.reshape(-1, depth)  # views: the buffers are contiguous
    size = max(1, BLOCK_VALUES // depth)
    steps = [
        prepare_block(rows[start : start + size], results[start : start + size]) for start in range(0, len(rows), size)
    ]

    def run() -> None:
        for step in steps:
            step()

    return run
