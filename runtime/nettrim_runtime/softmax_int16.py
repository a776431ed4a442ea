"""Softmax on int16: exponentials of distances from the largest input, and one reciprocal a row, from tables.

Formulas: SoftmaxInt16 in tensorflow/lite/kernels/internal/reference/softmax.h. Its tables are the same for all scales,
and no entry comes near a border of rounding: they do not depend on the C library.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier, require_function_scale
from nettrim_runtime.interpolation import INT16, interpolated, interpolation_table
from nettrim_runtime.linear import Step

Array = npt.NDArray[Any]

N_DISTANCES = 1 << 16
RANGE = np.float64(N_DISTANCES - 1)
FARTHEST = 10.0  # exponentials of what is farther from the largest input count as those of 10
FRACTION = np.float64(2.0) / RANGE  # one step of exponentials and reciprocals
ONE_AND_HALF = 3 << 15  # of a sum in [1, 2), Q2.16: the middle of the reciprocals' table


def exponential_table() -> Array:
    """Return (513,) int16: exp(-10) to exp(0) in steps of 2 / 65535, over the int16 values."""
    return interpolation_table(np.exp, np.float64(FARTHEST) / RANGE, INT16.max, FRACTION)


def reciprocal_table() -> Array:
    """Return (513,) int16: 1 / (1 + x) for x from 0 to 1 in steps of 2 / 65535, over the int16 values."""
    return interpolation_table(lambda x: 1 / (1 + x), 1 / RANGE, INT16.min, FRACTION)


def wide_distance_multiplier(scale: np.float32) -> tuple[int, int]:
    """Return multiplier and shift from distances between inputs to the exponentials' table."""
    require_function_scale(scale)
    return quantize_multiplier(float(scale) / (FARTHEST / float(RANGE)))


def wide_exponentials(scale: np.float32) -> Array:
    """Return exp(-scale * distance) for the distances 0..65535 from the largest input, (65536,) int64."""
    distances = -np.arange(N_DISTANCES, dtype=np.int64)
    scaled = multiply_by_quantized_multiplier(distances, *wide_distance_multiplier(scale))
    return interpolated(exponential_table(), np.clip(scaled + INT16.max, INT16.min, INT16.max))


def wide_softmax_step(exponentials: Array, source: Array, output: Array) -> Step:
    """Prepare the int16 softmax over the last axis.

    Parameters
    ----------
    exponentials : Array
        As of `wide_exponentials`.
    source, output : Array
        (..., depth) int16; the output has scale 1/32768.
    """
    reciprocals = reciprocal_table()
    largest = np.empty((*source.shape[:-1], 1), np.int64)
    values = np.empty(source.shape, np.int64)
    distances = np.empty(source.shape, np.int64)

    def run() -> None:
        np.max(source, axis=-1, keepdims=True, out=largest)
        np.subtract(largest, source, out=distances)
        np.take(exponentials, distances, out=values, mode="clip")
        np.sum(values, axis=-1, keepdims=True, out=largest)
        bits = np.frexp(largest.astype(np.float64))[1].astype(np.int64)
        fractions = ((largest << (31 - bits)) + (1 << 13)) >> 14
        inverse = interpolated(reciprocals, np.clip(fractions - ONE_AND_HALF, INT16.min, INT16.max))
        np.multiply(values, inverse, out=values)
        np.add(values, np.left_shift(1, bits - 2), out=values)
        np.right_shift(values, bits - 1, out=values)
        np.clip(values, 0, INT16.max, out=values)
        np.copyto(output, values, casting="unsafe")

    return run
