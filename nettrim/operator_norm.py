"""Upper bounds on how much an operator can enlarge the Euclidean distance of two inputs."""

import math
from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.graph import Tensor
from nettrim_runtime.moves import move_sources
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Function,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Mul,
    Op,
    Pad,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
)
from nettrim_runtime.unary import SMALLEST_SQUARE

Array = npt.NDArray[Any]

ROUND_UP = 1 + 1e-9  # above the rounding of a float64 eigenvalue: n * 2^-53 for n up to a million
LARGEST_GRAM = 2048  # rows of a Gram matrix whose largest eigenvalue takes seconds
LARGEST_SPECTRUM = 10**10  # multiply-adds for the eigenvalues of all frequencies of a convolution
STEEPEST: dict[Function, float] = {  # the largest derivative, rounded up
    Function.SIGMOID: 0.25,
    Function.TANH: 1.0,
    Function.HARD_SWISH: 1.5,
    Function.LEAKY_RELU: 1.0,
    Function.GELU: 1.12891,  # at sqrt(2)
    Function.GELU_TANH: 1.129,  # at 1.4179
    Function.RSQRT: SMALLEST_SQUARE**-1.5 / 2,  # no useful bound
}


def lipschitz_bound(op: Op, tensors: Mapping[str, Tensor], weights: Mapping[str, Array]) -> float:
    """Return L with ||op(a) - op(b)||_2 <= L ||a - b||_2 for all a, b.

    Of Add, Sub and Mul it is L for what `carried_by_pair` makes of their inputs. Of Concat, a and b are all its
    inputs together.

    Parameters
    ----------
    tensors : Mapping
        Shapes of the operator's input and output, without the batch axis.
    weights : Mapping
        float64 weights by the name of their Dense or Conv2d, in the graph's layout, and slopes by PRelu. Fused
        clamps are 1-Lipschitz.
    """
    match op:
        case Dense():
            return largest_singular_value(weights[op.name])
        case Conv2d():
            return convolution_norm(op, weights[op.name], tensors[op.input].shape, tensors[op.output].shape)
        case MaxPool2d():  # each entry moves by at most its window's largest move, so a pixel counts once a window
            rows, columns = (axis.coverage() for axis in _axes(op, op.kernel_size, tensors))
            return math.sqrt(rows.max() * columns.max())
        case AveragePool2d():  # a mean squared is at most the mean of squares: a pixel counts 1 / size of its windows
            rows, columns = (axis.coverage(1 / axis.sizes()) for axis in _axes(op, op.kernel_size, tensors))
            return math.sqrt(rows.max() * columns.max()) * ROUND_UP
        case Mean():  # of n values: a mean squared is at most the mean of squares
            return math.sqrt(tensors[op.output].size / tensors[op.input].size) * ROUND_UP
        case ResizeNearest():  # a pixel counts once a copy
            copies = move_sources(op, tensors[op.input].shape, tensors[op.output].shape)
            return math.sqrt(np.bincount(copies.reshape(-1)).max())
        case Add() | Sub() | Mul() | Concat() | Activation() | Reshape() | Softmax() | Requantize():
            return 1.0
        case Pad() | Slice() | Transpose():
            return 1.0
        case UnaryFunction():
            return max(STEEPEST[op.function], op.alpha)
        case LogSoftmax():  # the identity less a mean, whose weights have a norm of at most 1
            return 1 + math.sqrt(tensors[op.input].shape[-1])
        case PRelu():
            return max(1.0, float(np.abs(weights[op.name]).max()))
        case _:
            assert_never(op)


def largest_singular_value(matrix: Array) -> float:
    """Return an upper bound on ||matrix||_2: itself, rounded up, or for a large matrix the least of two norms."""
    if min(matrix.shape) <= LARGEST_GRAM:
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        return math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)) * ROUND_UP
    magnitudes = np.abs(matrix)
    holder = math.sqrt(float(magnitudes.sum(axis=0).max()) * float(magnitudes.sum(axis=1).max()))
    return min(holder, float(np.linalg.norm(matrix))) * ROUND_UP


def convolution_norm(op: Conv2d, weight: Array, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> float:
    """Return an upper bound on the norm of a convolution without its bias: the least of two.

    As a matrix on patches, its norm times that of cutting the patches (a pixel counts once a patch); and on a torus
    that holds every patch the norm is the largest over the frequencies, of which zero padding keeps a part. A stride
    is one after its s x s pixels become channels.

    Parameters
    ----------
    weight : Array
        (n_outputs, kernel_height, kernel_width, n_channels / groups) float64.
    input_shape, output_shape : tuple of int
        (height, width, channels).
    """
    by_group = weight.reshape(op.groups, -1, *weight.shape[1:])
    kernel = weight.shape[1:3]
    axes = _window_axes(op, (kernel[0], kernel[1]), op.dilation, input_shape, output_shape)
    overlap = math.sqrt(axes[0].coverage().max() * axes[1].coverage().max())
    patches = max(largest_singular_value(group.reshape(len(group), -1)) for group in by_group) * overlap
    if overlap == 1:
        return patches  # patches share no pixel: exact
    blocks = _space_to_depth(_dilated(by_group, op.dilation), op.stride)
    torus = (output_shape[0] + blocks.shape[2] - 1, output_shape[1] + blocks.shape[3] - 1)
    return min(patches, _spectral_bound(blocks, torus))


class _Axis:
    """The windows along one axis of an image: which pixels each of them reads."""

    def __init__(self, size: int, windows: int, taps: Array, stride: int, before: int) -> None:
        positions = stride * np.arange(windows)[:, np.newaxis] + taps - before
        self._positions = positions  # (n_windows, n_taps), negative or from size on where they lie in the padding
        self._inside = (positions >= 0) & (positions < size)
        self._size = size

    def sizes(self) -> Array:
        """Return (n_windows,) float64: pixels that each window reads, padding apart; 1 for none."""
        counts: Array = np.maximum(self._inside.sum(axis=1), 1).astype(np.float64)
        return counts

    def coverage(self, weights: Array | None = None) -> Array:
        """Return (size,) float64: the sum, over the windows that read a pixel, of ``weights`` or of 1."""
        counts = np.ones(len(self._positions)) if weights is None else weights
        spread = np.broadcast_to(counts[:, np.newaxis], self._positions.shape)
        covered: Array = np.bincount(self._positions[self._inside], spread[self._inside], minlength=self._size)
        return covered


def _axes(op: MaxPool2d | AveragePool2d, kernel: tuple[int, int], tensors: Mapping[str, Tensor]) -> tuple[_Axis, _Axis]:
    return _window_axes(op, kernel, (1, 1), tensors[op.input].shape, tensors[op.output].shape)


def _window_axes(
    op: Conv2d | MaxPool2d | AveragePool2d,
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
) -> tuple[_Axis, _Axis]:
    before = (op.padding.top, op.padding.left)
    rows, columns = (
        _Axis(input_shape[i], output_shape[i], dilation[i] * np.arange(kernel[i]), op.stride[i], before[i])
        for i in range(2)
    )
    return rows, columns


def _dilated(kernels: Array, dilation: tuple[int, int]) -> Array:
    """Return (groups, n_outputs, height, width, channels) with the zeros between the taps written out."""
    groups, n_outputs, height, width, channels = kernels.shape
    shape = (groups, n_outputs, dilation[0] * (height - 1) + 1, dilation[1] * (width - 1) + 1, channels)
    spread = np.zeros(shape)
    spread[:, :, :: dilation[0], :: dilation[1]] = kernels
    return spread


def _space_to_depth(kernels: Array, stride: tuple[int, int]) -> Array:
    """Return the same convolution at stride 1, of an image whose blocks of ``stride`` pixels became channels."""
    groups, n_outputs, height, width, channels = kernels.shape
    down, right = -(-height // stride[0]), -(-width // stride[1])
    padding = ((0, 0), (0, 0), (0, down * stride[0] - height), (0, right * stride[1] - width), (0, 0))
    split = np.pad(kernels, padding).reshape(groups, n_outputs, down, stride[0], right, stride[1], channels)
    blocks: Array = split.transpose(0, 1, 2, 4, 3, 5, 6).reshape(groups, n_outputs, down, right, -1)
    return blocks


def _spectral_bound(kernels: Array, torus: tuple[int, int]) -> float:
    """Return the norm of a convolution at stride 1 on a torus; infinite where that is too much work."""
    groups, n_outputs, _, _, channels = kernels.shape
    frequencies = groups * torus[0] * (torus[1] // 2 + 1)
    if frequencies * min(n_outputs, channels) ** 2 * max(n_outputs, channels) > LARGEST_SPECTRUM:
        return math.inf
    spectrum = np.fft.rfft2(kernels, torus, axes=(2, 3)).transpose(0, 2, 3, 1, 4)  # (..., n_outputs, channels)
    adjoint = spectrum.conj().swapaxes(-1, -2)
    gram = spectrum @ adjoint if n_outputs <= channels else adjoint @ spectrum
    return math.sqrt(max(float(np.linalg.eigvalsh(gram).max()), 0.0)) * ROUND_UP
