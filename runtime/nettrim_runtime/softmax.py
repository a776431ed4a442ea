"""Softmax in integers: a table of exponentials by distance from the largest input, one reciprocal a row.

Formulas: tensorflow/lite/kernels/internal/reference/softmax.h on gemmlowp's fixed-point numbers
(fixedpoint.h: exp_on_negative_values, one_over_one_plus_x_for_x_in_0_1).
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import GraphError
from nettrim_runtime.fixed_point import FRACTION_BITS, divide_by_power, high_product, quantize_multiplier
from nettrim_runtime.linear import Step

Array = npt.NDArray[Any]

INT8 = np.iinfo(np.int8)

ONE = (1 << 31) - 1  # 1.0 in Q0.31
EXPONENT_FRACTION_BITS = 26  # scaled distances are Q5.26
SUM_SHIFT = 12  # sums are Q12.19: at most 511 values of 1.0
LARGEST_DEPTH = 511
OUTPUT_SHIFT = 31 - 8  # probabilities are Q0.8, zero point -128
EXP_QUARTERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-2^e), e = -2..4, Q0.31
EXP_MINUS_EIGHTH = 1895147668  # exp(-1/8) in Q0.31
ONE_THIRD = 715827883  # in Q0.31
NEWTON_START, NEWTON_SLOPE = 1515870810, -1010580540  # 48/17 and -32/17 in Q2.29
NEWTON_STEPS = 3


def softmax_exponentials(scale: float) -> Array:
    """Return exp(-scale * distance) in Q0.31 for distances 0..255 from the largest input, int64 (256,).

    0 beyond the distance at which the reference kernel stops counting a value.
    """
    multiplier, shift, farthest = distance_multiplier(scale)
    return np.array(
        [
            _exponential(high_product(-distance << shift, multiplier)) if distance <= farthest else 0
            for distance in range(256)
        ],
        dtype=np.int64,
    )


def distance_multiplier(scale: float) -> tuple[int, int, int]:
    """Return multiplier and shift from distances to Q5.26, and the farthest distance that the kernels scale."""
    real = scale * (1 << EXPONENT_FRACTION_BITS)
    if real <= 1:
        raise GraphError(f"a softmax of an input of scale {scale:.3g}, expected more than 2^-{EXPONENT_FRACTION_BITS}")
    multiplier, shift = quantize_multiplier(min(real, float(ONE)), FRACTION_BITS)
    return multiplier, shift, math.floor(31 * 2.0**EXPONENT_FRACTION_BITS / 2.0**shift)


def softmax_step(scale: float, source: Array, output: Array) -> Step:
    """Prepare the int8 softmax over the last axis.

    Parameters
    ----------
    scale : float
        Of the input.
    source, output : Array
        (..., depth) int8; the output has scale 1/256 and zero point -128.
    """
    table = softmax_exponentials(scale)
    largest = np.empty((*source.shape[:-1], 1), np.int64)
    distance, exponentials = np.empty(source.shape, np.int64), np.empty(source.shape, np.int64)

    def run() -> None:
        np.max(source, axis=-1, keepdims=True, out=largest)
        np.subtract(largest, source, out=distance)
        np.take(table, distance, out=exponentials, mode="clip")
        np.add(exponentials, 1 << (SUM_SHIFT - 1), out=distance)
        np.right_shift(distance, SUM_SHIFT, out=distance)
        np.sum(distance, axis=-1, keepdims=True, out=largest)
        inverse, integer_bits = _reciprocal(largest)
        shift = integer_bits + OUTPUT_SHIFT
        np.multiply(exponentials, inverse, out=exponentials)
        np.add(exponentials, 1 << 30, out=exponentials)
        np.right_shift(exponentials, 31, out=exponentials)
        np.add(exponentials, np.left_shift(1, shift) >> 1, out=exponentials)
        np.right_shift(exponentials, shift, out=exponentials)
        np.add(exponentials, INT8.min, out=exponentials)
        np.clip(exponentials, INT8.min, INT8.max, out=exponentials)
        np.copyto(output, exponentials, casting="unsafe")

    return run


def _exponential(exponent: int) -> int:
    """Return exp(exponent / 2^26) in Q0.31 for exponent <= 0: a polynomial on [-1/4, 0), then exp(-2^e) a bit."""
    if exponent == 0:
        return ONE
    quarter = 1 << (EXPONENT_FRACTION_BITS - 2)
    rest = (exponent & (quarter - 1)) - quarter
    x = (rest << 5) + (1 << 28)  # Q0.31, centred on -1/8
    x2 = high_product(x, x)
    x3, x4 = high_product(x2, x), high_product(x2, x2)
    tail = divide_by_power(high_product(divide_by_power(x4, 2) + x3, ONE_THIRD) + x2, 1)
    result = EXP_MINUS_EIGHTH + high_product(EXP_MINUS_EIGHTH, x + tail)
    for bit, factor in enumerate(EXP_QUARTERS, start=EXPONENT_FRACTION_BITS - 2):
        if (rest - exponent) >> bit & 1:
            result = high_product(result, factor)
    return result


def _reciprocal(total: Array) -> tuple[Array, Array]:
    """Return (1 / total in Q0.31 scaled into [1/2, 1], its integer bits) of Q12.19 totals."""
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)  # leading zeros of 32 bits
    return one_over_one_plus((total << headroom) - (1 << 31)), SUM_SHIFT - headroom


def one_over_one_plus(fraction: Array) -> Array:
    """Return 1 / (1 + fraction), both Q0.31, for fractions in [0, 1)."""
    half = (fraction + ONE + 1) >> 1
    x = NEWTON_START + ((half * NEWTON_SLOPE + (1 << 30)) >> 31)
    for _ in range(NEWTON_STEPS):
        error = (1 << 29) - ((half * x + (1 << 30)) >> 31)
        x += np.clip(((x * error + (1 << 30)) >> 31) << 2, -(1 << 31), ONE)
    quotient: Array = np.clip(x << 1, -(1 << 31), ONE)
    return quotient
