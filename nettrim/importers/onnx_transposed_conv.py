"""ONNX ConvTranspose: a convolution that gives all outputs of each pixel, which are then put side by side."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_layers import layer_title, require_floats
from nettrim.importers.onnx_node import Node, refuse
from nettrim.importers.onnx_windows import image_shape, read_size
from nettrim.importers.sub_pixel import MOST_VALUES, filled_size, sub_pixel_convolution
from nettrim.importers.window_limits import LARGEST_PADDING, LARGEST_STEP
from nettrim_runtime.ops import Conv2d, Size2d, Slice

Array = npt.NDArray[Any]


def convert_conv_transpose(node: Node, conversion: Conversion) -> None:
    """ConvTranspose of one or two dimensions, of one group or with one output for each channel."""
    weight = conversion.constant(node, 1, "weight")
    value = conversion.value(node)
    groups = _check(node, value, weight)
    stride, dilation = read_size(node, "strides"), read_size(node, "dilations")
    weight = weight if weight.ndim == 4 else weight[:, :, np.newaxis]
    size, n_outputs = Size2d(*image_shape(value)[1:]), weight.shape[1] * groups
    kernel = Size2d(*(1 + (length - 1) * step for length, step in zip(weight.shape[2:], dilation, strict=True)))
    before, new_size = _read_new_size(node, size, kernel, stride)
    _check_size(node, len(weight) * weight.shape[1], kernel, stride)
    _check_size(node, n_outputs, Size2d(*(a + b for a, b in zip(before, new_size, strict=True))), stride)
    weight = _dilated(weight, kernel, dilation)
    filters = weight.transpose((1, 2, 3, 0) if groups == 1 else (0, 2, 3, 1))
    found = sub_pixel_convolution(filters, stride, before, (size, new_size), by_channel=groups > 1)
    builder, title = conversion.builder, layer_title(node, "weight")
    bias = conversion.optional_constant(node, 2, "bias")
    offsets = np.zeros(n_outputs) if bias is None else bias
    if offsets.shape != (n_outputs,):
        refuse(node, f"a bias of shape {offsets.shape} for {n_outputs} outputs, expected one for each")
    each = len(found.weight) // n_outputs
    conv = Conv2d(
        builder.op_name(title),
        conversion.image(node, value),
        builder.add_constant(f"{title}.weight", found.weight),
        builder.add_constant(f"{title}.bias", np.repeat(offsets, each) if groups > 1 else np.tile(offsets, each)),
        builder.tensor_name(f"{title}.phases"),
        padding=found.padding,
        groups=groups,
    )
    builder.add(conv)
    conversion.rewrites["transposed convolutions carried over by convolutions whose outputs become pixels"] += 1
    _put_side_by_side(node, conversion, conv, (stride, Size2d(*found.begin), new_size), len(value.shape))


def _put_side_by_side(
    node: Node, conversion: Conversion, conv: Conv2d, geometry: tuple[Size2d, Size2d, Size2d], rank: int
) -> None:
    """Keep a node's output: the outputs of each pixel as stride x stride pixels, from begin on, new size of them."""
    stride, begin, new_size = geometry
    builder = conversion.builder
    height, width, phases = builder.tensors[conv.output].shape
    n_outputs = phases // (stride.height * stride.width)
    places: Array = np.arange(height * width * phases)
    if conv.groups > 1:
        places = places.reshape(height, width, n_outputs, *stride).transpose(0, 3, 1, 4, 2)
    else:
        places = places.reshape(height, width, *stride, n_outputs).transpose(0, 2, 1, 3, 4)
    places = places.reshape(height * stride.height, width * stride.width, n_outputs)
    tensor = builder.reshape(conversion.turn(node, conv.output, places.reshape(-1)), places.shape)
    end = (begin.height + new_size.height, begin.width + new_size.width)
    if (*new_size, n_outputs) != places.shape:
        name, output = builder.op_name(f"{node.name}.part"), builder.tensor_name(node.outputs[0])
        tensor = builder.add(Slice(name, tensor, output, (*begin, 0), (*end, n_outputs), (1, 1, 1)))
    wanted = places[begin.height : end[0], begin.width : end[1]].reshape(-1)
    conversion.origins[tensor] = conv, wanted % phases
    conversion.put_image(node, tensor, rank)


def _check(node: Node, value: Value, weight: Array) -> int:
    """Return the number of groups."""
    require_floats(node, weight)
    if weight.ndim not in {3, 4} or weight.ndim != len(value.shape) + 1 or weight.shape[0] != value.shape[0]:
        refuse(node, f"weights {weight.shape} on {('batch', *value.shape)}, expected one or two dimensions")
    groups = node.integer("group", 1)
    if groups != 1 and (groups, weight.shape[1]) != (weight.shape[0], 1):
        refuse(node, f"{groups} groups of weights {weight.shape}, expected one, or one output for each channel")
    return groups


def _check_size(node: Node, n_images: int, size: Size2d, stride: Size2d) -> None:
    """Refuse images, filled up to a multiple of the stride, that would take much memory."""
    n_values = filled_size(n_images, size, stride)
    if n_values > MOST_VALUES:
        refuse(node, f"{n_values} values of its filters or of its output, expected at most {MOST_VALUES}")


def _dilated(weight: Array, kernel: Size2d, dilation: Size2d) -> Array:
    """Return weights (..., height, width) with the zeros between them written out."""
    spread = np.zeros((*weight.shape[:2], *kernel), weight.dtype)
    spread[:, :, :: dilation.height, :: dilation.width] = weight
    return spread


def _read_new_size(node: Node, size: Size2d, kernel: Size2d, stride: Size2d) -> tuple[tuple[int, int], Size2d]:
    """Return the rows and columns cut off in front, and the size of the output."""
    full = [step * (old - 1) + length for old, length, step in zip(size, kernel, stride, strict=True)]
    extra = _pair(node, "output_padding", 0)
    mode = node.text("auto_pad", "NOTSET")
    given = node.attributes.get("output_shape")
    if given is not None or mode.startswith("SAME"):
        wanted = (
            _pair(node, "output_shape", 1) if given is not None else [a * b for a, b in zip(size, stride, strict=True)]
        )
        cut = [total + more - new for total, more, new in zip(full, extra, wanted, strict=True)]
        before = [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in cut]
        new_size = Size2d(*wanted)
    else:
        pads = node.attributes.get("pads", (0, 0, 0, 0)) if mode != "VALID" else (0, 0, 0, 0)
        if len(pads) not in {2, 4}:
            refuse(node, f"pads has {len(pads)} entries, expected two for each of one or two dimensions")
        top, left, bottom, right = (0, pads[0], 0, pads[1]) if len(pads) == 2 else pads
        before = [top, left]
        after = (bottom, right)
        new_size = Size2d(*(a + b - c - d for a, b, c, d in zip(full, extra, before, after, strict=True)))
    if (
        min(before) < 0
        or max(*before, *extra) > LARGEST_PADDING
        or not 1 <= min(new_size) <= max(new_size) <= LARGEST_STEP
    ):
        refuse(
            node, f"an output of {tuple(new_size)} from {tuple(size)}, {before} cut off in front; expected a part of it"
        )
    return (before[0], before[1]), new_size


def _pair(node: Node, name: str, default: int) -> list[int]:
    """Return two numbers among the attributes, the last ones; of a sequence the one along it."""
    entries = [int(entry) for entry in node.attributes.get(name, ())]
    return ([default] * 2 + entries)[-2:] if len(entries) < 2 else entries[-2:]
