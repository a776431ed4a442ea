"""The bytes of a .tflite file to its tensors and operators; what points outside the file, or is too large, is refused.

Follows schema.fbs (nettrim_runtime.tflite_schema). Constants stay views of the file until an operator needs them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.flatbuffer import FlatBuffer, Table
from nettrim.importers.tflite_names import OPERATOR_NAMES, TYPE_NAMES
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

MOST_TABLES = 1 << 14  # operators, tensors, buffers: far above any network for the boards
MOST_OPERANDS = 1 << 10  # inputs or outputs of one operator
MOST_AXES = 8
MOST_SCALES = 1 << 16
MOST_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class FileQuantization:
    """real value = scale * (integer - zero_point), one for the tensor or one an entry of ``axis``.

    Attributes
    ----------
    scale, zero_point : Array
        (1,) or (n,), float32 and int64 of equal length.
    """

    scale: Array
    zero_point: Array
    axis: int


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file.

    Attributes
    ----------
    shape : tuple of int
        With the batch axis, as stored.
    signature : tuple of int
        The same with -1 for sizes that are open; empty where the file has none.
    type : str
        The schema's name of its type.
    data : Array
        uint8 bytes of a constant; empty of an activation.
    sparsity : Table or None
        How a sparse constant is laid out.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    type: str
    quantization: FileQuantization | None
    data: Array
    sparsity: Table | None

    @property
    def is_constant(self) -> bool:
        """Whether the file holds its values."""
        return self.data.size > 0


@dataclass(frozen=True, eq=False)
class FileOperator:
    """An operator of the file; inputs and outputs are places in the list of tensors, -1 one left out."""

    name: str
    op_type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: int
    options: Table | None


@dataclass(frozen=True, eq=False)
class FileGraph:
    """The file's first subgraph, the network itself."""

    source: str
    description: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_tflite(data: bytes, source: str) -> FileGraph:
    """Return what a .tflite file holds.

    Parameters
    ----------
    source : str
        The file, for error messages.

    Raises
    ------
    ModelFileError
        When the file is damaged or of another version: one sentence says where.
    """
    buffer = FlatBuffer(data, source)
    model = buffer.root(schema.FILE_IDENTIFIER, "the model")
    version = model.integer(schema.Model.VERSION)
    if version != schema.SCHEMA_VERSION:
        raise ModelFileError(f"{source}: schema version {version}, expected {schema.SCHEMA_VERSION}")
    subgraphs = model.children(schema.Model.SUBGRAPHS, "subgraphs", MOST_TABLES)
    if not subgraphs:
        raise ModelFileError(f"{source}: the model has no subgraph, expected a network")
    subgraph = buffer.table(subgraphs[0], "the network")
    tensors = _tensors(buffer, model, subgraph)
    operators = _operators(buffer, model, subgraph, tensors)
    inputs, outputs = (
        _places(subgraph, field, what, len(tensors), least=0)
        for field, what in ((schema.SubGraph.INPUTS, "inputs"), (schema.SubGraph.OUTPUTS, "outputs"))
    )
    return FileGraph(source, model.text(schema.Model.DESCRIPTION), tensors, operators, inputs, outputs)


def _tensors(buffer: FlatBuffer, model: Table, subgraph: Table) -> tuple[FileTensor, ...]:
    buffers = model.children(schema.Model.BUFFERS, "buffers", MOST_TABLES)
    places = subgraph.children(schema.SubGraph.TENSORS, "tensors", MOST_TABLES)
    return tuple(
        _tensor(buffer, buffer.table(place, f"tensor {number}"), buffers) for number, place in enumerate(places)
    )


def _tensor(buffer: FlatBuffer, table: Table, buffers: tuple[int, ...]) -> FileTensor:
    number = table.integer(schema.Tensor.BUFFER)
    if number >= len(buffers):
        raise ModelFileError(f"{buffer.source}: {table.what} names buffer {number}, expected one of {len(buffers)}")
    data = buffer.table(buffers[number], f"buffer {number}")
    code = table.integer(schema.Tensor.TYPE)
    return FileTensor(
        name=table.text(schema.Tensor.NAME),
        shape=_sizes(table, schema.Tensor.SHAPE, "shape"),
        signature=_sizes(table, schema.Tensor.SHAPE_SIGNATURE, "signature"),
        type=TYPE_NAMES[code] if 0 <= code < len(TYPE_NAMES) else f"type {code}",
        quantization=_quantization(table),
        data=data.numbers(schema.Buffer.DATA, np.uint8, "data", MOST_BYTES),
        sparsity=table.child(schema.Tensor.SPARSITY, "sparsity"),
    )


def _sizes(table: Table, field: schema.Field, what: str) -> tuple[int, ...]:
    return tuple(int(size) for size in table.numbers(field, np.int32, what, MOST_AXES))


def _quantization(table: Table) -> FileQuantization | None:
    parameters = table.child(schema.Tensor.QUANTIZATION, "quantization")
    if parameters is None:
        return None
    scale = parameters.numbers(schema.QuantizationParameters.SCALE, np.float32, "scale", MOST_SCALES)
    zero_point = parameters.numbers(schema.QuantizationParameters.ZERO_POINT, np.int64, "zero point", MOST_SCALES)
    if scale.size == 0:
        return None
    if zero_point.size not in {0, 1, scale.size} or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelFileError(
            f"{table.buffer.source}: {table.what} has {scale.size} scales and {zero_point.size} zero points, expected "
            "as many of each, and positive scales"
        )
    zero_points = np.broadcast_to(zero_point, scale.shape) if zero_point.size else np.zeros(scale.size, np.int64)
    return FileQuantization(scale, zero_points, parameters.integer(schema.QuantizationParameters.QUANTIZED_DIMENSION))


def _operators(
    buffer: FlatBuffer, model: Table, subgraph: Table, tensors: tuple[FileTensor, ...]
) -> tuple[FileOperator, ...]:
    codes = [
        _operator_name(buffer.table(place, f"operator code {number}"))
        for number, place in enumerate(model.children(schema.Model.OPERATOR_CODES, "operator codes", MOST_TABLES))
    ]
    places = subgraph.children(schema.SubGraph.OPERATORS, "operators", MOST_TABLES)
    return tuple(
        _operator(buffer.table(place, f"operator {number}"), codes, tensors) for number, place in enumerate(places)
    )


def _operator_name(table: Table) -> str:
    """Return the schema's name; the code lies in one of two fields, by the file's age."""
    old = table.integer(schema.OperatorCode.DEPRECATED_BUILTIN_CODE)
    code = max(old, table.integer(schema.OperatorCode.BUILTIN_CODE))
    return OPERATOR_NAMES[code] if 0 <= code < len(OPERATOR_NAMES) else f"operator code {code}"


def _operator(table: Table, codes: list[str], tensors: tuple[FileTensor, ...]) -> FileOperator:
    number = table.integer(schema.Operator.OPCODE_INDEX)
    if number >= len(codes):
        raise ModelFileError(f"{table.buffer.source}: {table.what} names code {number}, expected one of {len(codes)}")
    inputs = _places(table, schema.Operator.INPUTS, "inputs", len(tensors), least=-1)
    outputs = _places(table, schema.Operator.OUTPUTS, "outputs", len(tensors), least=0)
    return FileOperator(
        name=tensors[outputs[0]].name if outputs else table.what,
        op_type=codes[number],
        inputs=inputs,
        outputs=outputs,
        options_type=table.integer(schema.Operator.BUILTIN_OPTIONS_TYPE),
        options=table.child(schema.Operator.BUILTIN_OPTIONS, "options"),
    )


def _places(table: Table, field: schema.Field, what: str, n_tensors: int, *, least: int) -> tuple[int, ...]:
    places = tuple(int(place) for place in table.numbers(field, np.int32, what, MOST_OPERANDS))
    if not all(least <= place < n_tensors for place in places):
        raise ModelFileError(
            f"{table.buffer.source}: {what} of {table.what} are tensors {places}, expected {least} to {n_tensors - 1}"
        )
    return places
