"""Operators of a .tflite file that join tensors: CONCATENATION, PACK."""

import math

from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import Concat


def convert_concatenation(operator: FileOperator, conversion: Conversion) -> None:
    """CONCATENATION along any axis behind the batch."""
    options = conversion.options(operator, schema.BuiltinOptions.CONCATENATION)
    tensors = [conversion.value(operator, place) for place in range(len(operator.inputs))]
    shapes = [conversion.shape(tensor) for tensor in tensors]
    axis = _axis(options.integer(schema.ConcatenationOptions.AXIS), len(shapes[0]) + 1)
    if len({(len(shape), *shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
        refuse(f"inputs of shapes {shapes}, expected equal ones but for axis {axis + 1}")
    joined_shape = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    joined = _join(operator, conversion, tensors, axis, joined_shape)
    activation = fused_activation(options, schema.ConcatenationOptions.FUSED_ACTIVATION_FUNCTION)
    conversion.put_carried(operator, (joined,), conversion.activated(operator, joined, activation))


def convert_pack(operator: FileOperator, conversion: Conversion) -> None:
    """PACK: tensors of one shape side by side along a new axis behind the batch."""
    options = conversion.options(operator, schema.BuiltinOptions.PACK)
    tensors = [conversion.value(operator, place) for place in range(len(operator.inputs))]
    shapes = [conversion.shape(tensor) for tensor in tensors]
    axis = _axis(options.integer(schema.PackOptions.AXIS), len(shapes[0]) + 2)
    if len(set(shapes)) > 1:
        refuse(f"inputs of shapes {shapes}, expected equal ones")
    _join(operator, conversion, tensors, axis, (*shapes[0][:axis], len(tensors), *shapes[0][axis:]))


def _join(operator: FileOperator, conversion: Conversion, tensors: list[str], axis: int, shape: tuple[int, ...]) -> str:
    """Keep tensors joined along an axis, in some shape: what lies behind the axis counts as channels."""
    builder, rows = conversion.builder, shape[:axis] if axis == len(shape) - 1 else (math.prod(shape[:axis]),)
    n_rows = math.prod(rows)
    flat = tuple(builder.reshape(part, (*rows, math.prod(conversion.shape(part)) // n_rows)) for part in tensors)
    joined = flat[0]
    if len(flat) > 1:
        joined = builder.add(Concat(builder.op_name(operator.name), flat, builder.tensor_name(operator.name)))
        conversion.put_carried(operator, tuple(tensors), joined)
    result = builder.reshape(joined, shape)
    conversion.put_carried(operator, (joined if len(flat) > 1 else tensors[0],), result)
    return result


def _axis(axis: int, rank: int) -> int:
    """Return an axis, not counting the batch."""
    if not -rank <= axis < rank or axis % rank == 0:
        refuse(f"axis {axis} of {rank}, expected one behind the batch")
    return axis % rank - 1
