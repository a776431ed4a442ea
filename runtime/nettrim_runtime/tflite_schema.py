"""The part of TFLite's published schema (schema.fbs, version 3) that nettrim reads and writes: values and slots.

Names are the schema's. A field's slot is its place in its table, a union counting twice (its type, then itself). The
importer and the exporter both need it, and this is the one room that both may import; nothing runs it on a board.
"""

import enum
from typing import NamedTuple

FILE_IDENTIFIER = b"TFL3"  # schema.fbs: file_identifier
SCHEMA_VERSION = 3  # schema.fbs: revision history
BUFFER_ALIGNMENT = 16  # schema.fbs: Buffer.data, force_align
PLACEHOLDER_FOR_GREATER_OP_CODES = 127  # schema.fbs: enum BuiltinOperator; the old 8-bit field's largest value


class TensorType(enum.IntEnum):  # schema.fbs: enum TensorType
    FLOAT32 = 0
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    INT16 = 7
    INT8 = 9


class BuiltinOperator(enum.IntEnum):  # schema.fbs: enum BuiltinOperator
    ADD = 0
    AVERAGE_POOL_2D = 1
    CONCATENATION = 2
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    FULLY_CONNECTED = 9
    LOGISTIC = 14
    MAX_POOL_2D = 17
    MUL = 18
    RELU = 19
    RELU_N1_TO_1 = 20
    RELU6 = 21
    RESHAPE = 22
    SOFTMAX = 25
    TANH = 28
    PAD = 34
    TRANSPOSE = 39
    MEAN = 40
    SUB = 41
    STRIDED_SLICE = 45
    LOG_SOFTMAX = 50
    PRELU = 54
    PADV2 = 60
    SLICE = 65
    EXPAND_DIMS = 70
    RSQRT = 76
    RESIZE_NEAREST_NEIGHBOR = 97
    LEAKY_RELU = 98
    QUANTIZE = 114
    HARD_SWISH = 117
    DENSIFY = 124
    GELU = 150


class Padding(enum.IntEnum):  # schema.fbs: enum Padding
    SAME = 0
    VALID = 1


class ActivationFunctionType(enum.IntEnum):  # schema.fbs: enum ActivationFunctionType
    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3


class FieldType(enum.Enum):
    """How a field is stored; the values are the names in flatbuffers.Builder's Prepend...Slot methods."""

    INT8 = "Int8"
    UINT8 = "Uint8"
    INT32 = "Int32"
    UINT32 = "Uint32"
    FLOAT32 = "Float32"
    OFFSET = "UOffsetTRelative"  # to a string, a vector or a table


class Field(NamedTuple):
    """A field of a table; a value equal to the default is not stored."""

    slot: int
    type: FieldType
    default: int = 0


class Model:  # schema.fbs: table Model
    VERSION = Field(0, FieldType.UINT32)
    OPERATOR_CODES = Field(1, FieldType.OFFSET)
    SUBGRAPHS = Field(2, FieldType.OFFSET)
    DESCRIPTION = Field(3, FieldType.OFFSET)
    BUFFERS = Field(4, FieldType.OFFSET)
    METADATA = Field(6, FieldType.OFFSET)


class Metadata:  # schema.fbs: table Metadata
    NAME = Field(0, FieldType.OFFSET)
    BUFFER = Field(1, FieldType.UINT32)


class OperatorCode:  # schema.fbs: table OperatorCode
    DEPRECATED_BUILTIN_CODE = Field(0, FieldType.INT8)
    VERSION = Field(2, FieldType.INT32, 1)
    BUILTIN_CODE = Field(3, FieldType.INT32)


class SubGraph:  # schema.fbs: table SubGraph
    TENSORS = Field(0, FieldType.OFFSET)
    INPUTS = Field(1, FieldType.OFFSET)
    OUTPUTS = Field(2, FieldType.OFFSET)
    OPERATORS = Field(3, FieldType.OFFSET)
    NAME = Field(4, FieldType.OFFSET)


class Tensor:  # schema.fbs: table Tensor
    SHAPE = Field(0, FieldType.OFFSET)
    TYPE = Field(1, FieldType.INT8)
    BUFFER = Field(2, FieldType.UINT32)
    NAME = Field(3, FieldType.OFFSET)
    QUANTIZATION = Field(4, FieldType.OFFSET)
    SPARSITY = Field(6, FieldType.OFFSET)
    SHAPE_SIGNATURE = Field(7, FieldType.OFFSET)


class QuantizationParameters:  # schema.fbs: table QuantizationParameters
    SCALE = Field(2, FieldType.OFFSET)
    ZERO_POINT = Field(3, FieldType.OFFSET)
    QUANTIZED_DIMENSION = Field(6, FieldType.INT32)


class DimensionType(enum.IntEnum):  # schema.fbs: enum DimensionType
    DENSE = 0
    SPARSE_CSR = 1


class SparseIndexVector(enum.IntEnum):  # schema.fbs: union SparseIndexVector
    NONE = 0
    INT32 = 1
    UINT16 = 2
    UINT8 = 3


class IndexVector:  # schema.fbs: tables Int32Vector, Uint16Vector and Uint8Vector
    VALUES = Field(0, FieldType.OFFSET)


class DimensionMetadata:  # schema.fbs: table DimensionMetadata
    FORMAT = Field(0, FieldType.INT8)
    DENSE_SIZE = Field(1, FieldType.INT32)
    ARRAY_SEGMENTS_TYPE = Field(2, FieldType.UINT8)
    ARRAY_SEGMENTS = Field(3, FieldType.OFFSET)
    ARRAY_INDICES_TYPE = Field(4, FieldType.UINT8)
    ARRAY_INDICES = Field(5, FieldType.OFFSET)


class SparsityParameters:  # schema.fbs: table SparsityParameters
    TRAVERSAL_ORDER = Field(0, FieldType.OFFSET)
    BLOCK_MAP = Field(1, FieldType.OFFSET)
    DIM_METADATA = Field(2, FieldType.OFFSET)


class Buffer:  # schema.fbs: table Buffer
    DATA = Field(0, FieldType.OFFSET)


class Operator:  # schema.fbs: table Operator
    OPCODE_INDEX = Field(0, FieldType.UINT32)
    INPUTS = Field(1, FieldType.OFFSET)
    OUTPUTS = Field(2, FieldType.OFFSET)
    BUILTIN_OPTIONS_TYPE = Field(3, FieldType.UINT8)
    BUILTIN_OPTIONS = Field(4, FieldType.OFFSET)


class BuiltinOptions(enum.IntEnum):  # schema.fbs: union BuiltinOptions
    NONE = 0
    CONV_2D = 1
    DEPTHWISE_CONV_2D = 2
    POOL_2D = 5
    FULLY_CONNECTED = 8
    SOFTMAX = 9
    CONCATENATION = 10
    ADD = 11
    RESHAPE = 17
    SPACE_TO_DEPTH = 19
    MUL = 21
    PAD = 22
    GATHER = 23
    TRANSPOSE = 26
    REDUCER = 27
    SUB = 28
    DIV = 29
    SQUEEZE = 30
    STRIDED_SLICE = 32
    PADV2 = 43
    TRANSPOSE_CONV = 49
    PACK = 59
    UNPACK = 64
    RESIZE_NEAREST_NEIGHBOR = 74
    LEAKY_RELU = 75
    DEPTH_TO_SPACE = 94
    BATCH_MATMUL = 101
    GELU = 116


class Conv2DOptions:  # schema.fbs: table Conv2DOptions
    PADDING = Field(0, FieldType.INT8)
    STRIDE_W = Field(1, FieldType.INT32)
    STRIDE_H = Field(2, FieldType.INT32)
    FUSED_ACTIVATION_FUNCTION = Field(3, FieldType.INT8)
    DILATION_W_FACTOR = Field(4, FieldType.INT32, 1)
    DILATION_H_FACTOR = Field(5, FieldType.INT32, 1)


class DepthwiseConv2DOptions:  # schema.fbs: table DepthwiseConv2DOptions
    PADDING = Field(0, FieldType.INT8)
    STRIDE_W = Field(1, FieldType.INT32)
    STRIDE_H = Field(2, FieldType.INT32)
    DEPTH_MULTIPLIER = Field(3, FieldType.INT32)
    FUSED_ACTIVATION_FUNCTION = Field(4, FieldType.INT8)
    DILATION_W_FACTOR = Field(5, FieldType.INT32, 1)
    DILATION_H_FACTOR = Field(6, FieldType.INT32, 1)


class TransposeConvOptions:  # schema.fbs: table TransposeConvOptions
    PADDING = Field(0, FieldType.INT8)
    STRIDE_W = Field(1, FieldType.INT32)
    STRIDE_H = Field(2, FieldType.INT32)
    FUSED_ACTIVATION_FUNCTION = Field(3, FieldType.INT8)


class Pool2DOptions:  # schema.fbs: table Pool2DOptions
    PADDING = Field(0, FieldType.INT8)
    STRIDE_W = Field(1, FieldType.INT32)
    STRIDE_H = Field(2, FieldType.INT32)
    FILTER_WIDTH = Field(3, FieldType.INT32)
    FILTER_HEIGHT = Field(4, FieldType.INT32)
    FUSED_ACTIVATION_FUNCTION = Field(5, FieldType.INT8)


class FullyConnectedOptions:  # schema.fbs: table FullyConnectedOptions
    FUSED_ACTIVATION_FUNCTION = Field(0, FieldType.INT8)
    WEIGHTS_FORMAT = Field(1, FieldType.INT8)
    KEEP_NUM_DIMS = Field(2, FieldType.UINT8)


class BatchMatMulOptions:  # schema.fbs: table BatchMatMulOptions
    ADJ_X = Field(0, FieldType.UINT8)
    ADJ_Y = Field(1, FieldType.UINT8)


class SoftmaxOptions:  # schema.fbs: table SoftmaxOptions
    BETA = Field(0, FieldType.FLOAT32)


class ConcatenationOptions:  # schema.fbs: table ConcatenationOptions
    AXIS = Field(0, FieldType.INT32)
    FUSED_ACTIVATION_FUNCTION = Field(1, FieldType.INT8)


class AddOptions:  # schema.fbs: tables AddOptions, SubOptions and, but for the second field, MulOptions, DivOptions
    FUSED_ACTIVATION_FUNCTION = Field(0, FieldType.INT8)
    POT_SCALE_INT16 = Field(1, FieldType.INT8, 1)


class LeakyReluOptions:  # schema.fbs: table LeakyReluOptions
    ALPHA = Field(0, FieldType.FLOAT32)


class GeluOptions:  # schema.fbs: table GeluOptions
    APPROXIMATE = Field(0, FieldType.INT8)


class ReshapeOptions:  # schema.fbs: table ReshapeOptions
    NEW_SHAPE = Field(0, FieldType.OFFSET)


class ReducerOptions:  # schema.fbs: table ReducerOptions
    KEEP_DIMS = Field(0, FieldType.UINT8)


class SqueezeOptions:  # schema.fbs: table SqueezeOptions
    SQUEEZE_DIMS = Field(0, FieldType.OFFSET)


class StridedSliceOptions:  # schema.fbs: table StridedSliceOptions
    BEGIN_MASK = Field(0, FieldType.INT32)
    END_MASK = Field(1, FieldType.INT32)
    ELLIPSIS_MASK = Field(2, FieldType.INT32)
    NEW_AXIS_MASK = Field(3, FieldType.INT32)
    SHRINK_AXIS_MASK = Field(4, FieldType.INT32)
    OFFSET = Field(5, FieldType.UINT8)


class GatherOptions:  # schema.fbs: table GatherOptions
    AXIS = Field(0, FieldType.INT32)
    BATCH_DIMS = Field(1, FieldType.INT32)


class PackOptions:  # schema.fbs: table PackOptions
    VALUES_COUNT = Field(0, FieldType.INT32)
    AXIS = Field(1, FieldType.INT32)


class UnpackOptions:  # schema.fbs: table UnpackOptions
    NUM = Field(0, FieldType.INT32)
    AXIS = Field(1, FieldType.INT32)


class BlockOptions:  # schema.fbs: tables DepthToSpaceOptions and SpaceToDepthOptions
    BLOCK_SIZE = Field(0, FieldType.INT32)


class ResizeNearestNeighborOptions:  # schema.fbs: table ResizeNearestNeighborOptions
    ALIGN_CORNERS = Field(0, FieldType.UINT8)
    HALF_PIXEL_CENTERS = Field(1, FieldType.UINT8)
