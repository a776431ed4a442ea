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
    names = ("starts", "ends", "axes", "steps")
    parts: list[Any] = [node.attributes.get(name) for name in names]
    if node.opset >= 10:
        parts = [conversion.optional_constant(node, index, name) for index, name in enumerate(names, start=1)]
    starts, ends, axes, steps = (None if part is None else _integers(node, part) for part in parts)
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        refuse(node, f"starts {starts}, ends {ends}, axes {axes}, steps {steps}, expected equally many of each")
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        refuse(node, f"axes {axes} of an input with {rank} axes, expected different ones of them")
    return {axis % rank: slice(*bounds) for axis, *bounds in zip(axes, starts, ends, steps, strict=True)}


def _read_pads(node: Node, conversion: Conversion) -> list[int]:
    """Return what to add before and after (batch, channels, height, width), checked."""
    if node.text("mode", "constant") != "constant":
        refuse(node, f"mode {node.text('mode', 'constant')!r}; {PADDED}")
    pads, fill = node.attributes.get("pads"), node.number("value", 0.0)
    if node.opset >= 11:
        pads = conversion.constant(node, 1, "pads")
        fills = conversion.optional_constant(node, 2, "value")
        fill = 0.0 if fills is None or fills.size == 0 else float(fills.reshape(-1)[0])
    if len(node.inputs) > 3 and node.inputs[3]:
        refuse(node, "pads along chosen axes, expected pads for every axis")
    sizes = _integers(node, () if pads is None else pads)
    if fill != 0:
        refuse(node, f"it pads with {fill}; {PADDED}")
    if len(sizes) != 8 or sizes[0] or sizes[4] or (any(sizes[1::4]) and any(sizes[2:4] + sizes[6:])):
        refuse(node, f"it pads by {sizes}; {PADDED}")
    if min(sizes) < 0 or max(sizes) > LARGEST_PADDING:
        refuse(node, f"it cuts off or adds {sizes}, expected pads of 0 to {LARGEST_PADDING}")
    return sizes


def _integers(node: Node, values: Any) -> list[int]:
    entries = np.ravel(values)
    if entries.size and not np.issubdtype(entries.dtype, np.integer):
        refuse(node, f"bounds of type {entries.dtype}, expected integers")
    return [int(entry) for entry in entries]


def _add_selection(
    node: Node, conversion: Conversion, value: Value, stride: Size2d = UNIT, channels: tuple[int, int] = (0, 0)
) -> None:
    """Append the 1x1 convolution with ones and zeros that computes a node; it takes in the one right before.

    Parameters
    ----------
    channels : tuple of int
        Channels of zeros before and after those of ``value``.
    """
    builder, image = conversion.builder, conversion.image(node, value)
    n_inputs, before, after = value.shape[0], *channels
    earlier = builder.producer(image)
    if value.is_exclusive and isinstance(earlier, Conv2d) and (shift := _shift(builder, earlier)) is not None:
        n_kept, image = n_inputs, earlier.input
        n_inputs = builder.tensors[image].shape[-1]
        before, after = before + shift, after + n_kept - n_inputs - shift
        stride = Size2d(stride.height * earlier.stride.height, stride.width * earlier.stride.width)
        builder.remove_layer(earlier)
    n_outputs = before + n_inputs + after
    if max(stride) > LARGEST_STEP or n_outputs * n_inputs > LARGEST_SELECTION:
        refuse(node, f"{n_inputs} to {n_outputs} channels with steps {tuple(stride)} are more than boards hold")
    weight = builder.add_constant(f"{node.name}.weight", _selection(n_outputs, n_inputs, before))
    bias = builder.add_constant(f"{node.name}.bias", np.zeros(n_outputs))
    output = builder.tensor_name(node.outputs[0])
    op = Conv2d(builder.op_name(node.name), image, weight, bias, output, stride)
    conversion.rewrites["Slice and Pad nodes carried over by 1x1 convolutions"] += 1
    conversion.put_image(node, builder.add(op))


def _selection(n_outputs: int, n_inputs: int, before: int) -> Array:
    """Return weights (n_outputs, 1, 1, n_inputs) that copy the inputs behind ``before`` channels of zeros."""
    return np.eye(n_outputs, n_inputs, -before).reshape(n_outputs, 1, 1, n_inputs)


def _shift(builder: GraphBuilder, layer: Conv2d) -> int | None:
    """Return how many channels of zeros a convolution puts before its inputs; None if it does anything else."""
    weight, bias = builder.tensors[layer.weight].values(), builder.tensors[layer.bias].values()
    n_outputs, height, width, n_inputs = weight.shape
    if (height, width, layer.groups, layer.padding) != (1, 1, 1, NO_PADDING) or n_outputs < n_inputs or bias.any():
        return None
    before = int(weight[:, 0, 0, 0].argmax())
    is_selection = np.array_equal(weight, _selection(n_outputs, n_inputs, before))
    return before if is_selection and before + n_inputs <= n_outputs else None
