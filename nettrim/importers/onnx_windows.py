"""ONNX nodes that slide a window without weights: pooling and means over images; how nodes ask for padding."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value, is_straight
from nettrim.importers.onnx_node import Node, refuse
from nettrim_runtime.ops import (
    NO_PADDING,
    UNIT,
    Activation,
    AveragePool2d,
    MaxPool2d,
    Padding,
    Size2d,
    same_padding,
    window_count,
)

Array = npt.NDArray[Any]

LARGEST_STEP = 1 << 15  # of filters, strides and dilations: what 16-bit fields of boards' kernels hold
LARGEST_PADDING = 1 << 10  # far above any filter, and a padded image still fits the memory


def convert_max_pool(node: Node, conversion: Conversion) -> None:
    """MaxPool of two dimensions."""
    kernel_size, stride = _read_pool(node)
    value = conversion.padded_value(node)
    image = conversion.image(node, value)
    padding = read_padding(node, value.shape, kernel_size, stride, UNIT)
    if value.padding != NO_PADDING:
        padding = _absorb_zeros(node, conversion, value, kernel_size, padding)
    _refuse_ceil_mode(node, value, kernel_size, stride, padding)
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    op = MaxPool2d(name, image, output, kernel_size, stride, padding)
    conversion.put_image(node, conversion.builder.add(op))


def convert_average_pool(node: Node, conversion: Conversion) -> None:
    """AveragePool of two dimensions whose padding TFLite's SAME or VALID can express."""
    kernel_size, stride = _read_pool(node)
    value = conversion.value(node)
    image = conversion.image(node, value)
    padding = read_padding(node, value.shape, kernel_size, stride, UNIT)
    _refuse_ceil_mode(node, value, kernel_size, stride, padding)
    if padding != NO_PADDING and node.integer("count_include_pad", 0):
        refuse(node, "count_include_pad with padding, expected the mean over the pixels that are there")
    _, height, width = value.shape
    same = Padding(
        *same_padding(height, kernel_size.height, stride.height, 1),
        *same_padding(width, kernel_size.width, stride.width, 1),
    )
    if padding not in {NO_PADDING, same}:
        refuse(node, f"padding {tuple(padding)} (top, bottom, left, right), expected none or {tuple(same)} (SAME)")
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    op = AveragePool2d(name, image, output, kernel_size, stride, padding)
    conversion.put_image(node, conversion.builder.add(op))


def convert_global_pool(node: Node, conversion: Conversion) -> None:
    """GlobalAveragePool and GlobalMaxPool of images."""
    value = conversion.value(node)
    image = conversion.image(node, value)
    pooled = _pool_all(node, conversion, image)
    conversion.put(node, pooled, np.arange(value.shape[0]).reshape(-1, 1, 1))


def convert_reduce_mean(node: Node, conversion: Conversion) -> None:
    """ReduceMean over everything but the channels."""
    axes = node.attributes.get("axes")
    if axes is None and node.opset >= 18:
        axes = conversion.optional_constant(node, 1, "axes")
    keeps_axes = bool(node.integer("keepdims", 1))
    value = conversion.value(node)
    rank = len(value.shape) + 1
    if axes is None or np.size(axes) == 0:
        refuse(node, "a mean over all axes, expected the height and width of images")
    reduced = sorted({int(axis) % rank for axis in np.ravel(axes)})
    kept = [axis for axis in range(1, rank) if axis not in reduced]
    if 0 in reduced or not kept:
        refuse(node, f"a mean over the axes {reduced}, expected the height and width of images")
    order = [axis - 1 for axis in (*reduced, *kept)]
    if not is_straight(value.positions.transpose(order)):
        refuse(node, f"a mean over the axes {reduced} of {value.shape}, expected the height and width of images")
    sizes = [value.shape[axis - 1] for axis in reduced]
    n_kept = value.positions.size // int(np.prod(sizes))
    image = conversion.builder.reshape(value.tensor, (sizes[0], int(np.prod(sizes[1:])), n_kept))
    pooled = _pool_all(node, conversion, image)
    shape = [1 if axis in reduced else value.shape[axis - 1] for axis in range(1, rank) if keeps_axes or axis in kept]
    conversion.put(node, pooled, np.arange(n_kept).reshape(shape))


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
    top, left, bottom, right = node.integers("pads", (0, 0, 0, 0))
    if min(top, left, bottom, right) < 0 or max(top, left, bottom, right) > LARGEST_PADDING:
        refuse(node, f"pads {(top, left, bottom, right)}, expected 0 to {LARGEST_PADDING}")
    return Padding(top, bottom, left, right)


def read_size(node: Node, name: str) -> Size2d:
    """Return strides or dilations of a node, one by one unless given."""
    size = Size2d(*node.integers(name, UNIT))
    if min(size) < 1 or max(size) > LARGEST_STEP:
        refuse(node, f"{name} {tuple(size)}, expected 1 to {LARGEST_STEP}")
    return size


def _read_pool(node: Node) -> tuple[Size2d, Size2d]:
    if "kernel_shape" not in node.attributes:
        refuse(node, "it has no kernel_shape")
    kernel_size = read_size(node, "kernel_shape")
    if read_size(node, "dilations") != UNIT:
        refuse(node, "it has dilations, expected none")
    return kernel_size, read_size(node, "strides")


def _absorb_zeros(node: Node, conversion: Conversion, value: Value, kernel_size: Size2d, padding: Padding) -> Padding:
    """Return the zeros around an image as padding of a max-pool: a zero never wins over what a ReLU gives."""
    source, zeros = conversion.builder.producer(value.tensor), value.padding
    if not isinstance(source, Activation) or source.activation.lower < 0:
        refuse(node, "a Pad node comes before it and no ReLU before that: its zeros could be the largest values")
    is_small = max(zeros.top, zeros.bottom) < kernel_size.height and max(zeros.left, zeros.right) < kernel_size.width
    if padding != NO_PADDING or not is_small:
        refuse(node, "a Pad node comes before it, expected less than a window, and no padding of its own")
    return zeros


def _refuse_ceil_mode(node: Node, value: Value, kernel_size: Size2d, stride: Size2d, padding: Padding) -> None:
    if not node.integer("ceil_mode", 0):
        return
    added = (padding.top + padding.bottom, padding.left + padding.right)
    for size, kernel, step, total in zip(value.shape[1:], kernel_size, stride, added, strict=True):
        covered = (window_count(size, kernel, step, 1, total) - 1) * step + kernel
        if covered != size + total:
            refuse(node, "ceil_mode with windows that reach past the image, expected ceil_mode=0")


def _pool_all(node: Node, conversion: Conversion, image: str) -> str:
    height, width, _ = conversion.builder.tensors[image].shape
    size = Size2d(height, width)
    name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
    pool = MaxPool2d if node.op_type == "GlobalMaxPool" else AveragePool2d
    return conversion.builder.add(pool(name, image, output, size, size))
