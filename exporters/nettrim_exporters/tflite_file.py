"""Tensors and operators to the bytes of a .tflite flatbuffer; the same input gives the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

from nettrim_exporters.flatbuffer_tables import Encode, Fields, write_table, write_tables, write_vector
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.graph import Quantization

Array = npt.NDArray[Any]

TENSOR_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "int64": schema.TensorType.INT64,
}
INDEX_VECTORS = {
    "uint8": schema.SparseIndexVector.UINT8,
    "uint16": schema.SparseIndexVector.UINT16,
    "int32": schema.SparseIndexVector.INT32,
}
BATCH_SIZE = 1
ANY_BATCH_SIZE = -1  # schema.fbs: Tensor.shape_signature


@dataclass(frozen=True, eq=False)
class BlockSparsity:
    """Which blocks along the last axis a constant keeps (schema.fbs, table SparsityParameters).

    Attributes
    ----------
    width : int
        Values of a block, along the last axis.
    segments : Array
        (n_rows + 1,) int32: where each row's blocks begin; rows are all axes but the last.
    indices : Array
        (n_blocks,) uint8, uint16 or int32: the place of each block in its row.
    """

    width: int
    segments: Array
    indices: Array


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of the file: an activation, whose shape leaves out the batch axis, or a constant with data.

    With a sparsity, ``shape`` is that of the dense constant, ``data`` the kept blocks one after the other; what an
    interpreter makes of it ``is_densified``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None
    data: Array | None = None
    sparsity: BlockSparsity | None = None
    is_densified: bool = False


@dataclass(frozen=True)
class FileOperator:
    """An operator of the file; inputs and outputs are places in the list of tensors."""

    code: schema.BuiltinOperator
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: schema.BuiltinOptions = schema.BuiltinOptions.NONE
    options: Fields = field(default_factory=dict)


@dataclass(frozen=True)
class FileModel:
    """All that a file holds: one subgraph, and bytes by name that interpreters pass over."""

    name: str
    description: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def encode_model(model: FileModel) -> bytes:
    """Return the flatbuffer of a model, following schema.fbs, table Model."""
    buffers = _buffers(model)
    codes = list(dict.fromkeys((operator.code, operator.version) for operator in model.operators))
    builder = flatbuffers.Builder(sum(len(data) for data in buffers) + (1 << 16))
    fields = {
        schema.Model.BUFFERS: write_tables(builder, [_buffer(data) for data in buffers]),
        schema.Model.SUBGRAPHS: write_tables(builder, [_subgraph(model, codes, buffers)]),
        schema.Model.OPERATOR_CODES: write_tables(builder, [_operator_code(*code) for code in codes]),
        schema.Model.DESCRIPTION: builder.CreateString(model.description),
        schema.Model.VERSION: schema.SCHEMA_VERSION,
    }
    if model.metadata:
        entries = [_metadata(name, buffers.index(data)) for name, data in model.metadata.items()]
        fields[schema.Model.METADATA] = write_tables(builder, entries)
    builder.Finish(write_table(builder, fields), file_identifier=schema.FILE_IDENTIFIER)
    return bytes(builder.Output())


def _buffers(model: FileModel) -> tuple[bytes, ...]:
    """Return each constant's bytes once; the first buffer is the empty one that activations name."""
    return tuple(dict.fromkeys((b"", *(_bytes(tensor) for tensor in model.tensors), *model.metadata.values())))


def _bytes(tensor: FileTensor) -> bytes:
    if tensor.data is None:
        return b""
    return np.ascontiguousarray(tensor.data, dtype=np.dtype(tensor.dtype).newbyteorder("<")).tobytes()


def _buffer(data: bytes) -> Encode:
    def encode(builder: Any) -> int:
        if not data:
            return write_table(builder, {})
        builder.Prep(schema.BUFFER_ALIGNMENT, len(data))
        return write_table(builder, {schema.Buffer.DATA: builder.CreateByteVector(data)})

    return encode


def _metadata(name: str, buffer_index: int) -> Encode:
    def encode(builder: Any) -> int:
        fields = {schema.Metadata.NAME: builder.CreateString(name), schema.Metadata.BUFFER: buffer_index}
        return write_table(builder, fields)

    return encode


def _operator_code(code: schema.BuiltinOperator, version: int) -> Encode:
    fields = {
        schema.OperatorCode.DEPRECATED_BUILTIN_CODE: min(code, schema.PLACEHOLDER_FOR_GREATER_OP_CODES),
        schema.OperatorCode.VERSION: version,
        schema.OperatorCode.BUILTIN_CODE: code,
    }
    return lambda builder: write_table(builder, fields)


def _subgraph(
    model: FileModel, codes: Sequence[tuple[schema.BuiltinOperator, int]], buffers: Sequence[bytes]
) -> Encode:
    buffer_index = {data: index for index, data in enumerate(buffers)}
    tensors = [_tensor(tensor, buffer_index[_bytes(tensor)]) for tensor in model.tensors]
    operators = [_operator(operator, codes.index((operator.code, operator.version))) for operator in model.operators]

    def encode(builder: Any) -> int:
        return write_table(
            builder,
            {
                schema.SubGraph.TENSORS: write_tables(builder, tensors),
                schema.SubGraph.INPUTS: write_vector(builder, model.inputs, np.int32),
                schema.SubGraph.OUTPUTS: write_vector(builder, model.outputs, np.int32),
                schema.SubGraph.OPERATORS: write_tables(builder, operators),
                schema.SubGraph.NAME: builder.CreateString(model.name),
            },
        )

    return encode


def _tensor(tensor: FileTensor, buffer_index: int) -> Encode:
    has_batch = tensor.data is None and not tensor.is_densified

    def encode(builder: Any) -> int:
        shape = (BATCH_SIZE, *tensor.shape) if has_batch else tensor.shape
        fields = {
            schema.Tensor.SHAPE: write_vector(builder, shape, np.int32),
            schema.Tensor.TYPE: TENSOR_TYPES[tensor.dtype],
            schema.Tensor.BUFFER: buffer_index,
            schema.Tensor.NAME: builder.CreateString(tensor.name),
        }
        if has_batch:
            fields[schema.Tensor.SHAPE_SIGNATURE] = write_vector(builder, (ANY_BATCH_SIZE, *tensor.shape), np.int32)
        if tensor.quantization is not None:
            fields[schema.Tensor.QUANTIZATION] = _quantization(builder, tensor.quantization)
        if tensor.sparsity is not None:
            fields[schema.Tensor.SPARSITY] = _sparsity(builder, tensor.shape, tensor.sparsity)
        return write_table(builder, fields)

    return encode


def _sparsity(builder: Any, shape: tuple[int, ...], sparsity: BlockSparsity) -> int:
    """Write the traversal: every axis, the last one in blocks, and then the inside of a block."""
    *rows, n_columns = shape
    dimensions: list[Encode] = [
        *(_dense_dimension(size) for size in rows),
        _sparse_dimension(n_columns // sparsity.width, sparsity),
    ]
    fields: dict[schema.Field, float] = {}
    if sparsity.width > 1:
        dimensions.append(_dense_dimension(sparsity.width))
        fields[schema.SparsityParameters.BLOCK_MAP] = write_vector(builder, (len(rows),), np.int32)
    order = write_vector(builder, range(len(dimensions)), np.int32)
    metadata = write_tables(builder, dimensions)
    traversal = {schema.SparsityParameters.TRAVERSAL_ORDER: order, schema.SparsityParameters.DIM_METADATA: metadata}
    return write_table(builder, {**traversal, **fields})


def _dense_dimension(size: int) -> Encode:
    fields = {
        schema.DimensionMetadata.FORMAT: schema.DimensionType.DENSE,
        schema.DimensionMetadata.DENSE_SIZE: size,
    }
    return lambda builder: write_table(builder, fields)


def _sparse_dimension(size: int, sparsity: BlockSparsity) -> Encode:
    def encode(builder: Any) -> int:
        segments, indices = (_index_vector(builder, values) for values in (sparsity.segments, sparsity.indices))
        return write_table(
            builder,
            {
                schema.DimensionMetadata.FORMAT: schema.DimensionType.SPARSE_CSR,
                schema.DimensionMetadata.DENSE_SIZE: size,
                schema.DimensionMetadata.ARRAY_SEGMENTS_TYPE: INDEX_VECTORS[sparsity.segments.dtype.name],
                schema.DimensionMetadata.ARRAY_SEGMENTS: segments,
                schema.DimensionMetadata.ARRAY_INDICES_TYPE: INDEX_VECTORS[sparsity.indices.dtype.name],
                schema.DimensionMetadata.ARRAY_INDICES: indices,
            },
        )

    return encode


def _index_vector(builder: Any, values: Array) -> int:
    return write_table(builder, {schema.IndexVector.VALUES: write_vector(builder, values, values.dtype)})


def _quantization(builder: Any, quantization: Quantization) -> int:
    zero_points = [quantization.zero_point] * quantization.scale.size
    return write_table(
        builder,
        {
            schema.QuantizationParameters.SCALE: write_vector(builder, quantization.scale, np.float32),
            schema.QuantizationParameters.ZERO_POINT: write_vector(builder, zero_points, np.int64),
            schema.QuantizationParameters.QUANTIZED_DIMENSION: quantization.axis or 0,
        },
    )


def _operator(operator: FileOperator, opcode_index: int) -> Encode:
    def encode(builder: Any) -> int:
        fields = {
            schema.Operator.OPCODE_INDEX: opcode_index,
            schema.Operator.INPUTS: write_vector(builder, operator.inputs, np.int32),
            schema.Operator.OUTPUTS: write_vector(builder, operator.outputs, np.int32),
        }
        if operator.options_type != schema.BuiltinOptions.NONE:
            fields[schema.Operator.BUILTIN_OPTIONS_TYPE] = operator.options_type
            fields[schema.Operator.BUILTIN_OPTIONS] = write_table(builder, operator.options)
        return write_table(builder, fields)

    return encode
