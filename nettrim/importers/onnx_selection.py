"""ONNX Slice and Pad of images: a Conv takes the padding in, a 1x1 convolution keeps pixels and adds channels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.graph_builder import GraphBuilder
from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, refuse
from nettrim.importers.onnx_windows import LARGEST_PADDING, LARGEST_STEP
from nettrim_runtime.ops import NO_PADDING, UNIT, Conv2d, Padding, Size2d

Array = npt.NDArray[Any]

LARGEST_SELECTION = 1 << 22  # weights of the 1x1 convolution: 2048 by 2048 channels
SLICED = "supported: every row and column of images, or every n-th from 0 to the end"
PADDED = "supported: zeros around the height and width of images, or before and after their channels"


def convert_slice(node: Node, conversion: Conversion) -> None:
    """Slice that keeps every n-th row and column of images, counted from the first, or everything."""
    value = conversion.value(node)
    steps = [1] * (len(value.shape) + 1)
    for axis, bounds in _read_slices(node, conversion, len(steps)).items():
        size = value.shape[axis - 1] if axis else LARGEST_STEP  # the batch is never as large
        if bounds.step < 1 or slice(bounds.start, bounds.stop).indices(size) != (0, size, 1):
            refuse(node, f"it takes {bounds.start}:{bounds.stop}:{bounds.step} along axis {axis}; {SLICED}")
        steps[axis] = bounds.step
    if max(steps) == 1:
        conversion.put_view(node, value, value.positions)
    elif len(steps) == 4 and max(steps[:2]) == 1:
        _add_selection(node, conversion, value, stride=Size2d(*steps[2:]))
    else:
        refuse(node, f"it takes steps {steps} along the axes of {('batch', *value.shape)}; {SLICED}")


def convert_pad(node: Node, conversion: Conversion) -> None:
    """Pad with zeros: around images, for the Conv that follows, or before and after their channels."""
    sizes = _read_pads(node, conversion)
    value = conversion.padded_value(node)
    if len(value.shape) != 3:
        refuse(node, f"its input has shape {value.shape}, expected (channels, height, width)")
    if sizes[1] or sizes[5]:
        _add_selection(node, conversion, conversion.value(node), channels=(sizes[1], sizes[5]))
        return
    before, added = value.padding, Padding(sizes[2], sizes[6], sizes[3], sizes[7])
    padding = Padding(*(first + second for first, second in zip(before, added, strict=True)))
    conversion.put_padded(node, value, padding)


def _read_slices(node: Node, conversion: Conversion, rank: int) -> dict[int, slice]:
    """Return start, stop and step by axis, the batch counting as axis 0."""
    parts: dict[str, Any] = {name: node.attributes.get(name) for name in ("starts", "ends", "axes")}
    if node.opset >= 10:
        inputs = enumerate(("starts", "ends", "axes", "steps"), start=1)
        parts = {name: conversion.optional_constant(node, index, name) for index, name in inputs}
    starts, ends = ([int(entry) for entry in np.ravel(() if each is None else each)] for each in _bounds(parts))
    axes = range(len(starts)) if parts["axes"] is None else [int(axis) for axis in np.ravel(parts["axes"])]
    steps = [1] * len(starts) if parts.get("steps") is None else [int(step) for step in np.ravel(parts["steps"])]
    if not len(starts) == len(ends) == len(axes) == len(steps):
        refuse(node, f"starts {starts}, ends {ends}, axes {list(axes)}, steps {steps}: expected equally many of each")
    slices = {axis % rank: slice(*bounds) for axis, *bounds in zip(axes, starts, ends, steps, strict=True)}
    if len(slices) != len(axes) or any(not -rank <= axis < rank for axis in axes):
        refuse(node, f"axes {list(axes)} of an input with {rank} axes, expected different ones of them")
    return slices


def _bounds(parts: dict[str, Any]) -> tuple[Any, Any]:
    return parts["starts"], parts["ends"]
