"""What is known while a .tflite network becomes a Graph: activations, constants, and the integers both came as.

The graph that is built computes in floats. Beside it stand the file's own integers and scales; where every operator
has them and nettrim computes as TFLite does, `tflite_integers` makes a quantised graph of the same operators.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nettrim.importers.flatbuffer import Table
from nettrim.importers.graph_builder import GraphBuilder
from nettrim.importers.tflite_constants import Constant, read_constant
from nettrim.importers.tflite_file import FileGraph, FileOperator, FileTensor
from nettrim.importers.tflite_sparsity import MOST_VALUES
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import NO_PADDING, Activation, ActivationFunction, Pad, Padding, Requantize

Array = npt.NDArray[Any]

ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: ActivationFunction.NONE,
    schema.ActivationFunctionType.RELU: ActivationFunction.RELU,
    schema.ActivationFunctionType.RELU_N1_TO_1: ActivationFunction.RELU_N1_TO_1,
    schema.ActivationFunctionType.RELU6: ActivationFunction.RELU6,
}
SCALED_TYPES = ("INT8", "UINT8", "INT16")  # of activations that stand for values
LARGEST_RATIO = {"INT8": 2.0**20, "UINT8": 2.0**20, "INT16": 2.0**14}  # of two scales: shifted integers have 32 bits
UINT8_OFFSET = 128  # from an uint8 value to the int8 one of the same meaning


class RefusedOperatorError(Exception):
    """An operator that cannot be carried over; the reason is its text."""


class UnknownInputError(Exception):
    """An operator reads what a refused one would have written: nothing can be said about it."""


@dataclass(frozen=True)
class Value:
    """An activation of the file: the graph's tensor that holds it, and what a PAD or PADV2 puts around that.

    Attributes
    ----------
    padding : Padding
        Zeros; of an image that only MAX_POOL_2D reads, the lowest value of its type where ``is_lowest`` says so.
    has_rows : bool
        Whether the file has rows of the one sample in the batch's place, between FULLY_CONNECTED and RESHAPE.
    """

    tensor: str
    padding: Padding = NO_PADDING
    is_lowest: bool = False
    has_rows: bool = False


@dataclass(frozen=True)
class Clamp:
    """A tensor cut off below and above."""

    source: str
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Integers:
    """What a tensor of the graph is in the file.

    Attributes
    ----------
    type : str
        The schema's name: INT8, INT16, or UINT8 whose zero point is that of the int8 value of the same meaning.
    data : Array or None
        A constant's integers, in the graph's shape.
    """

    type: str
    quantization: Quantization
    data: Array | None = None

    def same_as(self, other: "Integers") -> bool:
        """Whether both stand for values by the same integers, once uint8 is shifted to int8."""
        widths = {"UINT8": "INT8"}
        same_type = widths.get(self.type, self.type) == widths.get(other.type, other.type)
        return same_type and self.quantization.same_as(other.quantization)


class Conversion:
    """The state of one conversion.

    Attributes
    ----------
    integers : dict
        By tensor of the graph: activations, weights and biases that are integers in the file.
    clamps : dict
        By tensor of the graph: what a bound made of another tensor, for the bound that follows.
    objections : list of str
        Why the graph cannot compute with the file's integers as they are; empty if it can.
    notes : list of str
        What was left out.
    """

    def __init__(self, file: FileGraph) -> None:
        self.file = file
        self.builder = GraphBuilder(file.source)
        self.integers: dict[str, Integers] = {}
        self.clamps: dict[str, Clamp] = {}
        self.objections: list[str] = []
        self.notes: list[str] = []
        self._values: dict[int, Value] = {}
        self._padded: dict[Value, str] = {}
        self._constants: dict[int, Constant] = {}
        self._readers: dict[int, set[str]] = {}  # types of the operators that read a tensor, by its place
        self._constant_values = 0

    def options(self, operator: FileOperator, kind: schema.BuiltinOptions) -> Table:
        """Return an operator's options of the kind that belongs to it."""
        if operator.options is None or operator.options_type != kind:
            raise ModelFileError(
                f"{self.file.source}: {operator.op_type} {operator.name!r} has options of type "
                f"{operator.options_type}, expected {kind.name} ({kind.value})"
            )
        return operator.options

    def value(self, operator: FileOperator, place: int = 0) -> str:
        """Return an input's tensor in the graph; zeros that no convolution takes in are written by a `Pad`."""
        return self.padded(self.padded_value(operator, place))

    def padded(self, value: Value) -> str:
        """Return the tensor of a value with the zeros around it, if there are any."""
        if value.padding == NO_PADDING:
            return value.tensor
        assert not value.is_lowest, "only pools read it, and they take the padding in"
        if value not in self._padded:
            top, bottom, left, right = value.padding
            name = f"{value.tensor}/padded"
            names = (self.builder.op_name(name), value.tensor, self.builder.tensor_name(name))
            self._padded[value] = self.builder.add(Pad(*names, (top, left, 0), (bottom, right, 0)))
            if value.tensor in self.integers:
                self.integers[self._padded[value]] = self.integers[value.tensor]
        return self._padded[value]

    def padded_value(self, operator: FileOperator, place: int = 0) -> Value:
        """Return an input that a PAD may have padded."""
        index = self._input(operator, place)
        if index < 0 or index in self._constants or self.file.tensors[index].is_constant:
            refuse("it works on a constant, expected an activation")
        if index not in self._values:
            raise UnknownInputError
        return self._values[index]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor of the graph."""
        return self.builder.tensors[tensor].shape

    def image(self, tensor: str) -> str:
        """Return a tensor that is an image (height, width, channels), or refuse the operator."""
        if len(self.shape(tensor)) != 3:
            refuse(f"its input has shape {self.shape(tensor)}, expected (height, width, channels)")
        return tensor

    def constant(self, operator: FileOperator, place: int, what: str) -> Constant:
        """Return a constant input; refuse the operator when it is missing or computed."""
        found = self.optional_constant(operator, place, what)
        return refuse(f"it has no {what}") if found is None else found

    def optional_constant(self, operator: FileOperator, place: int, what: str) -> Constant | None:
        """Return a constant input, None when it is left out."""
        index = self._input(operator, place)
        if index < 0:
            return None
        if index not in self._constants:
            tensor = self.file.tensors[index]
            if not tensor.is_constant:
                refuse(f"its {what} is computed by the network, expected a constant")
            self._keep(index, read_constant(tensor, self.file.source))
        return self._constants[index]

    def sizes(self, operator: FileOperator, place: int, what: str) -> Array:
        """Return a constant input of integers: a shape, axes, paddings."""
        numbers = self.constant(operator, place, what).numbers
        if numbers.dtype.kind != "i":
            refuse(f"its {what} are {numbers.dtype}, expected integers")
        return numbers.astype(np.int64)

    def is_constant(self, operator: FileOperator, place: int) -> bool:
        """Whether an input is a constant."""
        index = self._input(operator, place)
        return index in self._constants or (index >= 0 and self.file.tensors[index].is_constant)

    def put_constant(self, operator: FileOperator, constant: Constant) -> None:
        """Keep an operator's output that follows from constants."""
        self._keep(operator.outputs[0], constant)

    def put(self, operator: FileOperator, tensor: str, part: int = 0, *, has_rows: bool = False) -> None:
        """Keep an operator's output, one of several, and the integers that it is in the file."""
        source = self.file.tensors[operator.outputs[part]]
        if source.type != "FLOAT32" and (source.type not in SCALED_TYPES or source.quantization is None):
            refuse(f"its result is {source.type}, expected FLOAT32, or {', '.join(SCALED_TYPES)} with a scale")
        self._values[operator.outputs[part]] = Value(tensor, has_rows=has_rows)
        self._note_integers(tensor, source)

    def put_carried(
        self, operator: FileOperator, sources: tuple[str, ...], tensor: str, part: int = 0, *, has_rows: bool = False
    ) -> None:
        """Keep the output of an operator that moves integers: its inputs' quantisation must be its own."""
        own = integers_of(self.file.tensors[operator.outputs[part]])
        if any(not _same(own, self.integers.get(source)) for source in sources):
            self.objections.append(f"{operator.op_type} {operator.name!r} reads and writes different scales")
        self.put(operator, tensor, part, has_rows=has_rows)

    def put_view(self, operator: FileOperator, value: Value) -> None:
        """Keep an operator's output that is another name of a value, whatever integers it is."""
        self._values[operator.outputs[0]] = value

    def put_input(self, index: int, tensor: str) -> None:
        """Keep the network's input."""
        self._values[index] = Value(tensor)
        self._note_integers(tensor, self.file.tensors[index])

    def only_read_by(self, operator: FileOperator, op_type: str) -> bool:
        """Whether an operator's output goes to operators of one type, and is no output of the network."""
        if not self._readers:
            self._readers = {index: {""} for index in self.file.outputs}
            for reader in self.file.operators:
                for index in reader.inputs:
                    self._readers.setdefault(index, set()).add(reader.op_type)
        return self._readers.get(operator.outputs[0]) == {op_type}

    def find(self, index: int) -> Value | None:
        """Return an activation that has been converted."""
        return self._values.get(index)

    def output(self, operator: FileOperator) -> FileTensor:
        """Return an operator's first output."""
        return self.file.tensors[operator.outputs[0]]

    def input(self, operator: FileOperator, place: int = 0) -> FileTensor:
        """Return the file's tensor of an input."""
        return self.file.tensors[self._input(operator, place)]

    def requantized(self, operator: FileOperator, tensor: str) -> str:
        """Return a tensor with the quantisation of an operator's output, rescaled if it has another one."""
        wanted, found = integers_of(self.output(operator)), self.integers.get(tensor)
        if wanted is None or found is None or wanted.same_as(found):
            return tensor
        ratio = float(found.quantization.scale[0]) / float(wanted.quantization.scale[0])
        if not 1 / LARGEST_RATIO["INT8"] < ratio < LARGEST_RATIO[found.type]:
            self.objections.append(f"{operator.op_type} {operator.name!r} rescales {found.type} by {ratio:.3g}")
        name = self.builder.op_name(f"{operator.name}/requantize")
        rescaled = self.builder.add(Requantize(name, tensor, self.builder.tensor_name(operator.name)))
        self.integers[rescaled] = wanted
        return rescaled

    def activated(self, operator: FileOperator, tensor: str, activation: ActivationFunction) -> str:
        """Return a tensor behind a clamp, where it does anything."""
        if activation is ActivationFunction.NONE:
            return tensor
        builder = self.builder
        op = Activation(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), activation)
        if tensor in self.integers:
            self.integers[op.output] = self.integers[tensor]
        return builder.add(op)

    def _input(self, operator: FileOperator, place: int) -> int:
        return operator.inputs[place] if place < len(operator.inputs) else -1

    def _keep(self, index: int, constant: Constant) -> None:
        self._constant_values += constant.numbers.size
        if self._constant_values > MOST_VALUES:
            raise ModelFileError(f"{self.file.source}: constants of more than {MOST_VALUES} values, expected fewer")
        self._constants[index] = constant

    def _note_integers(self, tensor: str, source: FileTensor) -> None:
        found = integers_of(source)
        if found is not None:
            self.integers[tensor] = found


def integers_of(tensor: FileTensor) -> Integers | None:
    """Return what an activation is in the file; None of floats, and of integers without one scale."""
    found = tensor.quantization
    if found is None or found.scale.size != 1 or tensor.type not in SCALED_TYPES:
        return None
    zero_point = int(found.zero_point[0]) - (UINT8_OFFSET if tensor.type == "UINT8" else 0)
    limits = np.iinfo(np.int16 if tensor.type == "INT16" else np.int8)
    if not limits.min <= zero_point <= limits.max:
        return None
    return Integers(tensor.type, Quantization(found.scale.astype(np.float32), zero_point))


def fused_activation(options: Table, field: schema.Field) -> ActivationFunction:
    """Return the clamp that an operator's options name, or refuse the operator."""
    code = options.integer(field)
    if code not in ACTIVATIONS:
        refuse(f"fused activation function {code}, expected one of {[kind.name for kind in ACTIVATIONS]}")
    return ACTIVATIONS[schema.ActivationFunctionType(code)]


def refuse(reason: str) -> NoReturn:
    """Raise RefusedOperatorError."""
    raise RefusedOperatorError(reason)


def _same(first: Integers | None, second: Integers | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.same_as(second)
