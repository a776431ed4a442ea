"""The integer arithmetic of quantised operators: TFLite's reference kernels, bit for bit.

Every exporter takes its multipliers, shifts and clamps from here, so all rooms compute one specification.
"""

import enum
import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import GraphError
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import ActivationFunction, Add, Dense, Layer, Mean, Mul, PRelu, Requantize, Sub

Array = npt.NDArray[Any]
Integers = TypeVar("Integers", int, Array)

FRACTION_BITS = 31  # Q0.31 multipliers, as tensorflow/lite/kernels/internal/quantization_util.cc
SMALLEST_SHIFT = -31
LARGEST_SHIFT = 30  # to the left of an int32
ADD_LEFT_SHIFT = {"int8": 20, "int16": 15}  # headroom of the ADD kernels, tensorflow/lite/kernels/add.cc
WIDE_FRACTION_BITS = 15  # Q0.15 multipliers of int64 accumulators, tensorflow/lite/kernels/internal/common.cc
LARGEST_WIDE_MULTIPLIER = 0x7FFF
LARGEST_STEP = 256  # |output - zero point| beyond which every output is saturated
ACCUMULATOR_LIMIT = 1 << 31
MULTIPLIER_CHANGES = (0, 1, -1, 2, -2, 3, -3, 4, -4)
LARGEST_FUNCTION_SCALE = 4.0  # of int16 that a softmax, sigmoid or tanh reads: its steps stay in int32
INPUT_SPAN = {"int8": 255, "int16": 32768}  # |value - zero point| at most


class Rounding(enum.Enum):
    """How the reference kernel of a layer rounds; the function that does it.

    TWICE: convolutions on int8 (`multiply_by_quantized_multiplier`). ONCE: dense layers, whose reference kernel
    multiplies by a double and rounds half away from zero (`multiply_rounding_once`). WIDE: convolutions on int16, whose
    sums are int64 (`multiply_wide`).
    """

    TWICE = "twice"
    ONCE = "once"
    WIDE = "wide"


@dataclass(frozen=True, eq=False)
class Requantization:
    """How a layer's accumulator, int32 or int64, becomes an int8 or int16 output.

    output = clamp(output_zero_point + accumulator * multiplier * 2^(shift - 31), lower, upper),
    where accumulator = sum(weight * (input - input_zero_point)) + bias.

    Attributes
    ----------
    multiplier, shift : Array
        (n_outputs,) int32; a positive shift goes left.
    rounding : Rounding
        Which arithmetic; `Rounding.WIDE` takes multiplier * 2^(shift - 15) instead. Multipliers of layers on int16 have
        15 bits.
    """

    multiplier: Array
    shift: Array
    input_zero_point: int
    output_zero_point: int
    lower: int
    upper: int
    rounding: Rounding


@dataclass(frozen=True)
class AddParameters:
    """How two inputs of different scales are added (tensorflow/lite/kernels/add.cc).

    A difference has a negative second multiplier (sub.cc).
    """

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


def quantize_multiplier(real: float, largest_shift: int = LARGEST_SHIFT) -> tuple[int, int]:
    """Return (multiplier, shift) with real = multiplier * 2^(shift - 31), multiplier in [2^30, 2^31).

    A real too small for a shift of -31 gives (0, 0), as TFLite's QuantizeMultiplier does.

    Raises
    ------
    GraphError
        When the real is not finite, or needs a larger shift than the arithmetic that follows has room for.
    """
    if not math.isfinite(real):
        raise GraphError(f"its scales make a factor of {real}, expected a finite one: take scales nearer to each other")
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << FRACTION_BITS) + 0.5)
    if multiplier == 1 << FRACTION_BITS:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < SMALLEST_SHIFT:
        return 0, 0
    if shift > largest_shift:
        raise GraphError(
            f"its scales make a factor of {real:.3g}, expected less than 2^{largest_shift}: take scales nearer to each "
            "other"
        )
    return multiplier, shift


def high_product(a: Integers, b: Integers | int) -> Integers:
    """Return a * b / 2^31 of Q0.31 numbers, rounded half up: integers or int64 arrays."""
    product: Any = a * b
    rounded: Integers = (product + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS
    return rounded


def divide_by_power(values: Integers, exponent: int) -> Integers:
    """Return integers, or an array of them, over 2^exponent, rounded half away from zero."""
    lowered: Any = values + ((1 << exponent) >> 1) - ((values < 0) & (exponent > 0))
    rounded: Integers = lowered >> exponent
    return rounded


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


def exact_multiplier(real: float, largest_accumulator: int) -> tuple[int, int] | None:
    """Return (multiplier, shift) whose single rounding equals rounding accumulator * real in float64.

    For every accumulator up to the largest, ``multiply_rounding_once`` then gives the integer that
    TFLite's reference FULLY_CONNECTED computes with a double, or one that saturates alike. None when no
    multiplier near ``real`` does; a scale that differs in its last digit then has one.
    """
    multiplier, shift = quantize_multiplier(real)
    if multiplier == 0:
        return 0, 0
    thresholds = _accumulators_at_steps(real)
    thresholds = thresholds[thresholds <= largest_accumulator]
    steps = np.arange(1, thresholds.size + 1)
    for change in MULTIPLIER_CHANGES:
        at, before = (
            multiply_rounding_once(accumulator.copy(), multiplier + change, shift)
            for accumulator in (thresholds, thresholds - 1)
        )
        if np.all(at >= steps) and np.all(before < steps) and multiplier + change < 1 << FRACTION_BITS:
            return multiplier + change, shift
    return None


def multiply_rounding_once(
    accumulator: Array, multiplier: Array | int, shift: Array | int, scratch: Array | None = None
) -> Array:
    """Scale integers with one rounding, half away from zero: sign * ((|a| * m + 2^(30 - shift)) >> (31 - shift)).

    Parameters are those of ``multiply_by_quantized_multiplier``.
    """
    scratch = np.empty_like(accumulator) if scratch is None else scratch
    right = np.subtract(FRACTION_BITS, shift)
    np.sign(accumulator, out=scratch)
    np.abs(accumulator, out=accumulator)
    np.multiply(accumulator, multiplier, out=accumulator)
    np.add(accumulator, np.left_shift(1, right - 1), out=accumulator)
    np.right_shift(accumulator, right, out=accumulator)
    np.multiply(accumulator, scratch, out=accumulator)
    return accumulator


def multiply_wide(
    accumulator: Array, multiplier: Array | int, shift: Array | int, _scratch: Array | None = None
) -> Array:
    """Scale int64 accumulators below 2^47 by a Q0.15 multiplier, half up: (a * m + 2^(14 - shift)) >> (15 - shift).

    TFLite's MultiplyByQuantizedMultiplier of an int64 (tensorflow/lite/kernels/internal/common.cc). Parameters are
    those of ``multiply_by_quantized_multiplier``.
    """
    right = np.subtract(WIDE_FRACTION_BITS, shift)
    np.multiply(accumulator, multiplier, out=accumulator)
    np.add(accumulator, np.left_shift(1, right - 1), out=accumulator)
    np.right_shift(accumulator, right, out=accumulator)
    return accumulator


def activation_range(
    quantization: Quantization, activation: ActivationFunction, dtype: str = "int8"
) -> tuple[int, int]:
    """Return the clamp of a fused activation (TFLite's CalculateActivationRangeQuantized)."""
    lower, upper = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
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
    dtype = graph.tensors[op.output].dtype
    if dtype == "int16":
        rounding, pairs = _wide_pairs(op, real)
    elif isinstance(op, Dense):
        rounding, pairs = Rounding.ONCE, _exact_pairs(graph, op, real)
    else:
        rounding, pairs = Rounding.TWICE, [quantize_multiplier(float(value)) for value in real]
    lower, upper = activation_range(output, op.activation, dtype)
    return Requantization(
        multiplier=np.array([pair[0] for pair in pairs], dtype=np.int32),
        shift=np.array([pair[1] for pair in pairs], dtype=np.int32),
        input_zero_point=graph.quantization(op.input).zero_point,
        output_zero_point=output.zero_point,
        lower=lower,
        upper=upper,
        rounding=rounding,
    )


def add_parameters(graph: Graph, op: Add | Sub) -> AddParameters:
    """Return the constants of a quantised addition."""
    first, second, output = (graph.quantization(name) for name in (op.first, op.second, op.output))
    twice_larger = 2.0 * max(float(first.scale[0]), float(second.scale[0]))
    first_multiplier, first_shift = quantize_multiplier(float(first.scale[0]) / twice_larger)
    second_multiplier, second_shift = quantize_multiplier(float(second.scale[0]) / twice_larger)
    dtype = graph.tensors[op.output].dtype
    left_shift = ADD_LEFT_SHIFT[dtype]
    output_multiplier, output_shift = quantize_multiplier(twice_larger / ((1 << left_shift) * float(output.scale[0])))
    lower, upper = activation_range(output, op.activation, dtype)
    return AddParameters(
        left_shift=left_shift,
        first_zero_point=first.zero_point,
        second_zero_point=second.zero_point,
        output_zero_point=output.zero_point,
        first_multiplier=first_multiplier,
        first_shift=first_shift,
        second_multiplier=-second_multiplier if isinstance(op, Sub) else second_multiplier,
        second_shift=second_shift,
        output_multiplier=output_multiplier,
        output_shift=output_shift,
        lower=lower,
        upper=upper,
    )


def product_multiplier(graph: Graph, op: Mul) -> tuple[int, int]:
    """Return the multiplier and shift of a product (tensorflow/lite/kernels/mul.cc): a quotient of float32 scales."""
    first, second, output = (graph.quantization(name).scale[0] for name in (op.first, op.second, op.output))
    return quantize_multiplier(float(first * second / output))


def prelu_multipliers(graph: Graph, op: PRelu) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return multiplier and shift of positive inputs, and of negative ones times their slope (activations.cc)."""
    return slope_multipliers(*(graph.quantization(name).scale[0] for name in (op.input, op.slope, op.output)))


def slope_multipliers(
    source: np.float32, slope: np.float32, output: np.float32
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return multiplier and shift of inputs of a scale, and of those that a slope multiplies: quotients of float32."""
    return quantize_multiplier(float(source / output)), quantize_multiplier(float(source * slope / output))


def require_function_scale(scale: np.float32) -> None:
    """Refuse int16 of a scale that softmax, sigmoid and tanh have no room for."""
    if not 0 < scale <= LARGEST_FUNCTION_SCALE:
        raise GraphError(f"an int16 input of scale {scale:.3g}, expected at most {LARGEST_FUNCTION_SCALE:.0f}")


def requantize_multiplier(graph: Graph, op: Requantize) -> tuple[int, int]:
    """Return the multiplier and shift from one integer type to another (tensorflow/lite/kernels/quantize.cc)."""
    source, target = (float(graph.quantization(name).scale[0]) for name in (op.input, op.output))
    return quantize_multiplier(source / target)


def mean_multiplier(graph: Graph, op: Mean) -> tuple[int, int]:
    """Return the multiplier and shift of the sum that a mean is made of.

    The division by the number of values is part of it: QuantizedMeanOrSum in
    tensorflow/lite/kernels/internal/reference/reduce.h.
    """
    source, target = (float(graph.quantization(name).scale[0]) for name in (op.input, op.output))
    multiplier, shift = quantize_multiplier(source / target)
    count = graph.tensors[op.input].size // graph.tensors[op.output].size
    headroom = min(count.bit_length() - 1, FRACTION_BITS + 1, FRACTION_BITS + shift)
    return (multiplier << headroom) // count, shift - headroom


def largest_accumulators(weight: Array, bias: Array, dtype: str = "int8") -> Array:
    """Return (n_outputs,) int64: what a quantised layer's accumulators never exceed.

    Parameters
    ----------
    weight, bias : Array
        int8, outputs first, and (n_outputs,) integers.
    dtype : str
        Of the layer's input.
    """
    magnitudes = np.abs(weight.astype(np.int64)).reshape(weight.shape[0], -1).sum(axis=1)
    largest: Array = magnitudes * INPUT_SPAN[dtype] + np.abs(bias.astype(np.int64))
    return largest


def _wide_pairs(op: Layer, real: Array) -> tuple[Rounding, list[tuple[int, int]]]:
    """Return the arithmetic of a layer on int16: of a dense one, whose reference is a double, exact by its scales."""
    pairs = [_wide_multiplier(float(value)) for value in real]
    if not isinstance(op, Dense):
        return Rounding.WIDE, pairs
    for channel, (value, (multiplier, shift)) in enumerate(zip(real, pairs, strict=True)):
        if math.ldexp(multiplier, shift - WIDE_FRACTION_BITS) != value:
            raise GraphError(
                f"Dense {op.name!r} on int16: no 15-bit multiplier is {value:.9g}, the scale of output {channel}; take "
                "powers of two for the scales of its input and output, and weight scales of 14 binary digits"
            )
    return Rounding.ONCE, [(multiplier, shift + FRACTION_BITS - WIDE_FRACTION_BITS) for multiplier, shift in pairs]


def _wide_multiplier(real: float) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(real, WIDE_FRACTION_BITS - 1)
    dropped = FRACTION_BITS - WIDE_FRACTION_BITS
    return min((multiplier + (1 << (dropped - 1))) >> dropped, LARGEST_WIDE_MULTIPLIER), shift


def _exact_pairs(graph: Graph, op: Layer, real: Array) -> list[tuple[int, int]]:
    largest = largest_accumulators(graph.tensors[op.weight].values(), graph.tensors[op.bias].values())
    pairs = {}
    for value in np.unique(real):  # outputs of one scale, as of weights with one a tensor, share a multiplier
        pair = exact_multiplier(float(value), int(largest[real == value].max()))
        if pair is None:
            channel = int(np.flatnonzero(real == value)[0])
            raise GraphError(
                f"Dense {op.name!r}: no 31-bit multiplier rounds as {float(value)!r} does in output {channel}; "
                "change the weight scale in its last digit"
            )
        pairs[float(value)] = pair
    return [pairs[float(value)] for value in real]


def _accumulators_at_steps(real: float) -> Array:
    """Return, for outputs 1, 2, ... 256 before the zero point, the smallest int32 that rounds to each."""
    steps = np.arange(1, LARGEST_STEP + 1)
    nearest = np.minimum(np.ceil((steps - 0.5) / real), float(ACCUMULATOR_LIMIT)).astype(np.int64)
    candidates = nearest[:, None] + np.arange(-2, 3)
    rounded = np.floor(candidates.astype(np.float64) * real + 0.5)
    reached = candidates[np.arange(steps.size), np.argmax(rounded >= steps[:, None], axis=1)]
    thresholds: Array = np.maximum(reached, 0)[nearest < ACCUMULATOR_LIMIT - 2]
    return thresholds


def _integer_of(quantization: Quantization, value: float) -> int:
    quotient = np.float32(value) / quantization.scale[0]
    return quantization.zero_point + int(math.copysign(math.floor(abs(float(quotient)) + 0.5), quotient))
