"""Clamps to any bounds by those that TFLite has, between two scalings."""

import math

from nettrim_runtime.ops import ActivationFunction


def known_clamp(lower: float, upper: float) -> ActivationFunction | None:
    """Return the function that clamps to these bounds, None if there is none."""
    return next((each for each in ActivationFunction if (each.lower, each.upper) == (lower, upper)), None)


def scaled_clamp(lower: float, upper: float) -> tuple[ActivationFunction, float, float]:
    """Return (function, scale, offset) with clamp(x) = (function(scale * x + offset) - offset) / scale."""
    if upper == math.inf:
        return ActivationFunction.RELU, 1.0, -lower
    if lower == -math.inf:
        return ActivationFunction.RELU, -1.0, upper
    scale = ActivationFunction.RELU6.upper / (upper - lower)
    return ActivationFunction.RELU6, scale, -lower * scale
