"""One over a square root in integers (tensorflow/lite/kernels/elementwise.cc, RsqrtEvalQuantized)."""

import numpy as np

from nettrim_runtime.fixed_point import (
    LARGEST_SHIFT,
    high_product,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)

ONE, HALF_OF_THREE = 1 << 28, 3 << 27  # in Q3.28
SQRT_HALF = 1518500250  # in Q0.31
LARGEST = (1 << 31) - 1
STEPS = 5
DATA_SHIFT = 20  # of the root before it is scaled
LARGEST_OUTPUT = 127


def inverse_root(value: int, input_scale: np.float32, output_scale: np.float32) -> int:
    """Return 1 / sqrt(input_scale * value) in steps of the output, for integers; zero and less give the largest."""
    if value <= 0:
        return LARGEST_OUTPUT
    multiplier, shift = _inverse_root_multiplier(value)
    real = 1.0 / float(np.sqrt(input_scale, dtype=np.float32) * output_scale)
    output_multiplier, output_shift = quantize_multiplier(real, LARGEST_SHIFT + DATA_SHIFT)
    root = multiply_by_quantized_multiplier(np.ones(1, np.int64), multiplier, shift + DATA_SHIFT)
    return int(multiply_by_quantized_multiplier(root, output_multiplier, output_shift - DATA_SHIFT)[0])


def _inverse_root_multiplier(value: int) -> tuple[int, int]:
    """Return (multiplier, shift) of 1 / sqrt(value): Newton's method from 1 (GetInvSqrtQuantizedMultiplierExp)."""
    if value == 1:
        return LARGEST, 0
    pairs = (32 - value.bit_length() - 1) // 2 - 1  # shifted left by so many pairs of bits: in [2^27, 2^29)
    shifted = value << (2 * pairs - 1)  # Q3.28 in [1/4, 1)
    half = (shifted + 1) >> 1
    x = ONE
    for _ in range(STEPS):
        cube = high_product(high_product(x, x), x) << 6
        x = (high_product(HALF_OF_THREE, x) - high_product(half, cube)) << 3
    multiplier, right = high_product(x, SQRT_HALF), 11 - pairs
    return multiplier << max(-right, 0), -max(right, 0)
