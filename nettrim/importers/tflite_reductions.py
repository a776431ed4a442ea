"""Operators of a .tflite file that leave one value of many along axes: MEAN, SUM, REDUCE_MAX."""

import math

import numpy as np

from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_scaling import add_scaling
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import AveragePool2d, MaxPool2d, Mean, Size2d

IMAGE_AXES = (0, 1)  # height and width, the batch not counted


def convert_mean(operator: FileOperator, conversion: Conversion) -> None:
    """MEAN, and SUM, a mean times the number of values; of floats over the height and width of images a pool."""
    tensor, axes, keeps_axes = _read(operator, conversion)
    mean = _add_mean(operator, conversion, tensor, axes, keeps_axes=keeps_axes)
    if operator.op_type == "SUM":
        count = math.prod(conversion.shape(tensor)[axis] for axis in axes)
        mean = add_scaling(conversion, f"{operator.name}/sum", mean, np.array(count), np.zeros(()))
    conversion.put(operator, mean)


def convert_reduce_max(operator: FileOperator, conversion: Conversion) -> None:
    """REDUCE_MAX over the height and width of images: a max pool."""
    tensor, axes, keeps_axes = _read(operator, conversion)
    builder, shape = conversion.builder, conversion.shape(tensor)
    if axes != IMAGE_AXES or len(shape) != 3:
        refuse(f"the axes {[axis + 1 for axis in axes]} of {(1, *shape)}, expected the height and width of images")
    size = Size2d(*shape[:2])
    largest = MaxPool2d(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), size, size)
    conversion.put_carried(operator, (tensor,), builder.add(largest))
    reduced = largest.output if keeps_axes else builder.reshape(largest.output, shape[2:])
    conversion.put_carried(operator, (largest.output,), reduced)


def _add_mean(
    operator: FileOperator, conversion: Conversion, tensor: str, axes: tuple[int, ...], *, keeps_axes: bool
) -> str:
    builder, shape = conversion.builder, conversion.shape(tensor)
    name, output = builder.op_name(operator.name), builder.tensor_name(operator.name)
    if axes == IMAGE_AXES and len(shape) == 3 and tensor not in conversion.integers:
        size = Size2d(*shape[:2])
        mean = builder.add(AveragePool2d(name, tensor, output, size, size))
        return mean if keeps_axes else builder.reshape(mean, shape[2:])
    return builder.add(Mean(name, tensor, output, axes, keeps_axes))


def _read(operator: FileOperator, conversion: Conversion) -> tuple[str, tuple[int, ...], bool]:
    """Return the input, the axes in increasing order, not counting the batch, and whether they stay."""
    options = conversion.options(operator, schema.BuiltinOptions.REDUCER)
    tensor = conversion.value(operator)
    shape = conversion.shape(tensor)
    found = {int(axis) % (len(shape) + 1) for axis in conversion.sizes(operator, 1, "axes").reshape(-1)}
    axes = tuple(axis - 1 for axis in sorted(found))
    if not axes or axes[0] < 0:
        refuse(f"the axes {sorted(found)} of {(1, *shape)}, expected some behind the batch")
    keeps_axes = bool(options.integer(schema.ReducerOptions.KEEP_DIMS))
    if len(axes) == len(shape) and not keeps_axes:
        refuse("it leaves no axis behind the batch, expected one")
    return tensor, axes, keeps_axes
