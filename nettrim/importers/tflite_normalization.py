"""Layer normalisations that a .tflite file spells out in floats: the operators that int8 normalises best with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nettrim.importers.layer_normalization import add_normalization
from nettrim.importers.normalization_pattern import POWERS, Expression, Normalization, expression, find_normalizations
from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim.importers.tflite_file import FileGraph, FileOperator
from nettrim.importers.tflite_numbers import find_constant, read_axes, read_number
from nettrim.importers.tflite_scaling import add_scaling
from nettrim_runtime import tflite_schema as schema

KINDS = {
    "ADD": "add",
    "DIV": "div",
    "MEAN": "mean",
    "MUL": "mul",
    "RSQRT": "inverse root",
    "SQRT": "root",
    "SQUARE": "square",
    "SQUARED_DIFFERENCE": "squared difference",
    "SUB": "sub",
}
FUSING = {  # operators with a clamp of their own
    "ADD": schema.BuiltinOptions.ADD,
    "DIV": schema.BuiltinOptions.DIV,
    "MUL": schema.BuiltinOptions.MUL,
    "SUB": schema.BuiltinOptions.SUB,
}


@dataclass(frozen=True, eq=False)
class NormalizationOperator(FileOperator):
    """A normalisation of the last axes of its first input; scale and offset follow, -1 where they are left out."""

    n_axes: int
    epsilon: float


def recognise_normalizations(file: FileGraph, operators: Sequence[FileOperator]) -> list[FileOperator]:
    """Return the operators with each spelled-out layer normalisation as one."""
    if not any(operator.op_type == "MEAN" for operator in operators):
        return list(operators)
    written = {str(operator.outputs[0]): operator for operator in operators if len(operator.outputs) == 1}
    found = find_normalizations(written, _File(file, written))
    changed = {name: _as_operator(written[name], normalization) for name, normalization in found.items()}
    return [changed.get(str(operator.outputs[0]), operator) for operator in operators]


def convert_normalization(operator: NormalizationOperator, conversion: Conversion) -> None:
    """Append the normalisation, and a scale and an offset of every channel."""
    tensor = conversion.value(operator)
    shape = conversion.shape(tensor)
    if not 0 < operator.n_axes <= len(shape):
        refuse(f"a normalisation of {operator.n_axes} axes of {(1, *shape)}, expected some behind the batch")
    size = math.prod(shape[-operator.n_axes :])
    normalized = add_normalization(conversion.builder, operator.name, tensor, size, operator.epsilon)
    scale, offset = (conversion.optional_constant(operator, place, "factors") for place in (1, 2))
    if scale is not None or offset is not None:
        factors = np.ones(()) if scale is None else scale.exact_values()
        offsets = np.zeros(()) if offset is None else offset.exact_values()
        try:
            factors, offsets = np.broadcast_arrays(factors, offsets)
        except ValueError:
            refuse(f"a scale of shape {factors.shape} and an offset of shape {offsets.shape}, expected equal ones")
        normalized = add_scaling(conversion, operator.name, normalized, factors, offsets)
    conversion.put(operator, normalized)
    conversion.notes.append(f"layer normalisation {operator.name!r} recognised by its form")


def _as_operator(operator: FileOperator, found: Normalization) -> FileOperator:
    places = tuple(-1 if name is None else int(name) for name in (found.source, found.scale, found.offset))
    return NormalizationOperator(
        operator.name,
        operator.op_type,
        places,
        operator.outputs,
        schema.BuiltinOptions.NONE,
        None,
        n_axes=len(found.axes),
        epsilon=found.epsilon,
    )


@dataclass(frozen=True)
class _File:
    """The operators by the place of the tensor that they alone write, as `normalization_pattern.Expressions`."""

    file: FileGraph
    operators: Mapping[str, FileOperator]

    def find(self, name: str) -> Expression | None:
        operator = self.operators.get(name)
        if operator is None or self.file.tensors[int(name)].type != "FLOAT32":
            return None
        if operator.op_type == "MEAN":
            return self._mean(operator)
        inputs = tuple(str(place) for place in operator.inputs)
        if operator.op_type == "POW" and len(inputs) == 2:
            return expression(POWERS.get(self.number(inputs[1]) or 0.0), inputs[:1])
        return None if _clamps(operator) else expression(KINDS.get(operator.op_type), inputs)

    def is_constant(self, name: str) -> bool:
        return find_constant(self.file, self.operators, name) is not None

    def number(self, name: str) -> float | None:
        return read_number(self.file, self.operators, name)

    def _mean(self, operator: FileOperator) -> Expression | None:
        """Return a mean over the last axes that keeps them; axes count from the last, as -1."""
        options = operator.options
        if options is None or operator.options_type != schema.BuiltinOptions.REDUCER or len(operator.inputs) != 2:
            return None
        source, axes = (str(place) for place in operator.inputs)
        rank = len(self.file.tensors[operator.inputs[0]].shape)
        found = {axis - rank if axis >= 0 else axis for axis in read_axes(self.file, self.operators, axes)}
        last = tuple(range(-len(found), 0))
        if not found or found != set(last) or not options.integer(schema.ReducerOptions.KEEP_DIMS):
            return None
        return expression("mean", (source,), last)


def _clamps(operator: FileOperator) -> bool:
    """Whether an operator cuts off its results, or may."""
    if operator.op_type not in FUSING:
        return False
    if operator.options is None or operator.options_type != FUSING[operator.op_type]:
        return True
    return operator.options.integer(schema.AddOptions.FUSED_ACTIVATION_FUNCTION) != schema.ActivationFunctionType.NONE
