"""Dense layers and convolutions as matrix products into prepared buffers, exact for integers."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.fixed_point import largest_accumulators
from nettrim_runtime.ops import ActivationFunction, Conv2d, Padding, Size2d, window_count

Array = npt.NDArray[Any]
Step = Callable[[], None]

KERNEL_TRIALS = 5  # timed runs of each kernel when a pruned layer chooses between dense and CSR
MOST_PRODUCTS = 1 << 20  # of rows and kept weights: the sparse kernel holds them all, and loses long before
FLOAT32_EXACT = 1 << 24  # integers below this add without rounding in float32


def exact_dtype(weight: Array, bias: Array, dtype: str) -> type[np.floating[Any]]:
    """Return the smaller float type in which a quantised layer's sums are exact integers.

    Parameters
    ----------
    weight : Array
        int8, outputs first.
    bias : Array
        (n_outputs,) int32 or int64.
    dtype : str
        Of the layer's input.
    """
    largest = largest_accumulators(weight, bias, dtype)
    return np.float32 if largest.max(initial=0) < FLOAT32_EXACT else np.float64


def dense_step(inputs: Array, weight: Array, accumulator: Array) -> Step:
    """Prepare accumulator = inputs @ weight.T.

    Parameters
    ----------
    inputs, accumulator : Array
        Buffers (batch, n_inputs) and (batch, n_outputs) of one float type.
    weight : Array
        (n_outputs, n_inputs).
    """
    transposed = np.ascontiguousarray(weight.T.astype(inputs.dtype))

    def run() -> None:
        np.matmul(inputs, transposed, out=accumulator)

    return run


def csr_dense_step(inputs: Array, weight: CsrMatrix, accumulator: Array) -> Step:
    """Prepare accumulator = inputs @ weight.T from the kept weights only; as ``dense_step``."""
    values = weight.data.astype(inputs.dtype)
    columns = weight.indices.astype(np.intp)
    filled, empty = (np.flatnonzero(found) for found in (np.diff(weight.indptr), np.diff(weight.indptr) == 0))
    starts = weight.indptr[filled].astype(np.intp)
    products = np.empty((inputs.shape[0], values.size), inputs.dtype)
    sums = np.empty((inputs.shape[0], filled.size), inputs.dtype)

    def run() -> None:
        accumulator[:, empty] = 0  # reduceat is wrong on empty rows
        if not filled.size:
            return
        np.take(inputs, columns, axis=1, out=products, mode="clip")
        np.multiply(products, values, out=products)
        np.add.reduceat(products, starts, axis=1, out=sums)
        accumulator[:, filled] = sums

    return run


def faster_dense_step(inputs: Array, data: Array | CsrMatrix | None, weight: Array, accumulator: Array) -> Step:
    """Return the kernel that is faster here for this batch size; of integers both give the same."""
    dense = dense_step(inputs, weight, accumulator)
    if not isinstance(data, CsrMatrix) or len(inputs) * data.nnz > MOST_PRODUCTS:
        return dense
    inputs[:] = 1
    return min((dense, csr_dense_step(inputs, data, accumulator)), key=_shortest_seconds)


def _shortest_seconds(step: Step) -> float:
    seconds = []
    for _ in range(KERNEL_TRIALS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def clamp_step(activation: ActivationFunction, source: Array, output: Array) -> Step:
    """Prepare a clamp of floats to an activation's range."""

    def run() -> None:
        np.clip(source, np.float32(activation.lower), np.float32(activation.upper), out=output)

    return run


def windows(image: Array, kernel: Size2d, stride: Size2d, dilation: Size2d) -> Array:
    """Return a view of every window of a batch of images, nothing copied.

    Parameters
    ----------
    image : Array
        (batch, height, width, channels), already padded.

    Returns
    -------
    Array
        (batch, rows, columns, kernel_height, kernel_width, channels).
    """
    batch, height, width, channels = image.shape
    rows = window_count(height, kernel.height, stride.height, dilation.height, 0)
    columns = window_count(width, kernel.width, stride.width, dilation.width, 0)
    by_sample, by_row, by_column, by_channel = image.strides
    return as_strided(
        image,
        shape=(batch, rows, columns, kernel.height, kernel.width, channels),
        strides=(
            by_sample,
            by_row * stride.height,
            by_column * stride.width,
            by_row * dilation.height,
            by_column * dilation.width,
            by_channel,
        ),
        writeable=False,
    )


def padded_buffer(batch: int, shape: tuple[int, ...], padding: Padding, dtype: Any, fill: float) -> tuple[Array, Array]:
    """Return a buffer of padded images and the view of its inside, which a kernel fills before each run."""
    height, width, channels = shape
    full = np.full(
        (batch, height + padding.top + padding.bottom, width + padding.left + padding.right, channels), fill, dtype
    )
    inside = full[:, padding.top : padding.top + height, padding.left : padding.left + width]
    return full, inside


def conv_step(
    op: Conv2d, padded: Array, weight: Array, accumulator: Array, data: Array | CsrMatrix | None = None
) -> Step:
    """Prepare a convolution of padded images, with the kernel that is faster here for this batch size.

    Parameters
    ----------
    padded : Array
        (batch, height, width, channels), zeros around.
    weight : Array
        (n_outputs, kernel_height, kernel_width, channels / groups).
    accumulator : Array
        (batch, rows, columns, n_outputs) of ``padded``'s type.
    data : Array, CsrMatrix or None
        The weight as it is stored; groups are multiplied dense.
    """
    kernel = Size2d(*weight.shape[1:3])
    view = windows(padded, kernel, op.stride, op.dilation)
    if op.groups == padded.shape[3] and weight.shape[3] == 1:
        return _depthwise_step(view, weight, accumulator)
    if op.groups == 1:
        return _group_step(view, weight, accumulator, data)
    steps = []
    for group in range(op.groups):
        channels = slice(group * weight.shape[3], (group + 1) * weight.shape[3])
        outputs = slice(group * weight.shape[0] // op.groups, (group + 1) * weight.shape[0] // op.groups)
        steps.append(_group_step(view[..., channels], weight[outputs], accumulator[..., outputs]))

    def run() -> None:
        for step in steps:
            step()

    return run


def _group_step(view: Array, weight: Array, accumulator: Array, data: Array | CsrMatrix | None = None) -> Step:
    batch, rows, columns = view.shape[:3]
    patches = np.empty((batch * rows * columns, weight[0].size), view.dtype)
    patches_as_view = patches.reshape(view.shape)
    product = np.empty((patches.shape[0], weight.shape[0]), view.dtype)
    product_as_image = product.reshape(batch, rows, columns, -1)
    multiply = faster_dense_step(patches, data, weight.reshape(weight.shape[0], -1), product)

    def run() -> None:
        np.copyto(patches_as_view, view)
        multiply()
        np.copyto(accumulator, product_as_image)

    return run


def _depthwise_step(view: Array, weight: Array, accumulator: Array) -> Step:
    batch, rows, columns, height, width, channels = view.shape
    per_channel = weight.shape[0] // channels
    taps = np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0).astype(view.dtype))
    taps = taps.reshape(height * width, channels, per_channel)
    sums = accumulator.reshape(batch, rows, columns, channels, per_channel)
    product = np.empty_like(sums)
    pixels = [view[:, :, :, row, column, :, None] for row in range(height) for column in range(width)]

    def run() -> None:
        sums[:] = 0
        for pixel, tap in zip(pixels, taps, strict=True):
            np.multiply(pixel, tap, out=product)
            np.add(sums, product, out=sums)

    return run
