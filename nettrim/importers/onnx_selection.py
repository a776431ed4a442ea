"""ONNX nodes that keep a part of an activation, or put zeros around it: Slice, Split, Gather, Pad."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, axis_place, read_integers, refuse
from nettrim.importers.onnx_transposes import natural_order
from nettrim.importers.window_limits import LARGEST_PADDING
from nettrim_runtime.ops import Padding, Slice

Array = npt.NDArray[Any]

PADDED = "supported: zeros after the batch axis"


def convert_slice(node: Node, conversion: Conversion) -> None:
    """Slice after the batch axis, forwards."""
    value = conversion.value(node)
    ranges = [range(size) for size in value.shape]
    for axis, bounds in _read_slices(node, conversion, len(ranges) + 1).items():
        text = f"{bounds.start}:{bounds.stop}:{bounds.step}"
        if bounds.step < 1 or (axis == 0 and (bounds.start, bounds.step) != (0, 1)):
            refuse(node, f"it takes {text} along axis {axis}, expected positive steps after the batch axis")
        if axis == 0 and bounds.stop < np.iinfo(np.int32).max:  # how exporters write the end
            refuse(node, f"it takes {text} along axis 0, expected the whole batch")
        if axis:
            ranges[axis - 1] = range(*bounds.indices(value.shape[axis - 1]))
            if not ranges[axis - 1]:
                refuse(node, f"it takes {text} along axis {axis} of {('batch', *value.shape)}, which leaves nothing")
    _keep(node, conversion, value, ranges)


def convert_split(node: Node, conversion: Conversion) -> None:
    """Split after the batch axis: a slice for each output."""
    value = conversion.value(node)
    axis = _axis(node, value, node.integer("axis", 0))
    total, n_parts = value.shape[axis], len(node.outputs)
    given: Any = node.attributes.get("split")
    if node.opset >= 13:
        given = conversion.optional_constant(node, 1, "split")
    part = -(-total // n_parts)  # the last one is smaller where they cannot be equal
    sizes = [min(part, total - part * i) for i in range(n_parts)] if given is None else read_integers(node, given)
    if len(sizes) != n_parts or sum(sizes) != total or min(sizes) < 1:
        refuse(node, f"it splits {total} into {sizes}, expected {n_parts} parts")
    first = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        ranges = [range(length) for length in value.shape]
        ranges[axis] = range(first, first + size)
        if name and conversion.is_read(name):
            _keep(replace(node, name=f"{node.name}.{name}", outputs=(name,)), conversion, value, ranges)
        first += size


def convert_gather(node: Node, conversion: Conversion) -> None:
    """Gather of constant places along an axis after the batch: one, evenly spaced ones, or all in another order."""
    indices = conversion.constant(node, 1, "indices")
    value = conversion.value_of_any_order(node)
    value = value if value.batch else conversion.value(node)
    axis = _axis(node, value, node.integer("axis", 0))
    size = value.shape[axis]
    places = [place + size if place < 0 else place for place in read_integers(node, indices)]
    step = places[1] - places[0] if len(places) > 1 else 1
    kept = range(places[0], places[-1] + 1, step) if places and step > 0 else range(0)
    if indices.ndim > 1 or not places or not 0 <= min(places) <= max(places) < size:
        refuse(node, f"places {places} of {size} along axis {axis + 1}, expected some of them")
    if sorted(places) == list(range(size)):
        conversion.put_view(node, value, np.take(value.positions, places, axis=axis))
    elif list(kept) == places:
        _keep(node, conversion, value, [kept if i == axis else range(n) for i, n in enumerate(value.shape)])
    else:
        refuse(node, f"places {places} along axis {axis + 1}, expected one, evenly spaced ones, or all of {size}")
    gathered = conversion.value_of_any_order(replace(node, inputs=node.outputs))
    if indices.ndim == 0:
        batch = value.batch - (axis < value.batch)
        conversion.put_view(node, replace(gathered, batch=batch), gathered.positions.squeeze(axis))
    elif value.batch:
        conversion.put_view(node, replace(gathered, batch=value.batch), gathered.positions)


def convert_pad(node: Node, conversion: Conversion) -> None:
    """Pad with zeros: those around an image wait for the Conv that follows."""
    value = conversion.padded_value(node)
    ends = _read_pads(node, conversion, len(value.shape))
    if len(ends) not in {2, 3} or any(ends[0]):
        value = conversion.value(node)
        padded = conversion.pad(node, value, ends, node.outputs[0])
        conversion.put(node, padded.tensor, padded.positions)
        return
    (top, bottom), (left, right) = ends[1:] if len(ends) == 3 else ((0, 0), ends[1])
    before, added = value.padding, Padding(top, bottom, left, right)
    padding = Padding(*(first + second for first, second in zip(before, added, strict=True)))
    conversion.put_padded(node, value, padding)


def _keep(node: Node, conversion: Conversion, value: Value, ranges: Sequence[range]) -> None:
    """Keep some places along each axis of an activation; a slice of a slice is one."""
    if all(len(kept) == size for kept, size in zip(ranges, value.shape, strict=True)):
        conversion.put_view(node, value, value.positions)
        return
    builder, order = conversion.builder, natural_order(value.positions)
    places = value.positions[np.ix_(*ranges)]
    for number, part in enumerate(conversion.parts.get(value.tensor, ())):
        size = builder.tensors[part].size
        if np.array_equal(np.sort(places, axis=None), np.arange(number * size, (number + 1) * size)):
            conversion.put(node, part, places - number * size)
            return
    tensor = conversion.arrange(node, value, order)
    parts = [ranges[axis] for axis in order]
    earlier = builder.producer(tensor)
    if isinstance(earlier, Slice) and value.is_exclusive:
        bounds = zip(earlier.begin, earlier.end, earlier.stride, strict=True)
        parts = [range(*whole)[part.start : part.stop : part.step] for whole, part in zip(bounds, parts, strict=True)]
        tensor = earlier.input
        builder.remove(earlier)
    op = Slice(
        builder.op_name(node.name),
        tensor,
        builder.tensor_name(node.outputs[0]),
        tuple(part.start for part in parts),
        tuple(part[-1] + 1 for part in parts),
        tuple(part.step for part in parts),
    )
    conversion.put_ordered(node, builder.add(op), order)


def _axis(node: Node, value: Value, axis: int) -> int:
    """Return an axis of a node, not counting the batch."""
    rank = len(value.shape) + 1
    if not -rank <= axis < rank or axis % rank == value.batch:
        refuse(node, f"axis {axis} of {('batch', *value.shape)}, expected one after the batch")
    return axis % rank - (axis % rank > value.batch)


def _read_slices(node: Node, conversion: Conversion, rank: int) -> dict[int, slice]:
    """Return start, stop and step by axis, the batch counting as axis 0."""
    names = ("starts", "ends", "axes", "steps")
    parts: list[Any] = [node.attributes.get(name) for name in names]
    if node.opset >= 10:
        parts = [conversion.optional_constant(node, index, name) for index, name in enumerate(names, start=1)]
    starts, ends, axes, steps = (None if part is None else read_integers(node, part) for part in parts)
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        refuse(node, f"starts {starts}, ends {ends}, axes {axes}, steps {steps}, expected equally many of each")
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        refuse(node, f"axes {axes} of an input with {rank} axes, expected different ones of them")
    return {axis % rank: slice(*bounds) for axis, *bounds in zip(axes, starts, ends, steps, strict=True)}


def _read_pads(node: Node, conversion: Conversion, rank: int) -> list[tuple[int, int]]:
    """Return how many zeros to add before and after each axis behind the batch, checked."""
    if node.text("mode", "constant") != "constant":
        refuse(node, f"mode {node.text('mode', 'constant')!r}; {PADDED}")
    pads, fill, axes = node.attributes.get("pads"), node.number("value", 0.0), None
    if node.opset >= 11:
        pads, axes = conversion.constant(node, 1, "pads"), conversion.optional_constant(node, 3, "axes")
        fills = conversion.optional_constant(node, 2, "value")
        fill = 0.0 if fills is None or fills.size == 0 else float(fills.reshape(-1)[0])
    if fill != 0:
        refuse(node, f"it pads with {fill}; {PADDED}")
    sizes = read_integers(node, () if pads is None else pads)
    listed = range(rank + 1) if axes is None else read_integers(node, axes)
    chosen = [axis_place(node, axis, rank + 1) for axis in listed]
    if len(sizes) != 2 * len(chosen) or len(set(chosen)) != len(chosen):
        refuse(node, f"it pads by {sizes} along axes {chosen}, expected two for each axis")
    if min(sizes, default=0) < 0 or max(sizes, default=0) > LARGEST_PADDING:
        refuse(node, f"it cuts off or adds {sizes}, expected pads of 0 to {LARGEST_PADDING}")
    half = len(chosen)
    by_axis = dict(zip(chosen, zip(sizes[:half], sizes[half:], strict=True), strict=True))
    if any(by_axis.get(0, ())):
        refuse(node, f"it pads the batch axis by {by_axis[0]}; {PADDED}")
    return [by_axis.get(axis, (0, 0)) for axis in range(1, rank + 1)]
