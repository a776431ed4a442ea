"""Operators of a .tflite file that only name values anew: shapes and types."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_constants import Constant
from nettrim.importers.tflite_conversion import Conversion, Value, integers_of, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema

Array = npt.NDArray[Any]

BATCH_SIZE = 1


def convert_reshape(operator: FileOperator, conversion: Conversion) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the same values in another shape, each sample's within itself.

    Rows of a sample may take the batch's place for a FULLY_CONNECTED.
    """
    tensor = conversion.value(operator)
    size = math.prod(conversion.shape(tensor))
    wanted = _wanted_shape(operator, conversion)
    if wanted.count(-1) == 1:
        known = math.prod(entry for entry in wanted if entry != -1)
        wanted = [size // max(known, 1) if entry == -1 else entry for entry in wanted]
    has_rows = len(wanted) == 2 and wanted[0] != BATCH_SIZE and conversion.only_read_by(operator, "FULLY_CONNECTED")
    if min(wanted, default=1) < 1 or math.prod(wanted) != size or (wanted[:1] != [BATCH_SIZE] and not has_rows):
        refuse(f"it makes {(BATCH_SIZE, *conversion.shape(tensor))} into {tuple(wanted)}, expected the batch in front")
    reshaped = conversion.builder.reshape(tensor, tuple(wanted if has_rows else wanted[1:]))
    conversion.put_carried(operator, (tensor,), reshaped, has_rows=has_rows)


def convert_quantize(operator: FileOperator, conversion: Conversion) -> None:
    """QUANTIZE: floats that become integers are the same tensor, integers of another scale a requantisation."""
    value, wanted = conversion.padded_value(operator), integers_of(conversion.output(operator))
    found = conversion.integers.get(value.tensor)
    if conversion.input(operator).type == "FLOAT32":
        if wanted is not None and found is None:
            conversion.integers[value.tensor] = wanted
        elif wanted is None or found is None or not wanted.same_as(found):
            conversion.objections.append(f"QUANTIZE {operator.name!r} rescales through floats")
        conversion.put_view(operator, value)
        return
    tensor = conversion.requantized(operator, conversion.value(operator))
    if wanted is not None and wanted.type != "UINT8":
        conversion.integers[tensor] = wanted  # of an uint8 input the int8 values of the same meaning
    conversion.put_view(operator, Value(tensor))


def convert_dequantize(operator: FileOperator, conversion: Conversion) -> None:
    """DEQUANTIZE of constants, and of activations, where the values stay what they are."""
    if conversion.is_constant(operator, 0):
        constant = conversion.constant(operator, 0, "values")
        conversion.put_constant(operator, Constant(constant.name, constant.values(), None))
        return
    conversion.put_view(operator, conversion.padded_value(operator))


def convert_densify(operator: FileOperator, conversion: Conversion) -> None:
    """DENSIFY of a sparse constant, which is read dense already."""
    conversion.put_constant(operator, conversion.constant(operator, 0, "values"))


def _wanted_shape(operator: FileOperator, conversion: Conversion) -> list[int]:
    """Return the shape with the batch axis in front that an operator asks for; -1 stands for what is left."""
    shape = (BATCH_SIZE, *conversion.shape(conversion.value(operator)))
    if operator.op_type == "EXPAND_DIMS":
        return _with_axis(shape, conversion.sizes(operator, 1, "axis").reshape(-1))
    if operator.op_type == "SQUEEZE":
        options = conversion.options(operator, schema.BuiltinOptions.SQUEEZE)
        axes = options.numbers(schema.SqueezeOptions.SQUEEZE_DIMS, np.int32, "axes", len(shape))
        gone = {int(axis) % len(shape) for axis in axes} or {axis for axis in range(1, len(shape)) if shape[axis] == 1}
        return [size for axis, size in enumerate(shape) if axis not in gone]
    if conversion.is_constant(operator, 1):
        return [int(size) for size in conversion.sizes(operator, 1, "shape").reshape(-1)]
    if operator.options is not None and operator.options_type == schema.BuiltinOptions.RESHAPE:
        found = operator.options.numbers(schema.ReshapeOptions.NEW_SHAPE, np.int32, "shape", len(shape) + 8)
        if found.size:
            return [int(size) for size in found]
    return list(conversion.output(operator).shape)  # computed from the batch size: what the converter found


def _with_axis(shape: tuple[int, ...], axes: Array) -> list[int]:
    if axes.size != 1 or not -len(shape) - 1 <= axes[0] <= len(shape):
        refuse(f"axis {axes.tolist()} of {shape}")
    axis = int(axes[0]) % (len(shape) + 1)
    return [*shape[:axis], 1, *shape[axis:]]
