"""A float graph to integers: ranges to scales, weights per output channel, biases to int32 or int64.

The arithmetic is fixed in nettrim_runtime.fixed_point; here only scales and zero points are chosen.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.clear_tables import clear_tables
from nettrim.widen import quantization_classes, quantization_families, with_requantizations
from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.fixed_output import fixed_output
from nettrim_runtime.fixed_point import LARGEST_FUNCTION_SCALE, exact_multiplier, largest_accumulators
from nettrim_runtime.graph import INTEGER_ACTIVATIONS, Graph, Quantization, Tensor
from nettrim_runtime.ops import (
    Add,
    Carrier,
    Clamping,
    Conv2d,
    Dense,
    Function,
    Layer,
    LogSoftmax,
    Mul,
    Op,
    PRelu,
    Requantize,
    Softmax,
    Sub,
    UnaryFunction,
    op_inputs,
)

Array = npt.NDArray[Any]
Range = tuple[float, float]

STEPS = {"int8": 255, "int16": 65535}
WEIGHT_LIMIT = 127  # symmetric: -128 is never used, as TFLite's int8 specification asks
WIDE_SCALE_BITS = 14
SMALLEST_WIDE_SCALING = 2.0**-30  # of sums to outputs on int16: what is smaller, TFLite's multipliers take for zero
INT16_STEPS = 32767  # on each side of zero
BIAS_LIMIT = {"int8": 1 << 24, "int16": 1 << 32}  # a bias this large still has more digits than any output
ZERO_ROW_BIAS = {"int8": 1 << 20, "int16": 1 << 28}  # the integer that the bias of a fully pruned row becomes
SCALE_TRIALS = 64  # steps of one unit in the last place of a float32 scale
SMALLEST_SPAN, SPAN_OF_ZERO = 1e-20, 1e-6  # an activation that is always zero still needs a scale
SMALLEST_SOFTMAX_SPAN = 2.0**-18  # a softmax takes scales above 2^-26 only: its multiplier has a whole part
HARD_SWISH_SPAN = 1 / 100  # of its input's: TFLite takes an output scale above 1/128 of the input's
LAYER_SPAN = {"int8": 2.0**-30, "int16": 2.0**-18}  # of its largest summand: sums scale by less than 2^30 and 2^14
# Of the inputs': int32 products, slopes' products and sums are shifted left by fewer bits than they have to spare.
PRODUCT_SPAN = {"int8": 2.0**-20, "int16": 2.0**-11}
SLOPE_SPAN = {"int8": 2.0**-20, "int16": 2.0**-10}
SUM_SPAN = {"int8": 0.0, "int16": 2.0**-12}
REQUANTIZED_SPAN = 2.0**-12
CLAMP_STEP = 2.0**-30  # of a clamp's end
LARGEST_RATIO = 2.0**20  # of an int8 scale to the int16 one that a function reads: the integers stay in int32


def quantize_graph(graph: Graph, ranges: Mapping[str, Range], wide: Collection[str] = ()) -> Graph:
    """Quantise every tensor of a float graph.

    Pools, concatenations, stand-alone activations and reshapes have one quantisation for all they
    touch, so they move integers without rounding (an average rounds once).

    Parameters
    ----------
    ranges : Mapping
        (smallest, largest) value of every activation by name, in real units.
    wide : collection of str
        Activations that become int16, whole classes of `nettrim.widen.widenable`; a `Requantize` stands where they
        meet int8. A class that a softmax, sigmoid or tanh writes stays in int8 where its input's values are too large.

    Returns
    -------
    Graph
        int8 activations and weights, int32 biases; a pruned weight stays zero.

    Raises
    ------
    UnsupportedOperatorError
        As `check_quantize`.
    """
    check_quantize(graph)
    original, chosen = graph, frozenset(wide)
    graph, bases, wide = with_requantizations(graph, chosen)
    ranges = {**ranges, **{name: ranges[base] for name, base in bases.items()}}
    quantizations = _activation_quantizations(graph, ranges, wide)
    beyond = {bases.get(name, name) for name in _out_of_reach(graph, quantizations)}
    if beyond:
        kept = (found for found in quantization_classes(original) if not found & beyond)
        return quantize_graph(original, ranges, chosen & frozenset().union(*kept))
    tensors = {
        name: replace(graph.tensors[name], dtype=_dtype(name, wide), quantization=found)
        for name, found in quantizations.items()
    }
    for layer in graph.layers:
        scales = float(quantizations[layer.input].scale[0]), float(quantizations[layer.output].scale[0])
        weight, bias = quantize_layer(graph, layer, *scales, tensors[layer.input].dtype)
        tensors |= {weight.name: weight, bias.name: bias}
    slopes = [quantize_slope(graph.tensors[op.slope]) for op in graph.ops if isinstance(op, PRelu)]
    tensors |= {slope.name: slope for slope in slopes}
    return replace(graph, tensors=tensors)


def check_quantize(graph: Graph) -> None:
    """Refuse a float graph that int8 cannot hold, before its ranges are known.

    Raises
    ------
    UnsupportedOperatorError
        A concatenation of a softmax or its like, whose output has a scale of its own, with anything else.
    """
    family = quantization_families(graph)
    fixed = {family[op.output]: op for op in graph.ops if fixed_output(op) is not None}
    others = [op.output for op in graph.ops if family[op.output] in fixed and not isinstance(op, Carrier)]
    for name in (*range_sources(graph), *others):
        op = fixed.get(family[name])
        if op is not None and not _is_fixed_as(graph, name, op):
            raise UnsupportedOperatorError(
                f"{type(op).__name__} {op.name!r}: a concatenation joins its output, whose scale TFLite's int8 fixes, "
                f"with {name!r}, expected outputs of that scale alone; leave the operator out, or join before it"
            )


def _is_fixed_as(graph: Graph, name: str, op: Op) -> bool:
    """Whether what writes a tensor fixes the quantization that an operator fixes."""
    writer = next((each for each in graph.ops if each.output == name), None)
    found, expected = (None if each is None else fixed_output(each) for each in (writer, op))
    return found is not None and expected is not None and found.same_as(expected)


def _activation_quantizations(
    graph: Graph, ranges: Mapping[str, Range], wide: Collection[str]
) -> dict[str, Quantization]:
    """Cover each family's sources, and 0: what carriers make of them lies between."""
    family = quantization_families(graph)
    logits = {family[op.input] for op in graph.ops if isinstance(op, Softmax | LogSoftmax)}
    bounded = {family[name] for op in graph.ops if fixed_output(op) is not None for name in op_inputs(op)}
    covered: dict[str, Range] = {}
    for name in range_sources(graph):
        smallest, largest = covered.get(family[name], ranges[name])
        covered[family[name]] = min(smallest, ranges[name][0]), max(largest, ranges[name][1])
    covered = _with_room(graph, family, covered, wide)

    def covering(first: str, found: Range) -> Quantization:
        if first in wide:
            return centred_quantization(*found, LARGEST_FUNCTION_SCALE if first in bounded else math.inf)
        return quantization_of_range(*found, SMALLEST_SOFTMAX_SPAN if first in logits else SMALLEST_SPAN)

    chosen = {first: covering(first, found) for first, found in covered.items()}
    chosen |= _fixed_outputs(graph, family, wide)
    chosen = clear_tables(graph, family, chosen, wide)
    return {name: chosen[first] for name, first in family.items()}


def _out_of_reach(graph: Graph, quantizations: Mapping[str, Quantization]) -> set[str]:
    """Return outputs of operators on int16 that read int8 of so large a scale that it cannot be requantised."""
    far = [
        op.output
        for op in graph.ops
        if isinstance(op, Requantize)
        and quantizations[op.input].scale[0] > LARGEST_RATIO * quantizations[op.output].scale[0]
    ]
    return {reader.output for name in far for reader in graph.consumers(name)}


def _fixed_outputs(graph: Graph, family: Mapping[str, str], wide: Collection[str]) -> dict[str, Quantization]:
    """Return by family the quantizations that operators fix, also where their outputs are requantised."""
    sources = {family[op.output]: op for op in graph.ops if fixed_output(op) is not None}
    for op in graph.ops:
        if isinstance(op, Requantize) and family[op.input] in sources:
            sources[family[op.output]] = sources[family[op.input]]
    found = ((first, fixed_output(op, _dtype(first, wide))) for first, op in sources.items())
    return {first: quantization for first, quantization in found if quantization is not None}


def _dtype(name: str, wide: Collection[str]) -> str:
    return "int16" if name in wide else "int8"


def _with_room(
    graph: Graph, family: Mapping[str, str], covered: Mapping[str, Range], wide: Collection[str]
) -> dict[str, Range]:
    """Widen the ranges of outputs that are far smaller than their operator's arithmetic has room for."""
    widened = dict(covered)
    fixed = _fixed_outputs(graph, family, wide)

    def span(name: str) -> float:
        found = fixed.get(family[name])
        if found is not None:
            return STEPS[_dtype(name, wide)] * float(found.scale[0])
        smallest, largest = widened[family[name]]
        reached = max(largest, 0.0) - min(smallest, 0.0)
        return reached if reached > SMALLEST_SPAN else SPAN_OF_ZERO

    for op in graph.ops:
        spans, dtype = [span(name) for name in op_inputs(op)], _dtype(op.output, wide)
        least = max(_smallest_span(graph, op, spans, dtype), _smallest_clamped(op, dtype))
        if least > span(op.output) and family[op.output] not in fixed:
            smallest = widened[family[op.output]][0]
            widened[family[op.output]] = smallest, smallest + least
    return widened


def _smallest_span(graph: Graph, op: Op, inputs: Sequence[float], dtype: str) -> float:
    """Return the least range of an operator's output, for inputs of these ranges."""
    if isinstance(op, Dense | Conv2d):
        weight, bias = (float(np.abs(graph.tensors[name].values()).max()) for name in (op.weight, op.bias))
        return max(inputs[0] * weight, bias) * LAYER_SPAN[dtype]
    if isinstance(op, Mul):
        return inputs[0] * inputs[1] * PRODUCT_SPAN[dtype]
    if isinstance(op, Add | Sub):
        return max(inputs) * SUM_SPAN[dtype]
    if isinstance(op, UnaryFunction) and op.function is Function.HARD_SWISH:
        return inputs[0] * HARD_SWISH_SPAN
    if isinstance(op, Requantize):
        return inputs[0] * REQUANTIZED_SPAN
    return inputs[0] * SLOPE_SPAN[dtype] if isinstance(op, UnaryFunction | PRelu) else 0.0


def _smallest_clamped(op: Op, dtype: str) -> float:
    """Return the least range of an output whose clamp, in its steps, stays in int32."""
    if isinstance(op, Clamping) and math.isfinite(op.activation.upper):
        return op.activation.upper * STEPS[dtype] * CLAMP_STEP
    return 0.0


def range_sources(graph: Graph) -> Iterable[str]:
    """Return the activations whose range sets a quantisation: neither carried on nor fixed by their operator."""
    computed = (op for op in graph.ops if not isinstance(op, Carrier) and fixed_output(op) is None)
    return (*graph.inputs, *(op.output for op in computed))


def quantization_of_range(smallest: float, largest: float, smallest_span: float = SMALLEST_SPAN) -> Quantization:
    """Return the int8 scale and zero point that cover a range and hold 0.0 exactly.

    A range shorter than ``smallest_span`` is widened to it, or to 1e-6 if that is more.
    """
    smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    span = largest - smallest if largest - smallest > smallest_span else max(SPAN_OF_ZERO, smallest_span)
    scale = np.float32(span / STEPS["int8"])
    zero_point = int(np.clip(np.rint(-128 - smallest / float(scale)), -128, 127))
    return Quantization(np.array([scale], np.float32), zero_point)


def centred_quantization(smallest: float, largest: float, largest_scale: float = math.inf) -> Quantization:
    """Return the int16 scale that covers a range with zero point 0: a power of two, so that sums scale exactly.

    ``largest_scale`` is one too; what it does not cover saturates.
    """
    span = max(-smallest, largest)
    scale = (span if span > SMALLEST_SPAN else SPAN_OF_ZERO) / INT16_STEPS
    return Quantization(np.minimum(np.exp2(np.ceil(np.log2([scale]))), largest_scale).astype(np.float32), 0)


def quantize_layer(
    graph: Graph, layer: Layer, input_scale: float, output_scale: float, dtype: str = "int8"
) -> tuple[Tensor, Tensor]:
    """Return a layer's weight as int8, one scale an output channel, and its bias as int32, or int64 beside int16."""
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    rows, bias_values = weight.values().reshape(weight.shape[0], -1), bias.values()
    scale = _weight_scales(rows, np.abs(bias_values), (input_scale, output_scale), dtype)
    if isinstance(layer, Dense) and dtype == "int8":
        scale = _settle_scales(rows, bias_values, scale, (input_scale, output_scale))
    integers, bias_integers = _to_integers(rows, bias_values, scale, input_scale)
    return (
        replace(weight, dtype="int8", data=integers.reshape(weight.shape), quantization=Quantization(scale, 0, axis=0)),
        replace(
            bias,
            dtype=INTEGER_ACTIVATIONS[dtype],
            data=bias_integers.astype(INTEGER_ACTIVATIONS[dtype]),
            quantization=Quantization(np.float32(input_scale) * scale, 0, axis=0),
        ),
    )


def quantize_slope(slope: Tensor) -> Tensor:
    """Return the slopes of a PRelu as int8 with one scale and zero point 0."""
    values = slope.values()
    scale = np.array([np.abs(values).max() / WEIGHT_LIMIT or 1], np.float32)
    integers = np.clip(np.rint(values / scale), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return replace(slope, dtype="int8", data=integers, quantization=Quantization(scale))


def _weight_scales(rows: Array, bias_magnitude: Array, scales: tuple[float, float], dtype: str) -> Array:
    """Cover each row's largest weight; widen it where the bias would otherwise grow too large, the scaling to zero."""
    input_scale, output_scale = scales
    largest = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    scale = largest / WEIGHT_LIMIT
    scale = np.maximum(scale, bias_magnitude / (input_scale * BIAS_LIMIT[dtype]))
    alone = bias_magnitude / (input_scale * ZERO_ROW_BIAS[dtype])
    zero_row = np.where(bias_magnitude > 0, alone, output_scale / input_scale)  # nothing to scale: by one
    scale = np.where(largest > 0, scale, zero_row)
    if dtype == "int16":
        scale = np.maximum(scale, SMALLEST_WIDE_SCALING * output_scale / input_scale)
    return (_with_few_digits(scale) if dtype == "int16" else scale).astype(np.float32)


def _with_few_digits(scale: Array) -> Array:
    """Round scales up to `WIDE_SCALE_BITS` binary digits: times any sum, they are exact in float64 and in int64."""
    fraction, exponent = np.frexp(scale)
    rounded: Array = np.ldexp(np.ceil(np.ldexp(fraction, WIDE_SCALE_BITS)), exponent - WIDE_SCALE_BITS)
    return rounded


def _to_integers(rows: Array, bias: Array, scale: Array, input_scale: float) -> tuple[Array, Array]:
    integers = np.clip(np.rint(rows / scale[:, None]), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    bias_scale = (np.float32(input_scale) * scale).astype(np.float64)
    return integers, np.rint(bias.astype(np.float64) / bias_scale).astype(np.int64)


def _settle_scales(rows: Array, bias: Array, scale: Array, scales: tuple[float, float]) -> Array:
    """Move scales in their last digits until an integer multiplier rounds as the reference kernel's double does."""
    input_scale, output_scale = scales
    scale = scale.copy()
    for _ in range(SCALE_TRIALS):
        limits = largest_accumulators(*_to_integers(rows, bias, scale, input_scale))
        real = input_scale * scale.astype(np.float64) / output_scale
        pairs = [exact_multiplier(float(value), int(limit)) for value, limit in zip(real, limits, strict=True)]
        inexact = np.array([pair is None for pair in pairs])
        if not inexact.any():
            break
        scale[inexact] = np.nextafter(scale[inexact], np.float32(np.inf))
    return scale


def with_sparse_weights(graph: Graph, layers: Mapping[str, CsrMatrix]) -> Graph:
    """Return the graph with the named layers' weights stored as compressed rows."""
    return graph.with_tensors(
        replace(graph.tensors[layer.weight], data=layers[layer.name]) for layer in graph.layers if layer.name in layers
    )
