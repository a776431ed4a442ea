"""Log-softmax in integers: a table of exponentials by distance from the largest input, one logarithm a row.

Formulas: tensorflow/lite/kernels/internal/reference/log_softmax.h on gemmlowp's fixed-point numbers, and
log_x_for_x_greater_than_or_equal_to_1 in tensorflow/lite/kernels/internal/common.h.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.fixed_point import high_product
from nettrim_runtime.linear import Step
from nettrim_runtime.softmax import (
    INT8,
    SUM_SHIFT,
    distance_multiplier,
    one_over_one_plus,
    softmax_exponentials,
)

Array = npt.NDArray[Any]

LARGEST_LOG_DEPTH = 4095  # values in a row: sums are Q12.19
OUTPUT_SHIFT = 22  # from Q5.26 to steps of 1/16
FARTHEST = -(1 << 31)  # stands for distances at which the output is -128
SQRT_HALF, FOURTH_ROOT_HALF, LOG_2 = 1518500250, 1805811301, 1488522236  # in Q0.31
QUARTER = 1 << 23  # of a power of two, in Q6.25
POWER_BITS = 25  # fraction bits of the logarithm to base 2
NUMERATOR, DENOMINATOR = 117049297, 127690142  # 11/240 and 1/20 times the fourth root of 2, in Q0.31
CONSTANT, SLOPE = 1057819769, 638450708  # 2 / 2^(1/4) - 2^(1/4), and 2^(1/4) / 4


def log_softmax_step(scale: float, source: Array, output: Array) -> Step:
    """Prepare the int8 log-softmax over the last axis.

    Parameters
    ----------
    scale : float
        Of the input.
    source, output : Array
        (..., depth) int8; the output has scale 1/16 and zero point 127.
    """
    exponentials = (softmax_exponentials(scale) + (1 << (SUM_SHIFT - 1))) >> SUM_SHIFT
    distances = _distances(scale)

    def run() -> None:
        largest = np.max(source, axis=-1, keepdims=True).astype(np.intp)
        places = largest - source
        logarithm = _logarithm(exponentials[places].sum(axis=-1, keepdims=True))
        steps = (logarithm - distances[places] + (1 << (OUTPUT_SHIFT - 1))) >> OUTPUT_SHIFT
        np.copyto(output, np.clip(INT8.max - steps, INT8.min, INT8.max), casting="unsafe")

    return run


def _distances(scale: float) -> Array:
    """Return -scale * distance in Q5.26 for distances 0..255 from the largest input, int64 (256,)."""
    multiplier, shift, farthest = distance_multiplier(scale)
    distances = np.arange(256, dtype=np.int64)
    scaled = high_product(-np.minimum(distances, farthest) << shift, multiplier)
    return np.where(distances <= farthest, scaled, FARTHEST)


def _logarithm(total: Array) -> Array:
    """Return the natural logarithm in Q5.26 of Q12.19 totals of 1 or more.

    A total is r * 2^n with r around 2^(-1/4), the square root of a power of two split off where that brings it nearer.
    """
    headroom = 31 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # of int32 totals
    second = 31 - np.frexp(high_product(total, SQRT_HALF).astype(np.float64))[1].astype(np.int64)
    r = np.minimum(2 * high_product(total << headroom, SQRT_HALF), total << second)
    power = np.maximum(
        ((SUM_SHIFT - 1 - headroom) << POWER_BITS) + QUARTER, ((SUM_SHIFT - second) << POWER_BITS) - QUARTER
    )
    p, q = (r + FOURTH_ROOT_HALF + 1) >> 1, 2 * (r - FOURTH_ROOT_HALF)
    square = high_product(q, q)
    numerator = high_product(q, r) + high_product(high_product(q, square), NUMERATOR)
    rest = high_product(p, CONSTANT + q + high_product(DENOMINATOR, square)) + high_product(SLOPE, q)
    narrow = (np.abs(numerator) + (1 << 5)) >> 6  # to Q6.25, half away from zero
    series = high_product(np.sign(numerator) * narrow, one_over_one_plus(rest))
    logarithm: Array = 2 * (high_product(power, LOG_2) + series)
    return logarithm
