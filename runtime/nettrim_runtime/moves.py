"""Values copied to other places: padding, slices, transposes, nearest pixels, whatever the type."""

from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_runtime.linear import Step
from nettrim_runtime.ops import Move, NearestRule, Pad, ResizeNearest, Slice, Transpose

Array = npt.NDArray[Any]


def move_step(op: Move, source: Array, output: Array, fill: float) -> Step:
    """Prepare output = the source's values in their new places, and ``fill`` where there are none.

    Parameters
    ----------
    source, output : Array
        (batch, ...) of one type.
    """
    match op:
        case Pad():
            return _pad_step(op, source, output, fill)
        case Slice():
            kept = source[(slice(None), *map(slice, op.begin, op.end, op.stride))]
            return lambda: np.copyto(output, kept)
        case Transpose():
            turned = source.transpose(0, *(axis + 1 for axis in op.permutation))
            return lambda: np.copyto(output, turned)
        case ResizeNearest():
            return _resize_step(op, source, output)
        case _:
            assert_never(op)


def nearest_pixels(size: int, new_size: int, rule: NearestRule) -> Array:
    """Return (new_size,) int64: the pixel that each pixel along one axis of a resized image copies.

    float32, as GetNearestNeighbor in tensorflow/lite/kernels/internal/reference/resize_nearest_neighbor.h.
    """
    pixels = np.arange(new_size).astype(np.float32)
    if rule is NearestRule.ALIGN_CORNERS and new_size > 1:
        corners = pixels * (np.float32(size - 1) / np.float32(new_size - 1))
        nearest = np.floor(corners.astype(np.float64) + 0.5)
    else:
        scale = np.float32(size) / np.float32(new_size)
        offset = np.float32(0.5 if rule is NearestRule.HALF_PIXEL_CENTERS else 0.0)
        nearest = np.floor((pixels + offset) * scale)
    return np.minimum(nearest.astype(np.int64), size - 1)


def move_sources(op: Move, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Array:
    """Return int64 of the new shape: the place of each value in the flat source, -1 where padding puts zero."""
    places = np.arange(np.prod(shape, dtype=np.int64)).reshape(1, *shape)
    sources = np.empty((1, *new_shape), np.int64)
    move_step(op, places, sources, fill=-1)()
    moved: Array = sources[0]
    return moved


def _pad_step(op: Pad, source: Array, output: Array, fill: float) -> Step:
    sizes = zip(op.before, source.shape[1:], strict=True)
    inside = output[(slice(None), *(slice(first, first + size) for first, size in sizes))]

    def run() -> None:
        output[...] = fill
        np.copyto(inside, source)

    return run


def _resize_step(op: ResizeNearest, source: Array, output: Array) -> Step:
    rows, columns = (
        nearest_pixels(size, new_size, op.rule) for size, new_size in zip(source.shape[1:3], op.size, strict=True)
    )
    tall = np.empty((source.shape[0], op.size.height, *source.shape[2:]), source.dtype)

    def run() -> None:
        np.take(source, rows, axis=1, out=tall, mode="clip")
        np.take(tall, columns, axis=2, out=output, mode="clip")

    return run
