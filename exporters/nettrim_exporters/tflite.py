"""A graph to a dense .tflite file that LiteRT, TensorFlow Lite and TFLite Micro run: int8 and int16, or float32."""

from collections.abc import Collection
from typing import assert_never

import numpy as np

from nettrim_exporters.flatbuffer_tables import Fields
from nettrim_exporters.tflite_blocks import BLOCKED_FULLY_CONNECTED_VERSION, block_width, encode_blocks
from nettrim_exporters.tflite_checks import check_tflite
from nettrim_exporters.tflite_codes import (
    DILATED_DEPTHWISE_VERSION,
    FUNCTIONS,
    FUSED,
    GROUPED_CONV_2D_VERSION,
    HYBRID_FULLY_CONNECTED_VERSION,
    PAIRWISE,
    POOLS,
    STAND_ALONE,
    TYPES,
    VERSIONS,
)
from nettrim_exporters.tflite_file import (
    ANY_BATCH_SIZE,
    Array,
    FileModel,
    FileOperator,
    FileTensor,
    encode_model,
)
from nettrim_exporters.tflite_metadata import BUFFER_NAME, Preparation, encode_metadata, with_labels
from nettrim_exporters.tflite_moves import geometry
from nettrim_exporters.tflite_padding import Window, tflite_padding
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import (
    UNIT,
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Function,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Move,
    Mul,
    Op,
    Pad,
    Pairwise,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
    op_inputs,
)

Code = schema.BuiltinOperator

DEPTHWISE_AXIS = 3  # depthwise weights are 1HWO


def render_tflite(
    graph: Graph, description: str = "", blocked: Collection[str] = (), preparation: Preparation | None = None
) -> bytes:
    """Return a network as a TFLite flatbuffer.

    The file's shapes have a batch of 1; its shape signature lets an interpreter resize the batch axis.
    Biases are int32, or int64 beside int16, at scale input scale * weight scale. The int8 softmax of TFLite's reference
    kernels stops the process where its sum of exp(input - largest) reaches 512, which needs 512 classes or more.

    Parameters
    ----------
    graph : Graph
        Quantised, which gives an int8 file (and int16 where its tensors are), or float, which gives a float32 file.
    description : str
        Free text kept in the file.
    blocked : collection of str
        The `Dense` layers, and float `Conv2d` of one pixel, whose weights are stored sparse, see `tflite_blocks`; all
        others are dense. TFLite Micro does not read such a file.
    preparation : Preparation, optional
        Kept as the file's metadata; class names are packed behind the model.

    Raises
    ------
    UnsupportedOperatorError
        As `check_tflite`.
    """
    check_tflite(graph)
    lowering = _Lowering(graph, blocked)
    for op in graph.ops:
        lowering.add(op)
    metadata = {} if preparation is None else {BUFFER_NAME: encode_metadata(graph, preparation, description)}
    content = encode_model(
        FileModel(
            name=graph.name,
            description=description,
            tensors=tuple(lowering.tensors),
            operators=tuple(lowering.operators),
            inputs=tuple(lowering.activations[name] for name in graph.inputs),
            outputs=tuple(lowering.activations[name] for name in graph.outputs),
            metadata=metadata,
        )
    )
    return with_labels(content, preparation.labels) if preparation and preparation.labels else content


class _Lowering:
    """The file's tensors and operators, collected in execution order."""

    def __init__(self, graph: Graph, blocked: Collection[str]) -> None:
        self.graph, self.blocked = graph, blocked
        self.tensors: list[FileTensor] = []
        self.operators: list[FileOperator] = []
        self.activations: dict[str, int] = {}
        self.constants: dict[tuple[str, bytes], int] = {}  # name and scale -> place
        self.densified: dict[int, int] = {}  # place of sparse weights -> of dense ones
        self.has_sparse_convolutions = any(op.name in blocked for op in graph.layers if isinstance(op, Conv2d))
        for name in graph.inputs:
            self._activation(name)

    def add(self, op: Op) -> None:
        match op:
            case Dense():
                self._dense(op)
            case Conv2d() if op.groups > 1 and op.groups == self.graph.tensors[op.input].shape[2]:
                self._depthwise(op)
            case Conv2d():
                self._conv(op)
            case AveragePool2d() if self.has_sparse_convolutions and op.kernel_size == self._image_size(op):
                self._with_geometry(Mean(op.name, op.input, op.output, (0, 1), keep_dims=True))
            case MaxPool2d() | AveragePool2d():
                self._pool(op)
            case Add() | Sub() | Mul():
                self._pair(op)
            case Concat():
                parts = tuple(self.activations[name] for name in op.inputs)
                axis: Fields = {schema.ConcatenationOptions.AXIS: len(self.graph.tensors[op.output].shape)}
                self._operator(op, Code.CONCATENATION, parts, schema.BuiltinOptions.CONCATENATION, axis)
            case Activation():
                self._operator(op, STAND_ALONE[op.activation], (self.activations[op.input],))
            case Reshape():
                new_shape = self._integers(f"{op.name}/shape", [ANY_BATCH_SIZE, *self.graph.tensors[op.output].shape])
                self._operator(op, Code.RESHAPE, (self.activations[op.input], new_shape))
            case Pad() | Slice() | Transpose() | ResizeNearest() | Mean():
                self._with_geometry(op)
            case Requantize():
                self._operator(op, Code.QUANTIZE, (self.activations[op.input],))
            case UnaryFunction():
                self._function(op)
            case PRelu():
                self._operator(op, Code.PRELU, (self.activations[op.input], self._slope(op)))
            case LogSoftmax():
                self._operator(op, Code.LOG_SOFTMAX, (self.activations[op.input],))
            case Softmax():
                beta: Fields = {schema.SoftmaxOptions.BETA: 1}
                self._operator(op, Code.SOFTMAX, (self.activations[op.input],), schema.BuiltinOptions.SOFTMAX, beta)
            case _:
                assert_never(op)

    def _dense(self, op: Dense) -> None:
        is_blocked = op.name in self.blocked
        weight = self._blocked_weight(op) if is_blocked else self._weight(op)
        inputs = (self.activations[op.input], weight, self._bias(op))
        options = {schema.FullyConnectedOptions.FUSED_ACTIVATION_FUNCTION: FUSED[op.activation]}
        is_hybrid = self.graph.tensors[op.weight].dtype != self.graph.tensors[op.input].dtype
        version = HYBRID_FULLY_CONNECTED_VERSION if is_hybrid else None
        version = BLOCKED_FULLY_CONNECTED_VERSION if is_blocked else version
        self._operator(
            op, Code.FULLY_CONNECTED, inputs, schema.BuiltinOptions.FULLY_CONNECTED, options, version=version
        )

    def _conv(self, op: Conv2d) -> None:
        image, padding = self._padded(op)
        weight = self._densified_weight(op) if op.name in self.blocked else self._weight(op)
        inputs = (image, weight, self._bias(op))
        options = {
            schema.Conv2DOptions.PADDING: padding,
            schema.Conv2DOptions.STRIDE_W: op.stride.width,
            schema.Conv2DOptions.STRIDE_H: op.stride.height,
            schema.Conv2DOptions.FUSED_ACTIVATION_FUNCTION: FUSED[op.activation],
            schema.Conv2DOptions.DILATION_W_FACTOR: op.dilation.width,
            schema.Conv2DOptions.DILATION_H_FACTOR: op.dilation.height,
        }
        version = GROUPED_CONV_2D_VERSION if op.groups > 1 else None
        self._operator(op, Code.CONV_2D, inputs, schema.BuiltinOptions.CONV_2D, options, version=version)

    def _depthwise(self, op: Conv2d) -> None:
        image, padding = self._padded(op)
        inputs = (image, self._depthwise_weight(op), self._bias(op))
        options = {
            schema.DepthwiseConv2DOptions.PADDING: padding,
            schema.DepthwiseConv2DOptions.STRIDE_W: op.stride.width,
            schema.DepthwiseConv2DOptions.STRIDE_H: op.stride.height,
            schema.DepthwiseConv2DOptions.DEPTH_MULTIPLIER: self.graph.tensors[op.weight].shape[0] // op.groups,
            schema.DepthwiseConv2DOptions.FUSED_ACTIVATION_FUNCTION: FUSED[op.activation],
            schema.DepthwiseConv2DOptions.DILATION_W_FACTOR: op.dilation.width,
            schema.DepthwiseConv2DOptions.DILATION_H_FACTOR: op.dilation.height,
        }
        is_float_dilated = op.dilation != UNIT and not self.graph.is_quantized
        version = DILATED_DEPTHWISE_VERSION if is_float_dilated else None
        self._operator(
            op, Code.DEPTHWISE_CONV_2D, inputs, schema.BuiltinOptions.DEPTHWISE_CONV_2D, options, version=version
        )

    def _pool(self, op: MaxPool2d | AveragePool2d) -> None:
        image, padding = self._padded(op)
        options = {
            schema.Pool2DOptions.PADDING: padding,
            schema.Pool2DOptions.STRIDE_W: op.stride.width,
            schema.Pool2DOptions.STRIDE_H: op.stride.height,
            schema.Pool2DOptions.FILTER_WIDTH: op.kernel_size.width,
            schema.Pool2DOptions.FILTER_HEIGHT: op.kernel_size.height,
        }
        self._operator(op, POOLS[type(op)], (image,), schema.BuiltinOptions.POOL_2D, options)

    def _image_size(self, op: AveragePool2d) -> tuple[int, ...]:
        return self.graph.tensors[op.input].shape[:2]

    def _pair(self, op: Pairwise) -> None:
        code, options_type = PAIRWISE[type(op)]
        options: Fields = {schema.AddOptions.FUSED_ACTIVATION_FUNCTION: FUSED[op.activation]}
        if self.graph.tensors[op.output].dtype == "int16" and not isinstance(op, Mul):
            options = {**options, schema.AddOptions.POT_SCALE_INT16: 0}  # scales as they are
        inputs = (self.activations[op.first], self.activations[op.second])
        self._operator(op, code, inputs, options_type, options)

    def _function(self, op: UnaryFunction) -> None:
        options_type = schema.BuiltinOptions.NONE
        options: Fields = {}
        if op.function is Function.LEAKY_RELU:
            options_type, options = schema.BuiltinOptions.LEAKY_RELU, {schema.LeakyReluOptions.ALPHA: op.alpha}
        elif op.function in {Function.GELU, Function.GELU_TANH}:
            is_approximate = op.function is Function.GELU_TANH
            options_type, options = schema.BuiltinOptions.GELU, {schema.GeluOptions.APPROXIMATE: is_approximate}
        self._operator(op, FUNCTIONS[op.function], (self.activations[op.input],), options_type, options)

    def _slope(self, op: PRelu) -> int:
        slope = self.graph.tensors[op.slope]
        shape = (1,) * (len(self.graph.tensors[op.input].shape) - 1) + slope.shape
        values = slope.values().reshape(shape)
        return self._tensor(FileTensor(slope.name, shape, slope.dtype, slope.quantization, values))

    def _with_geometry(self, op: Move | Mean) -> None:
        form = geometry(op)
        constants = [self._integers(f"{op.name}/{name}", values) for name, values in form.constants.items()]
        version = max(self._version(form.code, op.input), form.lowest_version)
        inputs = (self.activations[op.input], *constants)
        self._operator(op, form.code, inputs, form.options_type, form.options, version=version)

    def _padded(self, op: Window) -> tuple[int, schema.Padding]:
        """Return the image a window slides over, padded before it where TFLite has no word for the padding.

        XNNPACK's sparse convolutions take no SAME padding.
        """
        padding = tflite_padding(self.graph, op)
        if padding is not None and not (self.has_sparse_convolutions and padding is schema.Padding.SAME):
            return self.activations[op.input], padding
        source = self.graph.tensors[op.input]
        height, width, n_channels = source.shape
        pad = op.padding
        shape = (height + pad.top + pad.bottom, width + pad.left + pad.right, n_channels)
        rows = [[0, 0], [pad.top, pad.bottom], [pad.left, pad.right], [0, 0]]
        inputs = [self.activations[op.input], self._integers(f"{op.name}/padding", rows)]
        code, options_type = Code.PAD, schema.BuiltinOptions.PAD
        if isinstance(op, MaxPool2d):  # PAD fills with 0.0, which could win
            lowest = np.array([np.iinfo(source.dtype).min if self.graph.is_quantized else -np.inf], source.dtype)
            inputs.append(
                self._tensor(FileTensor(f"{op.name}/lowest", (1,), source.dtype, source.quantization, lowest))
            )
            code, options_type = Code.PADV2, schema.BuiltinOptions.PADV2
        image = self._tensor(FileTensor(f"{op.name}/padded", shape, source.dtype, source.quantization))
        version = self._version(code, op.input)
        self.operators.append(FileOperator(code, version, tuple(inputs), (image,), options_type))
        return image, schema.Padding.VALID

    def _operator(
        self,
        op: Op,
        code: Code,
        inputs: tuple[int, ...],
        options_type: schema.BuiltinOptions = schema.BuiltinOptions.NONE,
        options: Fields | None = None,
        *,
        version: int | None = None,
    ) -> None:
        version = self._version(code, op_inputs(op)[0]) if version is None else version
        outputs = (self._activation(op.output),)
        self.operators.append(FileOperator(code, version, inputs, outputs, options_type, options or {}))

    def _version(self, code: Code, source: str) -> int:
        return VERSIONS[code][TYPES.index(self.graph.tensors[source].dtype)]

    def _activation(self, name: str) -> int:
        tensor = self.graph.tensors[name]
        self.activations[name] = self._tensor(FileTensor(name, tensor.shape, tensor.dtype, tensor.quantization))
        return self.activations[name]

    def _weight(self, op: Dense | Conv2d) -> int:
        tensor = self.graph.tensors[op.weight]
        return self._tensor(
            FileTensor(tensor.name, tensor.shape, tensor.dtype, self._weight_quantization(op, 0), tensor.values())
        )

    def _blocked_weight(self, op: Dense | Conv2d) -> int:
        tensor = self.graph.tensors[op.weight]
        kept, sparsity = encode_blocks(tensor.values(), block_width(self.graph, op))
        quantization = self._weight_quantization(op, 0)
        return self._tensor(FileTensor(tensor.name, tensor.shape, tensor.dtype, quantization, kept, sparsity))

    def _densified_weight(self, op: Conv2d) -> int:
        """Return the weights that an interpreter makes dense first, and that XNNPACK on ARM multiplies sparse."""
        kept, tensor = self._blocked_weight(op), self.graph.tensors[op.weight]
        if kept not in self.densified:
            dense = FileTensor(f"{op.weight}/dense", tensor.shape, tensor.dtype, is_densified=True)
            self.densified[kept] = self._tensor(dense)
            self.operators.append(FileOperator(Code.DENSIFY, 1, (kept,), (self.densified[kept],)))
        return self.densified[kept]

    def _depthwise_weight(self, op: Conv2d) -> int:
        tensor = self.graph.tensors[op.weight]
        weight = np.transpose(tensor.values(), (3, 1, 2, 0))  # (n_outputs, h, w, 1) to (1, h, w, n_outputs)
        quantization = self._weight_quantization(op, DEPTHWISE_AXIS)
        return self._tensor(FileTensor(tensor.name, weight.shape, tensor.dtype, quantization, weight))

    def _weight_quantization(self, op: Dense | Conv2d, axis: int) -> Quantization | None:
        found = self.graph.tensors[op.weight].quantization
        return None if found is None else Quantization(found.scale, axis=None if found.axis is None else axis)

    def _bias(self, op: Dense | Conv2d) -> int:
        tensor = self.graph.tensors[op.bias]
        quantization = None
        if self.graph.is_quantized:
            scale = self.graph.quantization(op.input).scale * self.graph.quantization(op.weight).scale
            quantization = Quantization(scale, axis=0)
        return self._tensor(FileTensor(tensor.name, tensor.shape, tensor.dtype, quantization, tensor.values()))

    def _integers(self, name: str, values: list[int] | list[list[int]]) -> int:
        data: Array = np.array(values, dtype=np.int32)
        return self._tensor(FileTensor(name, data.shape, "int32", data=data))

    def _tensor(self, tensor: FileTensor) -> int:
        """Add a tensor, once for all that share a constant; return its place."""
        scale = b"" if tensor.quantization is None else tensor.quantization.scale.tobytes()
        known = self.constants.setdefault((tensor.name, scale), len(self.tensors)) if tensor.data is not None else None
        if known is not None and known < len(self.tensors):
            return known
        self.tensors.append(tensor)
        return len(self.tensors) - 1
