"""Operators of a .tflite file that work value by value: additions, clamps, softmax."""

from nettrim.importers.tflite_conversion import Conversion, Value, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import ActivationFunction, Add, Softmax

CLAMPS = {
    "RELU": ActivationFunction.RELU,
    "RELU6": ActivationFunction.RELU6,
    "RELU_N1_TO_1": ActivationFunction.RELU_N1_TO_1,
}


def convert_add(operator: FileOperator, conversion: Conversion) -> None:
    """ADD of two activations of one shape."""
    options = conversion.options(operator, schema.BuiltinOptions.ADD)
    first, second = (conversion.value(operator, place) for place in (0, 1))
    shapes = conversion.shape(first), conversion.shape(second)
    if shapes[0] != shapes[1]:
        refuse(f"its inputs have shapes {shapes[0]} and {shapes[1]}, expected equal ones")
    builder = conversion.builder
    activation = fused_activation(options, schema.AddOptions.FUSED_ACTIVATION_FUNCTION)
    op = Add(builder.op_name(operator.name), first, second, builder.tensor_name(operator.name), activation)
    conversion.put(operator, builder.add(op))


def convert_clamp(operator: FileOperator, conversion: Conversion) -> None:
    """RELU, RELU6 and RELU_N1_TO_1, which rescale integers where the scales differ."""
    tensor = conversion.requantized(operator, conversion.value(operator))
    conversion.put_carried(operator, (tensor,), conversion.activated(operator, tensor, CLAMPS[operator.op_type]))


def convert_softmax(operator: FileOperator, conversion: Conversion) -> None:
    """SOFTMAX over the last axis."""
    options = conversion.options(operator, schema.BuiltinOptions.SOFTMAX)
    beta = options.number(schema.SoftmaxOptions.BETA)
    if beta != 1:
        refuse(f"beta {beta}, expected 1")
    builder, tensor = conversion.builder, conversion.value(operator)
    if not conversion.shape(tensor):
        refuse("its input has no axis")
    if _leave_out_behind_integers(operator, conversion):
        return
    op = Softmax(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name))
    conversion.put(operator, builder.add(op))


def convert_log_softmax(operator: FileOperator, conversion: Conversion) -> None:
    """LOG_SOFTMAX in floats that ends a network of integers."""
    if not _leave_out_behind_integers(operator, conversion):
        refuse("expected at the end of a quantised network alone, behind a DEQUANTIZE")


def _leave_out_behind_integers(operator: FileOperator, conversion: Conversion) -> bool:
    """Leave out what the file computes in floats at the end of its integers: the largest output stays the largest."""
    tensor = conversion.value(operator)
    is_last = operator.outputs == conversion.file.outputs
    if not is_last or conversion.output(operator).type != "FLOAT32" or tensor not in conversion.integers:
        return False
    conversion.notes.append(f"{operator.op_type} in floats behind the integers is left out: the outputs are its inputs")
    conversion.put_view(operator, Value(tensor))
    return True
