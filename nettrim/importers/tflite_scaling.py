"""scale * x + offset in a .tflite network: a depthwise 1x1 convolution on channels, or on every value."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim_runtime.ops import ActivationFunction, Conv2d

Array = npt.NDArray[Any]


def add_scaling(
    conversion: Conversion,
    title: str,
    tensor: str,
    scale: Array,
    offset: Array,
    *,
    activation: ActivationFunction = ActivationFunction.NONE,
) -> str:
    """Append activation(scale * x + offset) and return it; refuse factors that do not fit the tensor.

    Parameters
    ----------
    scale, offset : Array
        Of one shape, broadcast with the tensor, with or without the batch axis in front.
    """
    builder, shape = conversion.builder, conversion.shape(tensor)
    if scale.ndim == len(shape) + 1 and scale.shape[0] == 1:
        scale, offset = scale[0], offset[0]
    if _makes_channels(scale, shape):
        groups, new_shape = 1, (*shape[:-1], scale.size)
    else:
        scale, offset = _by_group(scale, offset, shape)
        groups, new_shape = scale.size, shape
    is_image = len(shape) == 3 and shape[-1] == groups
    image = builder.reshape(tensor, shape if is_image else (1, math.prod(shape) // groups, groups))
    weight = builder.add_constant(f"{title}.weight", scale.reshape(-1, 1, 1, 1))
    bias = builder.add_constant(f"{title}.bias", offset.reshape(-1))
    names = builder.op_name(title), image, weight, bias, builder.tensor_name(title)
    return builder.reshape(builder.add(Conv2d(*names, groups=groups, activation=activation)), new_shape)


def _makes_channels(scale: Array, shape: tuple[int, ...]) -> bool:
    """Whether one channel becomes several, a factor each."""
    return shape[-1:] == (1,) and 0 < scale.ndim <= len(shape) and scale.shape[-1] == scale.size > 1


def _by_group(scale: Array, offset: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return a factor and an offset for each channel, or for each value where pixels have their own."""
    try:
        parts = [np.broadcast_to(part, shape).reshape(-1, (shape or (1,))[-1]) for part in (scale, offset)]
    except ValueError:
        refuse(f"a constant of shape {scale.shape} with an input of shape {shape}, expected one that fits into it")
    is_by_channel = all((part == part[:1]).all() for part in parts)
    first, second = (part[0] if is_by_channel else part.reshape(-1) for part in parts)
    return first, second
