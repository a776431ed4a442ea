"""Operators of a .tflite file that work value by value: clamps, and sums, differences and products of two operands."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import ActivationFunction, Add, Conv2d, Mul, Pairwise, Sub

Array = npt.NDArray[Any]

CLAMPS = {
    "RELU": ActivationFunction.RELU,
    "RELU6": ActivationFunction.RELU6,
    "RELU_N1_TO_1": ActivationFunction.RELU_N1_TO_1,
}
PAIRS: Mapping[str, tuple[type[Pairwise], schema.BuiltinOptions]] = {
    "ADD": (Add, schema.BuiltinOptions.ADD),
    "MUL": (Mul, schema.BuiltinOptions.MUL),
    "SUB": (Sub, schema.BuiltinOptions.SUB),
}


def convert_clamp(operator: FileOperator, conversion: Conversion) -> None:
    """RELU, RELU6 and RELU_N1_TO_1, which rescale integers where the scales differ."""
    tensor = conversion.requantized(operator, conversion.value(operator))
    conversion.put_carried(operator, (tensor,), conversion.activated(operator, tensor, CLAMPS[operator.op_type]))


def convert_pair(operator: FileOperator, conversion: Conversion) -> None:
    """ADD, SUB and MUL of two activations, broadcast, or of one and a constant a channel: then a 1x1 convolution."""
    kind, options_type = PAIRS[operator.op_type]
    options = conversion.options(operator, options_type)
    activation = fused_activation(options, schema.AddOptions.FUSED_ACTIVATION_FUNCTION)
    for place in (0, 1):
        if conversion.is_constant(operator, place):
            _combine_with_constant(operator, conversion, place, activation)
            return
    builder = conversion.builder
    tensors = [conversion.value(operator, place) for place in (0, 1)]
    rank = max(len(conversion.shape(tensor)) for tensor in tensors)
    first, second = (_with_rank(conversion, tensor, rank) for tensor in tensors)
    op = kind(builder.op_name(operator.name), first, second, builder.tensor_name(operator.name), activation)
    conversion.put(operator, builder.add(op))


def _with_rank(conversion: Conversion, tensor: str, rank: int) -> str:
    """Return a tensor with axes of length one in front, as broadcasting aligns the last ones."""
    shape = conversion.shape(tensor)
    return conversion.builder.reshape(tensor, (*(1,) * (rank - len(shape)), *shape))


def _combine_with_constant(
    operator: FileOperator, conversion: Conversion, place: int, activation: ActivationFunction
) -> None:
    """Add a depthwise 1x1 convolution that scales and shifts every channel."""
    operand = conversion.constant(operator, place, "operand").values().astype(np.float64)
    builder, tensor = conversion.builder, conversion.value(operator, 1 - place)
    shape = conversion.shape(tensor)
    n_channels = (shape or (0,))[-1]
    if operand.size not in {1, n_channels} or (operand.size > 1 and operand.shape[-1] != n_channels):
        refuse(f"a constant of shape {operand.shape} with an input of shape {shape}, expected one value a channel")
    scale, offset = _as_scaling(operator.op_type, np.broadcast_to(operand.reshape(-1), (n_channels,)), place)
    if tensor in conversion.integers:
        conversion.objections.append(f"{operator.op_type} {operator.name!r} has a constant operand")
    image = builder.reshape(tensor, (1, int(np.prod(shape[:-1])), n_channels))
    weight = builder.add_constant(f"{operator.name}.weight", scale.reshape(n_channels, 1, 1, 1))
    bias = builder.add_constant(f"{operator.name}.bias", offset)
    name, output = builder.op_name(operator.name), builder.tensor_name(operator.name)
    op = Conv2d(name, image, weight, bias, output, groups=n_channels, activation=activation)
    conversion.put(operator, builder.reshape(builder.add(op), shape))


def _as_scaling(op_type: str, operand: Array, place: int) -> tuple[Array, Array]:
    """Return (scale, offset), a value a channel, of scale * x + offset; ``place`` is the constant's."""
    ones, zeros = np.ones(operand.size), np.zeros(operand.size)
    if op_type == "MUL":
        return operand, zeros
    if op_type == "ADD":
        return ones, operand
    return (-ones, operand) if place == 0 else (ones, -operand)
