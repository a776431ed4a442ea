"""Operators of a .tflite file that copy values to other places, or take their mean over axes."""

from typing import Any

import numpy.typing as npt

from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_windows import LARGEST_STEP
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import AveragePool2d, Mean, NearestRule, ResizeNearest, Size2d, Slice, Transpose

Array = npt.NDArray[Any]

IMAGE_AXES = (0, 1)  # height and width, the batch not counted


def convert_transpose(operator: FileOperator, conversion: Conversion) -> None:
    """TRANSPOSE that leaves the batch axis first."""
    tensor = conversion.value(operator)
    order = [int(axis) for axis in conversion.sizes(operator, 1, "permutation").reshape(-1)]
    if sorted(order) != list(range(len(conversion.shape(tensor)) + 1)) or order[0]:
        refuse(f"permutation {order}, expected the batch axis to stay first")
    builder, permutation = conversion.builder, tuple(axis - 1 for axis in order[1:])
    op = Transpose(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), permutation)
    conversion.put_carried(operator, (tensor,), builder.add(op))


def convert_slice(operator: FileOperator, conversion: Conversion) -> None:
    """SLICE and STRIDED_SLICE of the whole batch, forwards; an axis that is shrunk is dropped."""
    tensor = conversion.value(operator)
    ranges, dropped = (_strided if operator.op_type == "STRIDED_SLICE" else _plain)(operator, conversion, tensor)
    if ranges[0] != range(1) or 0 in dropped or any(not kept or kept.step < 1 for kept in ranges):
        refuse(f"it takes {ranges} (the batch first), expected the whole batch, and some of each axis forwards")
    builder, parts = conversion.builder, ranges[1:]
    op = Slice(
        builder.op_name(operator.name),
        tensor,
        builder.tensor_name(operator.name),
        tuple(kept.start for kept in parts),
        tuple(kept[-1] + 1 for kept in parts),
        tuple(kept.step for kept in parts),
    )
    sliced = builder.add(op)
    shape = tuple(len(kept) for axis, kept in enumerate(parts, start=1) if axis not in dropped)
    conversion.put_carried(operator, (tensor,), sliced)
    conversion.put_carried(operator, (sliced,), builder.reshape(sliced, shape))


def convert_split(operator: FileOperator, conversion: Conversion) -> None:
    """SPLIT into equal parts along one axis: a slice each."""
    tensor, n_parts = conversion.value(operator, 1), len(operator.outputs)
    shape, axes = conversion.shape(tensor), conversion.sizes(operator, 0, "axis").reshape(-1).tolist()
    axis = axes[0] % (len(shape) + 1) - 1 if len(axes) == 1 else -1
    if axis < 0 or shape[axis] % n_parts:
        refuse(f"axis {axes} of {(1, *shape)} in {n_parts} parts, expected an axis behind the batch in equal parts")
    builder, step = conversion.builder, shape[axis] // n_parts
    for part in range(n_parts):
        title = conversion.file.tensors[operator.outputs[part]].name
        begin = tuple(part * step if own == axis else 0 for own in range(len(shape)))
        end = tuple((part + 1) * step if own == axis else size for own, size in enumerate(shape))
        op = Slice(builder.op_name(title), tensor, builder.tensor_name(title), begin, end, (1,) * len(shape))
        conversion.put_carried(operator, (tensor,), builder.add(op), part)


def convert_resize_nearest(operator: FileOperator, conversion: Conversion) -> None:
    """RESIZE_NEAREST_NEIGHBOR of images."""
    options = conversion.options(operator, schema.BuiltinOptions.RESIZE_NEAREST_NEIGHBOR)
    image = conversion.image(conversion.value(operator))
    sizes = [int(size) for size in conversion.sizes(operator, 1, "size").reshape(-1)]
    fields = schema.ResizeNearestNeighborOptions
    aligned, centred = (options.integer(field) for field in (fields.ALIGN_CORNERS, fields.HALF_PIXEL_CENTERS))
    if len(sizes) != 2 or not 1 <= min(sizes) <= max(sizes) <= LARGEST_STEP or (aligned and centred):
        refuse(f"a new size of {sizes}, expected a height and a width, and one rule")
    rule = NearestRule.ALIGN_CORNERS if aligned else NearestRule.ASYMMETRIC
    rule = NearestRule.HALF_PIXEL_CENTERS if centred else rule
    builder = conversion.builder
    op = ResizeNearest(builder.op_name(operator.name), image, builder.tensor_name(operator.name), Size2d(*sizes), rule)
    conversion.put_carried(operator, (image,), builder.add(op))


def convert_mean(operator: FileOperator, conversion: Conversion) -> None:
    """MEAN; of floats over the height and width of images it is an average pool."""
    options = conversion.options(operator, schema.BuiltinOptions.REDUCER)
    tensor, builder = conversion.value(operator), conversion.builder
    shape = conversion.shape(tensor)
    found = {int(axis) % (len(shape) + 1) for axis in conversion.sizes(operator, 1, "axes").reshape(-1)}
    axes = tuple(axis - 1 for axis in sorted(found))
    if not axes or axes[0] < 0:
        refuse(f"a mean over the axes {sorted(found)}, expected some behind the batch")
    keeps_axes = bool(options.integer(schema.ReducerOptions.KEEP_DIMS))
    if len(axes) == len(shape) and not keeps_axes:
        refuse("a mean that leaves no axis behind the batch, expected one")
    name, output = builder.op_name(operator.name), builder.tensor_name(operator.name)
    if axes == IMAGE_AXES and len(shape) == 3 and tensor not in conversion.integers:
        size = Size2d(*shape[:2])
        mean = builder.add(AveragePool2d(name, tensor, output, size, size))
        conversion.put(operator, mean if keeps_axes else builder.reshape(mean, shape[2:]))
        return
    conversion.put(operator, builder.add(Mean(name, tensor, output, axes, keeps_axes)))


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
    rare = [options.integer(field) for field in (fields.ELLIPSIS_MASK, fields.NEW_AXIS_MASK, fields.OFFSET)]
    if any(len(part) != len(shape) for part in bounds) or any(rare) or 0 in bounds[2]:
        refuse(f"bounds {[part.tolist() for part in bounds]} of {shape}, expected one each an axis, no new axes")
    masks = [options.integer(field) for field in (fields.BEGIN_MASK, fields.END_MASK, fields.SHRINK_AXIS_MASK)]
    ranges, dropped = [], set()
    for axis, (begin, end, step, length) in enumerate(zip(*bounds, shape, strict=True)):
        is_free = [bool(mask >> axis & 1) for mask in masks]
        first = None if is_free[0] else int(begin)
        last = None if is_free[1] else int(end)
        if is_free[2]:
            dropped.add(axis)
            first, last = int(begin), int(begin) + 1 or None
        ranges.append(range(*slice(first, last, int(step)).indices(length)))
    return ranges, dropped
