"""Whether two programs for one network give the same outputs: the same bits, or floats up to their rounding."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.graph import Graph, is_hybrid
from nettrim_runtime.ops import Dense

Array = npt.NDArray[Any]

FLOAT_TOLERANCE = 1e-4  # of the largest output: sums in another order
# Each hybrid layer rounds its input by up to 1/254 of the largest: in one arithmetic a last digit decides between two
# steps now and then, and XNNPACK has another grid.
HYBRID_TOLERANCE, OTHER_GRID_TOLERANCE = 1e-2, 5e-2


def output_tolerance(graph: Graph, *, is_other_grid: bool = False) -> float:
    """Return what outputs may differ by, as a share of the largest one; 0 for integers.

    Parameters
    ----------
    is_other_grid : bool
        Whether hybrid layers round their inputs otherwise, as LiteRT's usual kernels do.
    """
    if graph.is_quantized:
        return 0.0
    hybrid = any(isinstance(op, Dense) and is_hybrid(graph, op) for op in graph.ops)
    if not hybrid:
        return FLOAT_TOLERANCE
    return OTHER_GRID_TOLERANCE if is_other_grid else HYBRID_TOLERANCE


def count_differing(outputs: Array, expected: Array, tolerance: float) -> int:
    """Return the number of samples (n_samples, ...) with an output outside the tolerance, a share of the largest."""
    if outputs.shape != expected.shape:
        return len(expected)
    allowed = tolerance * float(np.abs(expected).max(initial=0)) if tolerance else 0.0
    off = ~(np.abs(outputs.astype(np.float64) - expected) <= allowed)  # so that NaN is off
    return int(np.sum(np.any(off.reshape(len(expected), -1), axis=1)))
