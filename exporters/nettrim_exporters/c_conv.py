"""The geometry of a convolution in C: the padded image it reads, and the steps of its windows in values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Conv2d

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ConvImage:
    """The image that the windows of a convolution lie in: its input, or a padded copy of what they read of it.

    Attributes
    ----------
    height, width, channels : int
        Of the image, in pixels.
    copied_height, copied_width : int
        Pixels of the input that are copied into it, at (top, left).
    """

    height: int
    width: int
    channels: int
    copied_height: int
    copied_width: int
    top: int
    left: int
    is_padded: bool

    @property
    def row(self) -> int:
        """Values from one row to the next."""
        return self.width * self.channels

    @property
    def size(self) -> int:
        """Values of the image."""
        return self.height * self.row


def conv_image(graph: Graph, op: Conv2d) -> ConvImage:
    """Return the image that a convolution reads: rows and columns that no window reaches are left out of a copy."""
    height, width, channels = graph.tensors[op.input].shape
    out_height, out_width, _ = graph.tensors[op.output].shape
    _, kernel_height, kernel_width, _ = graph.tensors[op.weight].shape
    read_height = (out_height - 1) * op.stride.height + (kernel_height - 1) * op.dilation.height + 1
    read_width = (out_width - 1) * op.stride.width + (kernel_width - 1) * op.dilation.width + 1
    top, left = op.padding.top, op.padding.left
    if top == 0 and left == 0 and read_height <= height and read_width <= width:
        return ConvImage(height, width, channels, height, width, 0, 0, is_padded=False)
    copied_height = max(0, min(height, read_height - top))
    copied_width = max(0, min(width, read_width - left))
    return ConvImage(read_height, read_width, channels, copied_height, copied_width, top, left, is_padded=True)


def window_offsets(graph: Graph, op: Conv2d, matrix: CsrMatrix) -> Array:
    """Return where each kept weight finds its input: int64 (nnz,), values from a window's first pixel.

    Parameters
    ----------
    matrix : CsrMatrix
        (n_outputs, kernel_height * kernel_width * n_channels / groups).
    """
    n_outputs, *window_shape = graph.tensors[op.weight].shape
    image = conv_image(graph, op)
    row, column, channel = np.unravel_index(matrix.indices.astype(np.intp), tuple(window_shape))
    outputs = np.repeat(np.arange(n_outputs), np.diff(matrix.indptr))
    group = outputs // (n_outputs // op.groups)
    offsets: Array = (
        row * op.dilation.height * image.row
        + column * op.dilation.width * image.channels
        + group * window_shape[2]
        + channel
    )
    return offsets
