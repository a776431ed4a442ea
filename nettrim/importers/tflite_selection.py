"""Operators of a .tflite file that keep parts of a tensor: SLICE, STRIDED_SLICE, SPLIT, SPLIT_V, UNPACK, GATHER."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import Slice

Array = npt.NDArray[Any]


def convert_slice(operator: FileOperator, conversion: Conversion) -> None:
    """SLICE and STRIDED_SLICE of the whole batch, forwards; an axis that is shrunk is dropped."""
    tensor = conversion.value(operator)
    ranges, dropped = (_strided if operator.op_type == "STRIDED_SLICE" else _plain)(operator, conversion, tensor)
    if ranges[0] != range(1) or 0 in dropped or any(not kept or kept.step < 1 for kept in ranges):
        refuse(f"it takes {ranges} (the batch first), expected the whole batch, and some of each axis forwards")
    _keep(operator, conversion, tensor, ranges[1:], dropped=tuple(axis - 1 for axis in dropped))


def convert_split(operator: FileOperator, conversion: Conversion) -> None:
    """SPLIT into equal parts along one axis, and SPLIT_V into parts of given sizes: a slice each."""
    is_equal, n_parts = operator.op_type == "SPLIT", len(operator.outputs)
    tensor = conversion.value(operator, 1 if is_equal else 0)
    axis = _axis(conversion, tensor, conversion.sizes(operator, 0 if is_equal else 2, "axis").reshape(-1).tolist())
    total = conversion.shape(tensor)[axis]
    if is_equal:
        sizes = [total // n_parts] * n_parts
    else:
        sizes = conversion.sizes(operator, 1, "sizes").reshape(-1).tolist()
        if sizes.count(-1) == 1:
            rest = total - sum(size for size in sizes if size != -1)
            sizes = [rest if size == -1 else size for size in sizes]
    if len(sizes) != n_parts or sum(sizes) != total or min(sizes) < 1:
        refuse(f"it splits {total} into {sizes}, expected {n_parts} parts of one or more")
    first = 0
    for place, size in enumerate(sizes):
        _keep(operator, conversion, tensor, _along(conversion, tensor, axis, range(first, first + size)), part=place)
        first += size


def convert_unpack(operator: FileOperator, conversion: Conversion) -> None:
    """UNPACK along an axis: a slice each, without that axis."""
    options = conversion.options(operator, schema.BuiltinOptions.UNPACK)
    tensor = conversion.value(operator)
    axis = _axis(conversion, tensor, [options.integer(schema.UnpackOptions.AXIS)])
    if conversion.shape(tensor)[axis] != len(operator.outputs):
        refuse(f"{len(operator.outputs)} outputs of {conversion.shape(tensor)[axis]}, expected as many")
    for place in range(len(operator.outputs)):
        ranges = _along(conversion, tensor, axis, range(place, place + 1))
        _keep(operator, conversion, tensor, ranges, dropped=(axis,), part=place)


def convert_gather(operator: FileOperator, conversion: Conversion) -> None:
    """GATHER of constant places along an axis: one, whose axis is dropped, or evenly spaced ones."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.GATHER), schema.GatherOptions
    if options.integer(fields.BATCH_DIMS):
        refuse(f"{options.integer(fields.BATCH_DIMS)} axes with places of their own, expected none")
    tensor, places = conversion.value(operator), conversion.sizes(operator, 1, "places")
    axis = _axis(conversion, tensor, [options.integer(fields.AXIS)])
    size, listed = conversion.shape(tensor)[axis], places.reshape(-1).tolist()
    step = listed[1] - listed[0] if len(listed) > 1 else 1
    kept = range(listed[0], listed[-1] + 1, step) if step > 0 else range(0)
    is_even = len(kept) == len(listed) and list(kept) == listed
    if places.ndim > 1 or not is_even or not 0 <= listed[0] <= listed[-1] < size:
        refuse(f"places {listed} of {size} along axis {axis + 1}, expected one or evenly spaced ones")
    _keep(operator, conversion, tensor, _along(conversion, tensor, axis, kept), dropped=() if places.ndim else (axis,))


def _keep(
    operator: FileOperator,
    conversion: Conversion,
    tensor: str,
    ranges: Sequence[range],
    *,
    dropped: tuple[int, ...] = (),
    part: int = 0,
) -> None:
    """Keep some places along each axis as one of an operator's outputs; axes of one place may be dropped."""
    builder, title = conversion.builder, conversion.file.tensors[operator.outputs[part]].name
    op = Slice(
        builder.op_name(title),
        tensor,
        builder.tensor_name(title),
        tuple(kept.start for kept in ranges),
        tuple(kept[-1] + 1 for kept in ranges),
        tuple(kept.step for kept in ranges),
    )
    sliced = builder.add(op)
    shape = tuple(len(kept) for axis, kept in enumerate(ranges) if axis not in dropped)
    conversion.put_carried(operator, (tensor,), sliced, part)
    conversion.put_carried(operator, (sliced,), builder.reshape(sliced, shape), part)


def _along(conversion: Conversion, tensor: str, axis: int, kept: range) -> list[range]:
    """Return all of every axis but one."""
    return [kept if own == axis else range(size) for own, size in enumerate(conversion.shape(tensor))]


def _axis(conversion: Conversion, tensor: str, axes: list[int]) -> int:
    """Return the one axis of an operator, not counting the batch."""
    rank = len(conversion.shape(tensor)) + 1
    if len(axes) != 1 or not -rank <= axes[0] < rank or axes[0] % rank == 0:
        refuse(f"axis {axes} of {(1, *conversion.shape(tensor))}, expected one behind the batch")
    return axes[0] % rank - 1


def _plain(operator: FileOperator, conversion: Conversion, tensor: str) -> tuple[list[range], set[int]]:
    """Return what SLICE keeps of each axis, the batch first."""
    shape = (1, *conversion.shape(tensor))
    begin, size = (conversion.sizes(operator, place, "bounds").reshape(-1).tolist() for place in (1, 2))
    if not len(begin) == len(size) == len(shape):
        refuse(f"it takes {size} from {begin} of {shape}, expected one each an axis")
    ends = [length if count == -1 else first + count for first, count, length in zip(begin, size, shape, strict=True)]
    return [range(*slice(a, b).indices(n)) for a, b, n in zip(begin, ends, shape, strict=True)], set()


def _strided(operator: FileOperator, conversion: Conversion, tensor: str) -> tuple[list[range], set[int]]:
    """Return what STRIDED_SLICE keeps of each axis, the batch first, and the axes that it drops."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.STRIDED_SLICE), schema.StridedSliceOptions
    shape = (1, *conversion.shape(tensor))
    bounds = [conversion.sizes(operator, place, "bounds").reshape(-1) for place in (1, 2, 3)]
    rare = [options.integer(field) for field in (fields.NEW_AXIS_MASK, fields.OFFSET)]
    ellipsis = options.integer(fields.ELLIPSIS_MASK)
    count = min(len(bounds[0]), len(shape) + 1)
    skipped = [place for place in range(count) if ellipsis >> place & 1]
    fits = all(len(part) == count <= len(shape) for part in bounds) and len(skipped) <= 1
    if not fits or any(rare) or 0 in bounds[2]:
        refuse(f"bounds of {[len(part) for part in bounds]} axes of {shape}, expected steps for some axes, no new ones")
    masks = [options.integer(field) for field in (fields.BEGIN_MASK, fields.END_MASK, fields.SHRINK_AXIS_MASK)]
    ranges, dropped = [range(size) for size in shape], set()
    for place, (begin, end, step) in enumerate(zip(*bounds, strict=True)):
        if place in skipped:
            continue
        axis = place + len(shape) - count if skipped and place > skipped[0] else place
        is_free = [bool(mask >> place & 1) for mask in masks]
        first = None if is_free[0] else int(begin)
        last = None if is_free[1] else int(end)
        if is_free[2]:
            dropped.add(axis)
            first, last = int(begin), int(begin) + 1 or None
        ranges[axis] = range(*slice(first, last, int(step)).indices(shape[axis]))
    return ranges, dropped
