"""Functions that a .tflite file spells out in floats, recognised by their values: HARD_SWISH by RELU6, GELU by TANH."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.function_recognition import curves_on_grid, known_functions
from nettrim.importers.tflite_conversion import ACTIVATIONS, Conversion
from nettrim.importers.tflite_file import FileGraph, FileOperator
from nettrim.importers.tflite_functions import FUNCTIONS, add_function
from nettrim.importers.tflite_numbers import read_number
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import ActivationFunction, Function

Array = npt.NDArray[Any]

PAIRS: Mapping[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add,
    "DIV": np.divide,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "MUL": np.multiply,
    "POW": np.power,
    "SUB": np.subtract,
}
SINGLE: Mapping[str, Callable[[Array], Array]] = {
    "EXP": np.exp,
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "NEG": np.negative,
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": lambda x: np.clip(x, 0, 6),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1),
    "SQUARE": np.square,
    "TANH": np.tanh,
}
FUSING = {
    "ADD": schema.BuiltinOptions.ADD,
    "DIV": schema.BuiltinOptions.DIV,
    "MUL": schema.BuiltinOptions.MUL,
    "SUB": schema.BuiltinOptions.SUB,
}  # operators with a clamp of their own


@dataclass(frozen=True, eq=False)
class FunctionOperator(FileOperator):
    """A function of its input, in place of the operators that spell it out."""

    function: Function


def recognise_functions(file: FileGraph, operators: Sequence[FileOperator]) -> list[FileOperator]:
    """Return the operators with the last one of each spelled-out function as that function."""
    written = {str(operator.outputs[0]): operator for operator in operators if len(operator.outputs) == 1}
    curves: dict[str, dict[str, Array]] = {}  # tensor -> tensor it is a function of -> its values
    found: list[FileOperator] = []
    for operator in operators:
        name = str(operator.outputs[0])
        if operator.op_type in PAIRS.keys() | SINGLE.keys() and file.tensors[operator.outputs[0]].type == "FLOAT32":
            inputs = [str(place) for place in operator.inputs]
            numbers = {each: read_number(file, written, each) for each in inputs}
            scalars = {each: np.array(number, np.float32) for each, number in numbers.items() if number is not None}
            curves[name] = curves_on_grid(inputs, scalars, curves, functools.partial(_compute, operator))
        found.append(_known(file, operator, curves.get(name, {})) or operator)
    return found


def convert_recognised_function(operator: FunctionOperator, conversion: Conversion) -> None:
    """Append the function."""
    add_function(operator, conversion, operator.function)
    conversion.notes.append(f"{operator.function.value} {operator.name!r} recognised by its values")


def _known(file: FileGraph, operator: FileOperator, curves: Mapping[str, Array]) -> FunctionOperator | None:
    """Return the function that an operator and those before it compute, of a tensor of its own shape."""
    if operator.op_type in FUNCTIONS:
        return None
    shape = file.tensors[operator.outputs[0]].shape
    for source, function in known_functions(curves):
        if file.tensors[int(source)].shape == shape:
            places = (int(source),), operator.outputs, schema.BuiltinOptions.NONE, None
            return FunctionOperator(operator.name, operator.op_type, *places, function=function)
    return None


def _compute(operator: FileOperator, inputs: Sequence[Array | None]) -> Array | None:
    """Return what an operator computes; None where it has other inputs or options than it should."""
    operands = [values for values in inputs if values is not None]
    with np.errstate(all="ignore"):
        if operator.op_type in SINGLE and len(operands) == 1:
            return SINGLE[operator.op_type](operands[0])
        clamp = _fused_clamp(operator)
        if operator.op_type not in PAIRS or len(operands) != 2 or clamp is None:
            return None
        result: Array = np.clip(PAIRS[operator.op_type](*operands), clamp.lower, clamp.upper)
    return result


def _fused_clamp(operator: FileOperator) -> ActivationFunction | None:
    if operator.op_type not in FUSING:
        return ActivationFunction.NONE
    if operator.options is None or operator.options_type != FUSING[operator.op_type]:
        return None
    code = operator.options.integer(schema.AddOptions.FUSED_ACTIVATION_FUNCTION)
    return {int(known): function for known, function in ACTIVATIONS.items()}.get(code)
