"""Operators of a .tflite file that cut values off: RELU and its kin, MINIMUM and MAXIMUM with a constant."""

import math

import numpy as np

from nettrim.importers.clamps import known_clamp, scaled_clamp
from nettrim.importers.tflite_conversion import Clamp, Conversion, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_scaling import add_scaling
from nettrim_runtime.ops import ActivationFunction, Clamping

CLAMPS = {
    "RELU": ActivationFunction.RELU,
    "RELU6": ActivationFunction.RELU6,
    "RELU_N1_TO_1": ActivationFunction.RELU_N1_TO_1,
}


def convert_clamp(operator: FileOperator, conversion: Conversion) -> None:
    """RELU, RELU6 and RELU_N1_TO_1, which rescale integers where the scales differ."""
    tensor = conversion.requantized(operator, conversion.value(operator))
    conversion.put_carried(operator, (tensor,), conversion.activated(operator, tensor, CLAMPS[operator.op_type]))


def convert_bounds(operator: FileOperator, conversion: Conversion) -> None:
    """RELU_0_TO_1, MINIMUM and MAXIMUM with one number; a lower and an upper bound in a row are one clamp."""
    place, bounds = _read_bounds(operator, conversion)
    tensor = conversion.value(operator, place)
    found = _clamp_of(conversion, tensor)
    lower, upper = max(found.lower, bounds[0]), min(found.upper, bounds[1])
    if not lower < upper:
        refuse(f"it leaves {lower} to {upper}, expected the smaller bound first")
    if tensor in conversion.integers:
        conversion.objections.append(f"{operator.op_type} {operator.name!r} has bounds of its own")
    clamped = _clamped(operator, conversion, Clamp(found.source, lower, upper))
    conversion.clamps[clamped] = Clamp(found.source, lower, upper)
    conversion.put(operator, clamped)


def _read_bounds(operator: FileOperator, conversion: Conversion) -> tuple[int, tuple[float, float]]:
    """Return the activation's place among the inputs, and what is let through."""
    if operator.op_type == "RELU_0_TO_1":
        return 0, (0.0, 1.0)
    place = 1 if conversion.is_constant(operator, 0) else 0
    constant = conversion.constant(operator, 1 - place, "bound")
    if constant.numbers.size != 1 or not np.isfinite(constant.values()).all():
        refuse(f"bounds of shape {constant.numbers.shape}, expected one finite number")
    bound = float(constant.values().reshape(-1)[0])
    return place, (bound, math.inf) if operator.op_type == "MAXIMUM" else (-math.inf, bound)


def _clamp_of(conversion: Conversion, tensor: str) -> Clamp:
    """Return what a tensor is a clamp of: of itself, if of nothing else."""
    if tensor in conversion.clamps:
        return conversion.clamps[tensor]
    producer = conversion.builder.producer(tensor)
    function = producer.activation if isinstance(producer, Clamping) else ActivationFunction.NONE
    return Clamp(tensor, function.lower, function.upper)


def _clamped(operator: FileOperator, conversion: Conversion, clamp: Clamp) -> str:
    """Return a tensor cut off at any bounds: a clamp of TFLite's, between scalings where it has none."""
    known = known_clamp(clamp.lower, clamp.upper)
    if known is not None:
        return conversion.activated(operator, clamp.source, known)
    function, scale, offset = scaled_clamp(clamp.lower, clamp.upper)
    title, factors = operator.name, (np.array(scale), np.array(offset))
    scaled = add_scaling(conversion, f"{title}/clamp", clamp.source, *factors, activation=function)
    return add_scaling(conversion, title, scaled, 1 / factors[0], -factors[1] / factors[0])
