"""Operators of a .tflite file that work value by value: sums, differences, products, quotients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_conversion import Conversion, fused_activation, integers_of, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_scaling import add_scaling
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import ActivationFunction, Add, Mul, Pairwise, Sub

Array = npt.NDArray[Any]

PAIRS: Mapping[str, type[Pairwise]] = {"ADD": Add, "MUL": Mul, "SUB": Sub}
OPTIONS = {
    "ADD": schema.BuiltinOptions.ADD,
    "DIV": schema.BuiltinOptions.DIV,
    "MUL": schema.BuiltinOptions.MUL,
    "SUB": schema.BuiltinOptions.SUB,
}


def convert_pair(operator: FileOperator, conversion: Conversion) -> None:
    """ADD, SUB and MUL of two activations, broadcast; those of one and a constant, and DIV, are a 1x1 convolution."""
    options = conversion.options(operator, OPTIONS[operator.op_type])
    activation = fused_activation(options, schema.AddOptions.FUSED_ACTIVATION_FUNCTION)
    for place in (0, 1):
        if conversion.is_constant(operator, place):
            _combine_with_constant(operator, conversion, place, activation)
            return
    if operator.op_type == "DIV":
        refuse("a division by what the network computes, expected one by a constant")
    kind = PAIRS[operator.op_type]
    shifts = kind is not Mul and bool(options.integer(schema.AddOptions.POT_SCALE_INT16))
    if shifts and _are_powers_on_int16(operator, conversion):
        conversion.objections.append(
            f"{operator.op_type} {operator.name!r} shifts int16 (pot_scale_int16), expected the sum of any scales"
        )
    tensors = conversion.value(operator, 0), conversion.value(operator, 1)
    conversion.put(operator, _add_pair(operator, conversion, kind, tensors, activation))


def convert_square(operator: FileOperator, conversion: Conversion) -> None:
    """SQUARE, and SQUARED_DIFFERENCE of two activations: products with themselves."""
    tensor = conversion.value(operator)
    if operator.op_type == "SQUARED_DIFFERENCE":
        tensor = _add_pair(operator, conversion, Sub, (tensor, conversion.value(operator, 1)))
    conversion.put(operator, _add_pair(operator, conversion, Mul, (tensor, tensor)))


def convert_power(operator: FileOperator, conversion: Conversion) -> None:
    """POW by two: a product with itself."""
    exponent, tensor = conversion.constant(operator, 1, "exponent").values(), conversion.value(operator)
    if exponent.size != 1 or exponent.reshape(-1)[0] != 2:
        refuse(f"a power of {exponent.reshape(-1)[:4].tolist()}, expected 2")
    conversion.put(operator, _add_pair(operator, conversion, Mul, (tensor, tensor)))


def _add_pair(
    operator: FileOperator,
    conversion: Conversion,
    kind: type[Pairwise],
    tensors: tuple[str, str],
    activation: ActivationFunction = ActivationFunction.NONE,
) -> str:
    builder, rank = conversion.builder, max(len(conversion.shape(tensor)) for tensor in tensors)
    first, second = (_with_rank(conversion, tensor, rank) for tensor in tensors)
    return builder.add(
        kind(builder.op_name(operator.name), first, second, builder.tensor_name(operator.name), activation)
    )


def _are_powers_on_int16(operator: FileOperator, conversion: Conversion) -> bool:
    """Whether inputs and output are int16 whose scales are powers of two."""
    ends = (conversion.input(operator, 0), conversion.input(operator, 1), conversion.output(operator))
    found = [integers_of(end) for end in ends]
    return all(
        each is not None and each.type == "INT16" and bool(np.all(np.frexp(each.quantization.scale)[0] == 0.5))
        for each in found
    )


def _with_rank(conversion: Conversion, tensor: str, rank: int) -> str:
    """Return a tensor with axes of length one in front, as broadcasting aligns the last ones."""
    shape = conversion.shape(tensor)
    return conversion.builder.reshape(tensor, (*(1,) * (rank - len(shape)), *shape))


def _combine_with_constant(
    operator: FileOperator, conversion: Conversion, place: int, activation: ActivationFunction
) -> None:
    """Add a convolution that scales and shifts every channel, or every value."""
    operand = conversion.constant(operator, place, "operand").exact_values()
    scale, offset = _as_scaling(operator.op_type, operand, place)
    tensor = conversion.value(operator, 1 - place)
    if tensor in conversion.integers:
        conversion.objections.append(f"{operator.op_type} {operator.name!r} has a constant operand")
    scaled = add_scaling(conversion, operator.name, tensor, scale, offset, activation=activation)
    conversion.put(operator, scaled)


def _as_scaling(op_type: str, operand: Array, place: int) -> tuple[Array, Array]:
    """Return (scale, offset) of scale * x + offset, shaped as the constant; ``place`` is the constant's."""
    ones, zeros = np.ones(operand.shape), np.zeros(operand.shape)
    if op_type == "MUL":
        return operand, zeros
    if op_type == "ADD":
        return ones, operand
    if op_type == "SUB":
        return (-ones, operand) if place == 0 else (ones, -operand)
    if place == 0 or not operand.all():
        refuse("a division by zero or by what the network computes, expected one by a constant")
    return 1 / operand, zeros
