"""Functions of one value: on floats, and on integers as a table of all outputs of TFLite's reference kernels."""

import math
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import GraphError
from nettrim_runtime.fixed_point import (
    divide_by_power,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    slope_multipliers,
)
from nettrim_runtime.graph import Quantization
from nettrim_runtime.inverse_root import inverse_root
from nettrim_runtime.linear import Step
from nettrim_runtime.ops import Function, UnaryFunction
from nettrim_runtime.unary_int16 import wide_table

Array = npt.NDArray[Any]

INT8 = np.iinfo(np.int8)
ERF_SLOPE = 0.3275911  # Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| <= 1.5e-7
ERF_FACTORS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
GELU_CUBE = 0.044715  # Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2
SMALLEST_SQUARE = 2.0**-100  # what RSQRT takes smaller values for
GATE_SHIFT = 15  # to the left, at most: the gate of a hard swish has 16 bits, and saturates
GELU_SCALE = math.sqrt(2 / math.pi)


def evaluate(op: UnaryFunction, x: Array) -> Array:
    """Return the function of float values, in their type and shape."""
    result: Array
    match op.function:
        case Function.SIGMOID:
            result = np.exp(-np.logaddexp(0, -x))
        case Function.TANH:
            result = np.tanh(x)
        case Function.HARD_SWISH:
            result = x * np.clip(x + 3, 0, 6) / 6
        case Function.LEAKY_RELU:
            result = np.where(x > 0, x, x * np.asarray(op.alpha, x.dtype))
        case Function.GELU:
            result = x * (1 + _erf(x * np.asarray(math.sqrt(0.5), x.dtype))) / 2
        case Function.GELU_TANH:
            inner = np.asarray(GELU_SCALE, x.dtype) * (x + np.asarray(GELU_CUBE, x.dtype) * x**3)
            result = x * (1 + np.tanh(inner)) / 2
        case Function.RSQRT:
            result = 1 / np.sqrt(np.maximum(x, np.asarray(SMALLEST_SQUARE, x.dtype)))
        case _:
            assert_never(op.function)
    return result


def unary_step(op: UnaryFunction, source: Array, output: Array) -> Step:
    """Prepare output = function(source) on floats of one shape."""

    def run() -> None:
        np.copyto(output, evaluate(op, source))

    return run


def lookup_step(table: Array, source: Array, output: Array) -> Step:
    """Prepare output = table[source - smallest integer] on integers of one shape and type."""
    places = np.empty(source.shape, np.intp)
    smallest = int(np.iinfo(source.dtype).min)

    def run() -> None:
        np.subtract(source, smallest, out=places, dtype=np.intp)
        np.take(table, places, out=output, mode="clip")

    return run


def lookup_table(op: UnaryFunction, source: Quantization, target: Quantization, dtype: str = "int8") -> Array:
    """Return the outputs for all inputs of a type, the smallest first: (256,) int8 or (65536,) int16.

    They are the same on every machine. On int8, leaky ReLU, hard swish and 1 / sqrt(x) are fixed-point arithmetic
    (leaky_relu.h and hard_swish.h in tensorflow/lite/kernels/internal/reference, and `inverse_root`). The others are
    computed in float32 (LUTPopulate in tensorflow/lite/kernels/internal/common.h), here with exponentials and their
    like rounded correctly. A C library may round them otherwise in the last of 24 bits, which only shows where
    `border_distance` is next to nothing. On int16 see `unary_int16`.
    """
    if dtype == "int16":
        return wide_table(op, source, target)
    inputs = np.arange(INT8.min, INT8.max + 1, dtype=np.int64) - source.zero_point
    match op.function:
        case Function.LEAKY_RELU:
            outputs = _leaky_relu(inputs, op.alpha, source.scale[0], target.scale[0])
        case Function.RSQRT:
            scales = source.scale[0], target.scale[0]
            roots = np.array([inverse_root(int(value), *scales) for value in inputs], np.int64)
            outputs = np.where(inputs > 0, roots, INT8.max - target.zero_point)
        case Function.HARD_SWISH:
            outputs = _hard_swish(inputs, source.scale[0], target.scale[0])
        case _:
            steps = _steps(op, source, target)
            outputs = np.copysign(np.floor(np.abs(steps.astype(np.float64)) + 0.5), steps)
    table: Array = np.clip(outputs + target.zero_point, INT8.min, INT8.max).astype(np.int8)
    return table


def border_distance(op: UnaryFunction, source: Quantization, target: Quantization) -> float:
    """Return how near an entry of a function's int8 table comes to the border between two integers, in steps."""
    if op.function in {Function.LEAKY_RELU, Function.HARD_SWISH, Function.RSQRT}:
        return 0.5  # integer arithmetic, without a doubt
    steps = np.abs(_steps(op, source, target).astype(np.float64))
    return float(np.abs(steps - np.floor(steps) - 0.5).min())


def _steps(op: UnaryFunction, source: Quantization, target: Quantization) -> Array:
    """Return the outputs for the inputs -128 to 127 in steps of the output, float32 before rounding."""
    inputs = np.arange(INT8.min, INT8.max + 1, dtype=np.int64) - source.zero_point
    values = _in_float32(op.function, source.scale[0] * inputs.astype(np.float32))
    steps: Array = values * (np.float32(1) / target.scale[0])
    return steps


def _erf(x: Array) -> Array:
    t = 1 / (1 + np.asarray(ERF_SLOPE, x.dtype) * np.abs(x))
    total = np.zeros_like(x)
    for factor in reversed(ERF_FACTORS):
        total = (total + np.asarray(factor, x.dtype)) * t
    result: Array = np.sign(x) * (1 - total * np.exp(-x * x))
    return result


def _in_float32(function: Function, x: Array) -> Array:
    """Return a function of float32 values in the order of the reference kernels' float32 operations."""
    one, half = np.float32(1), np.float32(0.5)
    wide = x.astype(np.float64)
    result: Array
    with np.errstate(over="ignore"):
        match function:
            case Function.SIGMOID:
                result = one / (one + np.exp(-wide).astype(np.float32))
            case Function.TANH:
                result = np.tanh(wide).astype(np.float32)
            case Function.GELU:
                scaled = x * np.float32(-math.sqrt(0.5))
                result = half * x * np.array([math.erfc(value) for value in scaled], np.float32)
            case Function.GELU_TANH:
                inner = np.float32(GELU_SCALE) * (x + np.float32(GELU_CUBE) * x * x * x)
                result = half * x * (one + np.tanh(inner.astype(np.float64)).astype(np.float32))
            case Function.LEAKY_RELU | Function.HARD_SWISH | Function.RSQRT:
                raise AssertionError("fixed-point arithmetic, not float32")
            case _:
                assert_never(function)
    return result


def _leaky_relu(inputs: Array, alpha: float, input_scale: np.float32, output_scale: np.float32) -> Array:
    above, below = inputs.copy(), inputs.copy()
    multipliers = slope_multipliers(input_scale, np.float32(alpha), output_scale)
    multiply_by_quantized_multiplier(above, *multipliers[0])
    multiply_by_quantized_multiplier(below, *multipliers[1])
    return np.where(inputs >= 0, above, below)


def _hard_swish(inputs: Array, input_scale: np.float32, output_scale: np.float32) -> Array:
    """Return x * (a number in [0, 1] that is x / 6 + 1 / 2, saturated), all in 16 bits."""
    fine_scale = np.float32(1 / 128) * input_scale
    output_multiplier, output_shift = quantize_multiplier(float(fine_scale / output_scale))
    if output_shift > 0:
        raise GraphError(f"a hard swish from scale {input_scale} to {output_scale}, expected 1/128 of it at least")
    gate_multiplier, gate_shift = quantize_multiplier(float(fine_scale / np.float32(3 / 32768)), GATE_SHIFT)
    fine = inputs << 7
    scaled = _high_product16(fine, _to_16_bits(output_multiplier))
    gate = _saturated(fine << max(gate_shift - 1, 0))
    gate = _high_product16(gate, _to_16_bits(gate_multiplier))
    gate = _saturated(gate << 1) if gate_shift > 0 else divide_by_power(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = np.sign(scaled) * (gate * np.abs(scaled) >> 15)  # towards zero: the gate is never negative
    return divide_by_power(product, -output_shift)


def _to_16_bits(multiplier: int) -> int:
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1)


def _high_product16(values: Array, multiplier: int) -> Array:
    return (values * multiplier + (1 << 14)) >> 15


def _saturated(values: Array) -> Array:
    return np.clip(values, -(1 << 15), (1 << 15) - 1)
