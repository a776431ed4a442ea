"""Functions of an int16 value as tables of 513 entries with straight lines between them.

Formulas: LUTPopulateInt16 and LUTLookup in tensorflow/lite/kernels/internal/common.h.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CELLS = 512  # between the entries
CELL_BITS = 7  # of a value that say where in a cell it lies
INT16 = np.iinfo(np.int16)


def interpolation_table(
    function: Callable[[Array], Array], scale: np.floating[Any], zero_point: int, output_scale: np.floating[Any]
) -> Array:
    """Return (513,) int16: outputs at the ends of all cells, moved by half the error in the middle of the cell.

    Parameters
    ----------
    function : callable
        Of real values; computed in the type of the scales.
    scale, zero_point
        Of the int16 inputs; the outputs have zero point 0.
    """
    kind = type(scale)
    first, last = scale * kind(INT16.min - zero_point), scale * kind(INT16.max - zero_point)
    step = (last - first) / kind(CELLS)
    to_steps = kind(INT16.max - INT16.min + 1) / (output_scale * kind(INT16.max) - output_scale * kind(INT16.min))
    ends = first + np.arange(CELLS + 1, dtype=kind) * step
    outputs, middles = function(ends) * to_steps, function(ends[:-1] + step / kind(2)) * to_steps
    starts = _rounded(outputs[:-1])
    errors = _rounded((outputs[1:] + starts) / kind(2)) - _rounded(middles)
    entries = np.append(starts - _rounded(errors / kind(2)), _rounded(function(np.array([last])) * to_steps))
    table: Array = np.clip(entries, INT16.min, INT16.max).astype(np.int16)
    return table


def interpolated(table: Array, values: Array) -> Array:
    """Return a table's outputs for int16 values, all int64."""
    entries = table.astype(np.int64)
    places, rest = CELLS // 2 + (values >> CELL_BITS), values & ((1 << CELL_BITS) - 1)
    start = entries[places]
    outputs: Array = start + (((entries[places + 1] - start) * rest + (1 << (CELL_BITS - 1))) >> CELL_BITS)
    return outputs


def _rounded(values: Array) -> Array:
    """Round half away from zero."""
    rounded: Array = np.copysign(np.floor(np.abs(values) + values.dtype.type(0.5)), values)
    return rounded
