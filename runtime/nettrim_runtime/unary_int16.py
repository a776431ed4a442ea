"""Functions of one value on int16: the outputs of TFLite's reference kernels for all inputs.

Formulas: logistic.h and tanh.h in tensorflow/lite/kernels/internal/reference/integer_ops, leaky_relu.h beside them.
"""

from functools import lru_cache
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import GraphError
from nettrim_runtime.fixed_point import multiply_by_quantized_multiplier, require_function_scale, slope_multipliers
from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import Function, UnaryFunction

Array = npt.NDArray[Any]

INT16 = np.iinfo(np.int16)
ENTRIES_A_UNIT, N_ENTRIES = 24, 256  # of the table of sigmoids, which are Q0.16
ONE_MORE = (
    *(4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45, 46, 49),
    *(50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255),
)  # entries of the reference kernels' table that are not the sigmoid rounded, but one more
STEPS_A_UNIT = 3 * 4096  # of the inputs, where the table is read
SIGMOID_BITS, TANH_BITS = 9, 8  # of such a step within a cell of the table; tanh(x) = 2 * sigmoid(2 * x) - 1
SIGMOID_END, TANH_END = 0x7FFF << 10, 0xFFFF << 8  # beyond the table, Q0.25 and Q0.24
SMALLEST_MULTIPLIER, MOST_BITS = 32767 / 2, 31


def sigmoid_table() -> Array:
    """Return sigmoid(i / 24) for i = 0..255, (256,) uint16 in steps of 2^-16."""
    sigmoids = np.rint(65536 / (1 + np.exp(-np.arange(N_ENTRIES) / ENTRIES_A_UNIT)))
    sigmoids[list(ONE_MORE)] += 1
    return sigmoids.astype(np.uint16)


def sigmoid_multiplier(scale: np.float32) -> tuple[int, int]:
    """Return (multiplier, shift to the right) from inputs of a sigmoid or a tanh to the steps of its table."""
    require_function_scale(scale)
    multiplier, shift = float(scale) * STEPS_A_UNIT, 0
    while multiplier <= SMALLEST_MULTIPLIER and shift < MOST_BITS:
        multiplier, shift = 2 * multiplier, shift + 1
    return int(multiplier), shift


def leaky_relu_multipliers(
    op: UnaryFunction, source: Quantization, target: Quantization
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return multiplier and shift of positive inputs, and of negative ones."""
    return slope_multipliers(source.scale[0], np.float32(op.alpha), target.scale[0])


def wide_table(op: UnaryFunction, source: Quantization, target: Quantization) -> Array:
    """Return a function's outputs for the inputs -32768, ... 32767: (65536,) int16, not to be changed."""
    return _outputs(op.function, op.alpha, source.scale[0], target.scale[0])


@lru_cache(maxsize=32)
def _outputs(function: Function, alpha: float, input_scale: np.float32, output_scale: np.float32) -> Array:
    inputs = np.arange(INT16.min, INT16.max + 1, dtype=np.int64)
    match function:
        case Function.SIGMOID:
            outputs = _sigmoid(_steps(inputs, input_scale))
        case Function.TANH:
            outputs = _tanh(_steps(inputs, input_scale))
        case Function.LEAKY_RELU:
            above, below = slope_multipliers(input_scale, np.float32(alpha), output_scale)
            outputs = multiply_by_quantized_multiplier(np.maximum(inputs, 0), *above)
            outputs += multiply_by_quantized_multiplier(np.minimum(inputs, 0), *below)
        case Function.HARD_SWISH | Function.GELU | Function.GELU_TANH | Function.RSQRT:
            raise GraphError(f"a {function.value} on int16, expected int8")
        case _:
            assert_never(function)
    table: Array = np.clip(outputs, INT16.min, INT16.max).astype(np.int16)
    table.flags.writeable = False
    return table


def _steps(inputs: Array, scale: np.float32) -> Array:
    """Return inputs in the steps of the sigmoid's table, rounded half up."""
    multiplier, shift = sigmoid_multiplier(scale)
    steps: Array = (inputs * multiplier + ((1 << shift) >> 1)) >> shift
    return steps


def _sigmoid(steps: Array) -> Array:
    found = _between_entries(np.abs(steps), SIGMOID_BITS, SIGMOID_END)
    outputs: Array = np.where(steps >= 0, found + (1 << 9), (1 << 25) - found + (1 << 9) - 1) >> 10
    return outputs


def _tanh(steps: Array) -> Array:
    found = _between_entries(np.abs(steps), TANH_BITS, TANH_END) - (1 << 23)
    outputs: Array = np.where(steps >= 0, found + (1 << 7), -found + (1 << 7) - 1) >> 8
    return outputs


def _between_entries(steps: Array, bits: int, end: int) -> Array:
    """Return sigmoids of steps of zero or more, 2^bits of them to an entry, as Q0.(16 + bits)."""
    entries = sigmoid_table().astype(np.int64)
    last = N_ENTRIES - 1
    places, rest = steps >> bits, steps & ((1 << bits) - 1)
    inside = np.minimum(places, last - 1)
    found = (entries[inside] << bits) + rest * (entries[inside + 1] - entries[inside])
    result: Array = np.where(places < last, found, end)
    return result
