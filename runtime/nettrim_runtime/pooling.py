"""Windows of an image reduced to their largest value or their sum, into prepared buffers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.linear import Step, padded_buffer, windows
from nettrim_runtime.ops import UNIT, AveragePool2d, MaxPool2d

Array = npt.NDArray[Any]


def max_pool_step(op: MaxPool2d, source: Array, output: Array, fill: float) -> Step:
    """Prepare output = the largest value of each window; ``fill`` is a padding that never wins.

    Parameters
    ----------
    source, output : Array
        (batch, height, width, channels) and (batch, rows, columns, channels) of one type.
    """
    padded, inside = padded_buffer(source.shape[0], source.shape[1:], op.padding, source.dtype, fill)
    taps = _taps(windows(padded, op.kernel_size, op.stride, UNIT))

    def run() -> None:
        np.copyto(inside, source)
        np.copyto(output, taps[0])
        for tap in taps[1:]:
            np.maximum(output, tap, out=output)

    return run


def sum_pool_step(op: AveragePool2d, source: Array, sums: Array) -> Step:
    """Prepare sums = the sum of each window in the type of ``sums``; shapes as ``max_pool_step``."""
    padded, inside = padded_buffer(source.shape[0], source.shape[1:], op.padding, sums.dtype, 0)
    taps = _taps(windows(padded, op.kernel_size, op.stride, UNIT))

    def run() -> None:
        np.copyto(inside, source)
        np.copyto(sums, taps[0])
        for tap in taps[1:]:
            np.add(sums, tap, out=sums)

    return run


def window_sizes(op: AveragePool2d, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return how many pixels of an image each window holds, padding not counted: (rows, columns, 1)."""
    padded, inside = padded_buffer(1, (shape[0], shape[1], 1), op.padding, dtype, 0)
    inside[:] = 1
    sizes: Array = windows(padded, op.kernel_size, op.stride, UNIT).sum(axis=(3, 4), dtype=dtype)[0]
    return sizes


def _taps(view: Array) -> list[Array]:
    return [view[:, :, :, row, column] for row in range(view.shape[3]) for column in range(view.shape[4])]
