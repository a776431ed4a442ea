"""A transposed convolution as a convolution of stride 1 that gives every pixel's stride x stride outputs at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.ops import Padding, Size2d

Array = npt.NDArray[Any]

MOST_VALUES = 1 << 24  # of the filters with their zeros written out, and of the output: far above what boards hold


@dataclass(frozen=True, eq=False)
class SubPixelConvolution:
    """What computes the same: a convolution, its outputs put side by side as pixels, and a part of that image.

    The sums are the same, term by term, so quantised ones are too.

    Attributes
    ----------
    weight : Array
        (stride.height * stride.width * n_outputs, kernel_height, kernel_width, n_channels / groups); the phases of a
        pixel come before its channels, behind them where each channel is a group.
    padding : Padding
        Of the convolution.
    begin : tuple of int
        (top, left) of the wanted part.
    """

    weight: Array
    padding: Padding
    begin: tuple[int, int]


def sub_pixel_convolution(
    weight: Array, stride: Size2d, before: tuple[int, int], sizes: tuple[Size2d, Size2d], *, by_channel: bool = False
) -> SubPixelConvolution:
    """Return the convolution that computes a transposed one.

    Pixel i of the input adds weight[k] to pixel i * stride + k - before of the output, so output q * stride + r -
    before is the sum of weight[j * stride + r] * input[q - j]: phase r has its own kernel, every stride-th weight,
    reversed.

    Parameters
    ----------
    weight : Array
        (n_outputs, kernel_height, kernel_width, n_channels / groups), dilation written out.
    before : tuple of int
        Rows and columns that are cut off in front.
    sizes : tuple of Size2d
        Of the input and of the output; pixels that no input reaches are bias alone.
    by_channel : bool
        Whether each channel is a group.
    """
    n_outputs, *kernel, channels = weight.shape
    taps = [-(-length // step) for length, step in zip(kernel, stride, strict=True)]
    filled = np.zeros((n_outputs, taps[0] * stride.height, taps[1] * stride.width, channels), weight.dtype)
    filled[:, : kernel[0], : kernel[1]] = weight
    phases = filled.reshape(n_outputs, taps[0], stride.height, taps[1], stride.width, channels)[:, ::-1, :, ::-1]
    order = (0, 2, 4, 1, 3, 5) if by_channel else (2, 4, 0, 1, 3, 5)
    rows, columns = (_pad_and_begin(*axis) for axis in zip(taps, stride, before, *sizes, strict=True))
    return SubPixelConvolution(
        phases.transpose(order).reshape(-1, *taps, channels), Padding(*rows[:2], *columns[:2]), (rows[2], columns[2])
    )


def filled_size(n_images: int, size: Size2d, stride: Size2d) -> int:
    """Return how many values images have once they are filled up to a multiple of the stride."""
    height, width = (-(-length // step) * step for length, step in zip(size, stride, strict=True))
    return n_images * height * width


def _pad_and_begin(taps: int, stride: int, before: int, size: int, new_size: int) -> tuple[int, int, int]:
    """Return the padding before and after one axis, and where the wanted outputs begin."""
    first = min(before // stride, taps - 1)  # the pixel that the first window ends at
    last = (new_size - 1 + before) // stride
    return taps - 1 - first, max(0, last - (size - 1)), before - first * stride
