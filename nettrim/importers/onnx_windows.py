"""ONNX nodes that slide a window without weights: pooling and means over images; how nodes ask for padding."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value, is_straight
from nettrim.importers.onnx_node import Node, axis_place, read_integers, refuse
from nettrim.importers.onnx_transposes import natural_order
from nettrim.importers.window_limits import LARGEST_PADDING, LARGEST_STEP
from nettrim_runtime.ops import (
    NO_PADDING,
    UNIT,
    Activation,
    AveragePool2d,
    MaxPool2d,
    Mean,
    Padding,
    Size2d,
    same_padding,
    window_count,
)

Array = npt.NDArray[Any]


def convert_max_pool(node: Node, conversion: Conversion) -> None:
    """MaxPool of one or two dimensions; zeros before it that cannot win are its padding."""
    value = conversion.padded_value(node)
    kernel_size, stride = _read_pool(node, value)
    padding = read_padding(node, image_shape(value), kernel_size, stride, UNIT)
    if padding == NO_PADDING and _absorbs_zeros(conversion, value, kernel_size):
        padding = value.padding
    else:
        value = conversion.value(node)
        padding = read_padding(node, image_shape(value), kernel_size, stride, UNIT)
    image = conversion.image(node, value)
    _refuse_ceil_mode(node, image_shape(value), kernel_size, stride, padding)
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    op = MaxPool2d(name, image, output, kernel_size, stride, padding)
    conversion.put_image(node, conversion.builder.add(op), len(value.shape))


def convert_average_pool(node: Node, conversion: Conversion) -> None:
    """AveragePool of one or two dimensions: padding that counts is written before it, else it is TFLite's SAME."""
    value = conversion.value(node)
    kernel_size, stride = _read_pool(node, value)
    shape = image_shape(value)
    padding = read_padding(node, shape, kernel_size, stride, UNIT)
    _refuse_ceil_mode(node, shape, kernel_size, stride, padding)
    if padding != NO_PADDING and node.integer("count_include_pad", 0):
        ends = ((0, 0), (padding.top, padding.bottom), (padding.left, padding.right))
        value, padding = conversion.pad(node, value, ends[:1] + ends[1 - len(value.shape) :], node.name), NO_PADDING
    image = conversion.image(node, value)
    _, height, width = shape
    same = Padding(
        *same_padding(height, kernel_size.height, stride.height, 1),
        *same_padding(width, kernel_size.width, stride.width, 1),
    )
    if padding not in {NO_PADDING, same}:
        refuse(node, f"padding {tuple(padding)} (top, bottom, left, right), expected none or {tuple(same)} (SAME)")
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    op = AveragePool2d(name, image, output, kernel_size, stride, padding)
    conversion.put_image(node, conversion.builder.add(op), len(value.shape))


def convert_global_pool(node: Node, conversion: Conversion) -> None:
    """GlobalAveragePool and GlobalMaxPool of images and sequences."""
    value = conversion.value(node)
    image = conversion.image(node, value)
    pooled = _pool_all(node, conversion, image)
    conversion.put(node, pooled, np.arange(value.shape[0]).reshape(-1, *[1] * (len(value.shape) - 1)))


def convert_reduce_mean(node: Node, conversion: Conversion) -> None:
    """ReduceMean over axes after the batch: a pool where all but the channels go, else a mean."""
    axes = node.attributes.get("axes")
    if axes is None and node.opset >= 18:
        axes = conversion.optional_constant(node, 1, "axes")
    keeps_axes = bool(node.integer("keepdims", 1))
    value = conversion.value(node)
    rank = len(value.shape) + 1
    if axes is None or np.size(axes) == 0:
        refuse(node, "a mean over all axes, expected axes after the batch")
    reduced = sorted({axis_place(node, axis, rank) for axis in read_integers(node, axes)})
    kept = [axis for axis in range(1, rank) if axis not in reduced]
    if 0 in reduced:
        refuse(node, f"a mean over the axes {reduced}, which takes in the batch")
    shape = [1 if axis in reduced else value.shape[axis - 1] for axis in range(1, rank) if keeps_axes or axis in kept]
    order = [axis - 1 for axis in (*reduced, *kept)]
    if not kept or not is_straight(value.positions.transpose(order)):
        _add_mean(node, conversion, value, [axis - 1 for axis in reduced], shape)
        return
    sizes = [value.shape[axis - 1] for axis in reduced]
    n_kept = value.positions.size // int(np.prod(sizes))
    image = conversion.builder.reshape(value.tensor, (sizes[0], int(np.prod(sizes[1:])), n_kept))
    pooled = _pool_all(node, conversion, image)
    conversion.put(node, pooled, np.arange(n_kept).reshape(shape))


def _add_mean(node: Node, conversion: Conversion, value: Value, axes: list[int], shape: list[int]) -> None:
    builder, order = conversion.builder, natural_order(value.positions)
    tensor = conversion.arrange(node, value, order)
    places = tuple(sorted(order.index(axis) for axis in axes))
    output = builder.add(Mean(builder.op_name(node.name), tensor, builder.tensor_name(node.outputs[0]), places))
    conversion.put(node, output, conversion.ordered_positions(output, order).reshape(shape))


def image_shape(value: Value) -> tuple[int, ...]:
    """Return (channels, height, width) of an activation; a sequence is an image of height 1."""
    return value.shape if len(value.shape) == 3 else (value.shape[0], 1, *value.shape[1:])


def read_padding(node: Node, shape: tuple[int, ...], kernel_size: Size2d, stride: Size2d, dilation: Size2d) -> Padding:
    """Return the padding that `pads` or `auto_pad` of a node ask for.

    Parameters
    ----------
    shape : tuple of int
        (channels, height, width) of the node's input.
    """
    auto_pad = node.text("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return NO_PADDING
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        sides = [same_padding(*axis) for axis in zip(shape[1:], kernel_size, stride, dilation, strict=True)]
        (top, bottom), (left, right) = (side if auto_pad == "SAME_UPPER" else side[::-1] for side in sides)
        return Padding(top, bottom, left, right)
    if auto_pad not in {"NOTSET", ""}:
        refuse(node, f"auto_pad {auto_pad!r}, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    pads = node.attributes.get("pads", ())
    top, left, bottom, right = (0, pads[0], 0, pads[1]) if len(pads) == 2 else node.integers("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0 or max(top, left, bottom, right) > LARGEST_PADDING:
        refuse(node, f"pads {(top, left, bottom, right)}, expected 0 to {LARGEST_PADDING}")
    return Padding(top, bottom, left, right)


def read_size(node: Node, name: str) -> Size2d:
    """Return strides or dilations of a node, one by one unless given; a single one is that along a sequence."""
    entries = node.attributes.get(name, UNIT)
    size = Size2d(1, int(entries[0])) if len(entries) == 1 else Size2d(*node.integers(name, UNIT))
    if min(size) < 1 or max(size) > LARGEST_STEP:
        refuse(node, f"{name} {tuple(size)}, expected 1 to {LARGEST_STEP}")
    return size


def _read_pool(node: Node, value: Value) -> tuple[Size2d, Size2d]:
    sizes = node.attributes.get("kernel_shape", ())
    if len(sizes) not in {1, 2} or len(sizes) != len(value.shape) - 1:
        refuse(node, f"kernel_shape {list(sizes)} on {('batch', *value.shape)}, expected one or two sizes")
    kernel_size = read_size(node, "kernel_shape")
    if read_size(node, "dilations") != UNIT:
        refuse(node, "it has dilations, expected none")
    return kernel_size, read_size(node, "strides")


def _absorbs_zeros(conversion: Conversion, value: Value, kernel_size: Size2d) -> bool:
    """Whether zeros around an image can be padding of a max-pool: a zero never wins over what a ReLU gives."""
    source, zeros = conversion.builder.producer(value.tensor), value.padding
    is_small = max(zeros.top, zeros.bottom) < kernel_size.height and max(zeros.left, zeros.right) < kernel_size.width
    return isinstance(source, Activation) and source.activation.lower >= 0 and is_small


def _refuse_ceil_mode(
    node: Node, shape: tuple[int, ...], kernel_size: Size2d, stride: Size2d, padding: Padding
) -> None:
    if not node.integer("ceil_mode", 0):
        return
    added = (padding.top + padding.bottom, padding.left + padding.right)
    for size, kernel, step, total in zip(shape[1:], kernel_size, stride, added, strict=True):
        covered = (window_count(size, kernel, step, 1, total) - 1) * step + kernel
        if covered != size + total:
            refuse(node, "ceil_mode with windows that reach past the image, expected ceil_mode=0")


def _pool_all(node: Node, conversion: Conversion, image: str) -> str:
    height, width, _ = conversion.builder.tensors[image].shape
    size = Size2d(height, width)
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    pool = MaxPool2d if node.op_type == "GlobalMaxPool" else AveragePool2d
    return conversion.builder.add(pool(name, image, output, size, size))
