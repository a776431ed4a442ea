"""Operators of a .tflite file that apply a function of one value to every value, and (log) softmaxes."""

import math

import numpy as np

from nettrim.importers.tflite_conversion import Conversion, Integers, Value, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import Function, LogSoftmax, PRelu, Softmax, UnaryFunction

FUNCTIONS = {
    "LOGISTIC": Function.SIGMOID,
    "TANH": Function.TANH,
    "HARD_SWISH": Function.HARD_SWISH,
    "RSQRT": Function.RSQRT,
}


def convert_function(operator: FileOperator, conversion: Conversion) -> None:
    """LOGISTIC, TANH, HARD_SWISH and RSQRT, which have no options."""
    add_function(operator, conversion, FUNCTIONS[operator.op_type])


def convert_leaky_relu(operator: FileOperator, conversion: Conversion) -> None:
    """LEAKY_RELU that rises everywhere."""
    options = conversion.options(operator, schema.BuiltinOptions.LEAKY_RELU)
    alpha = options.number(schema.LeakyReluOptions.ALPHA)
    if not 0 <= alpha < math.inf:
        refuse(f"alpha {alpha}, expected zero or more")
    add_function(operator, conversion, Function.LEAKY_RELU, alpha)


def convert_gelu(operator: FileOperator, conversion: Conversion) -> None:
    """GELU of either form."""
    options = conversion.options(operator, schema.BuiltinOptions.GELU)
    is_approximate = options.integer(schema.GeluOptions.APPROXIMATE)
    add_function(operator, conversion, Function.GELU_TANH if is_approximate else Function.GELU)


def convert_prelu(operator: FileOperator, conversion: Conversion) -> None:
    """PRELU with a slope a channel, or one for all."""
    tensor, slope, builder = conversion.value(operator), conversion.constant(operator, 1, "slopes"), conversion.builder
    n_channels = (conversion.shape(tensor) or (0,))[-1]
    if slope.numbers.size not in {1, n_channels} or slope.numbers.shape[-1:] not in {(1,), (n_channels,)}:
        refuse(f"slopes of shape {slope.numbers.shape} for {n_channels} channels, expected one a channel")
    numbers, values = (np.broadcast_to(part.reshape(-1), (n_channels,)) for part in (slope.numbers, slope.values()))
    name = builder.add_constant(f"{slope.name or operator.name}.slope", values)
    found = slope.quantization
    if found is not None and found.scale.size == 1 and numbers.dtype == np.int8:
        quantization = Quantization(found.scale.astype(np.float32), int(found.zero_point[0]))
        conversion.integers[name] = Integers("INT8", quantization, np.ascontiguousarray(numbers))
    op = PRelu(builder.op_name(operator.name), tensor, name, builder.tensor_name(operator.name))
    conversion.put(operator, builder.add(op))


def convert_softmax(operator: FileOperator, conversion: Conversion) -> None:
    """SOFTMAX and LOG_SOFTMAX over the last axis."""
    if operator.op_type == "SOFTMAX":
        beta = conversion.options(operator, schema.BuiltinOptions.SOFTMAX).number(schema.SoftmaxOptions.BETA)
        if beta != 1:
            refuse(f"beta {beta}, expected 1")
    builder, tensor = conversion.builder, conversion.value(operator)
    if not conversion.shape(tensor):
        refuse("its input has no axis")
    if _leave_out_behind_integers(operator, conversion):
        return
    kind = Softmax if operator.op_type == "SOFTMAX" else LogSoftmax
    op = kind(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name))
    conversion.put(operator, builder.add(op))


def add_function(operator: FileOperator, conversion: Conversion, function: Function, alpha: float = 0.0) -> None:
    """Append a function of an operator's input as its output."""
    builder, tensor = conversion.builder, conversion.value(operator)
    op = UnaryFunction(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), function, alpha)
    conversion.put(operator, builder.add(op))


def _leave_out_behind_integers(operator: FileOperator, conversion: Conversion) -> bool:
    """Leave out what the file computes in floats at the end of its integers: the largest output stays the largest."""
    tensor = conversion.value(operator)
    is_last = operator.outputs == conversion.file.outputs
    if not is_last or conversion.output(operator).type != "FLOAT32" or tensor not in conversion.integers:
        return False
    conversion.notes.append(f"{operator.op_type} in floats behind the integers is left out: the outputs are its inputs")
    conversion.put_view(operator, Value(tensor))
    return True
