"""The integer arithmetic of quantised operators: TFLite's reference kernels, bit for bit.

Every exporter takes its multipliers, shifts and clamps from here, so all rooms compute one specification.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import ActivationFunction, Add, Layer

Array = npt.NDArray[Any]

FRACTION_BITS = 31  # Q0.31 multipliers, as tensorflow/lite/kernels/internal/quantization_util.cc
SMALLEST_SHIFT = -31
ADD_LEFT_SHIFT = 20  # headroom of the int8 ADD kernel, tensorflow/lite/kernels/add.cc
INT8_MIN, INT8_MAX = -128, 127


@dataclass(frozen=True, eq=False)
class Requantization:
    """How a layer's int32 accumulator becomes an int8 output.

    output = clamp(output_zero_point + accumulator * multiplier * 2^(shift - 31), lower, upper),
    where accumulator = sum(weight * (input - input_zero_point)) + bias.

    Attributes
    ----------
    multiplier, shift : Array
        (n_outputs,) int32; a positive shift goes left.
    """

    multiplier: Array
    shift: Array
    input_zero_point: int
    output_zero_point: int
    lower: int
    upper: int


@dataclass(frozen=True)
class AddParameters:
    """How two int8 inputs of different scales are added (tensorflow/lite/kernels/add.cc)."""

    left_shift: int
    first_zero_point: int
    second_zero_point: int
    output_zero_point: int
    first_multiplier: int
    first_shift: int
    second_multiplier: int
    second_shift: int
    output_multiplier: int
    output_shift: int
    lower: int
    upper: int


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) with real = multiplier * 2^(shift - 31), multiplier in [2^30, 2^31).

    A real too small for a shift of -31 gives (0, 0), as TFLite's QuantizeMultiplier does.
    """
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << FRACTION_BITS) + 0.5)
    if multiplier == 1 << FRACTION_BITS:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < SMALLEST_SHIFT:
        return 0, 0
    return multiplier, shift


def multiply_by_quantized_multiplier(
    accumulator: Array, multiplier: Array | int, shift: Array | int, scratch: Array | None = None
) -> Array:
    """Scale integers with two roundings, as TFLite's MultiplyByQuantizedMultiplier does by default.

    First a doubling high multiplication rounds half up, then a right shift rounds half away from zero.

    Parameters
    ----------
    accumulator : Array
        int64 that hold int32 values; overwritten with the result.
    multiplier, shift : Array or int
        Broadcast against ``accumulator``; int64 where arrays, so that nothing is allocated.
    scratch : Array, optional
        int64 of ``accumulator``'s shape.
    """
    scratch = np.empty_like(accumulator) if scratch is None else scratch
    right = np.maximum(np.negative(shift), 0)
    np.left_shift(accumulator, np.maximum(shift, 0), out=accumulator)
    np.multiply(accumulator, multiplier, out=accumulator)
    np.add(accumulator, 1 << (FRACTION_BITS - 1), out=accumulator)
    np.right_shift(accumulator, FRACTION_BITS, out=accumulator)
    np.right_shift(accumulator, 63, out=scratch)  # -1 where negative: half rounds away from zero
    np.bitwise_and(scratch, -(right > 0).astype(np.int64), out=scratch)
    np.add(accumulator, scratch, out=accumulator)
    np.add(accumulator, np.left_shift(1, right) >> 1, out=accumulator)
    np.right_shift(accumulator, right, out=accumulator)
    return accumulator


def activation_range(quantization: Quantization, activation: ActivationFunction) -> tuple[int, int]:
    """Return the int8 clamp of a fused activation (TFLite's CalculateActivationRangeQuantized)."""
    lower, upper = INT8_MIN, INT8_MAX
    if math.isfinite(activation.lower):
        lower = max(lower, _integer_of(quantization, activation.lower))
    if math.isfinite(activation.upper):
        upper = min(upper, _integer_of(quantization, activation.upper))
    return lower, upper


def layer_requantization(graph: Graph, op: Layer) -> Requantization:
    """Return how a quantised layer's accumulator is scaled, per output channel."""
    output = graph.quantization(op.output)
    real = (  # input times filter first: the order decides the last bit
        float(graph.quantization(op.input).scale[0])
        * graph.quantization(op.weight).scale.astype(np.float64)
        / float(output.scale[0])
    )
    pairs = [quantize_multiplier(float(value)) for value in real]
    lower, upper = activation_range(output, op.activation)
    return Requantization(
        multiplier=np.array([pair[0] for pair in pairs], dtype=np.int32),
        shift=np.array([pair[1] for pair in pairs], dtype=np.int32),
        input_zero_point=graph.quantization(op.input).zero_point,
        output_zero_point=output.zero_point,
        lower=lower,
        upper=upper,
    )


def add_parameters(graph: Graph, op: Add) -> AddParameters:
    """Return the constants of a quantised addition."""
    first, second, output = (graph.quantization(name) for name in (op.first, op.second, op.output))
    twice_larger = 2.0 * max(float(first.scale[0]), float(second.scale[0]))
    first_multiplier, first_shift = quantize_multiplier(float(first.scale[0]) / twice_larger)
    second_multiplier, second_shift = quantize_multiplier(float(second.scale[0]) / twice_larger)
    output_multiplier, output_shift = quantize_multiplier(
        twice_larger / ((1 << ADD_LEFT_SHIFT) * float(output.scale[0]))
    )
    lower, upper = activation_range(output, op.activation)
    return AddParameters(
        left_shift=ADD_LEFT_SHIFT,
        first_zero_point=first.zero_point,
        second_zero_point=second.zero_point,
        output_zero_point=output.zero_point,
        first_multiplier=first_multiplier,
        first_shift=first_shift,
        second_multiplier=second_multiplier,
        second_shift=second_shift,
        output_multiplier=output_multiplier,
        output_shift=output_shift,
        lower=lower,
        upper=upper,
    )


def softmax_table(scale: float) -> Array:
    """Return exp(-scale * distance) for distances 255..0 from the largest input, float32 (256,).

    Entry ``255 - (largest - input)``, as TFLite's PopulateSoftmaxLookupTable. Rounded once from
    float64, which is what a correctly rounded expf gives.
    """
    distance = np.arange(255, -1, -1, dtype=np.float32)
    exponent = np.float32(-scale) * distance
    return np.exp(exponent.astype(np.float64)).astype(np.float32)


def _integer_of(quantization: Quantization, value: float) -> int:
    quotient = np.float32(value) / quantization.scale[0]
    return quantization.zero_point + int(math.copysign(math.floor(abs(float(quotient)) + 0.5), quotient))
