"""Operators of a .tflite file with weights: products with a matrix, convolution, depthwise convolution."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_constants import Constant
from nettrim.importers.tflite_conversion import Conversion, Integers, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_windows import added, read_padding, read_size
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import ActivationFunction, Conv2d, Dense, Size2d

Array = npt.NDArray[Any]

BIAS_TYPES: dict[str, np.dtype[Any]] = {  # by the type of the layer's input
    "INT8": np.dtype(np.int32),
    "INT16": np.dtype(np.int64),
}


@dataclass(frozen=True, eq=False)
class Weights:
    """A layer's weight with its outputs first.

    Attributes
    ----------
    numbers, values : Array
        What the file stores, and what that stands for.
    axis : int
        That of the outputs in the file.
    copies : int
        How often all outputs stand one behind the other, each time with other filters.
    """

    constant: Constant
    numbers: Array
    values: Array
    axis: int
    copies: int = 1

    @property
    def n_outputs(self) -> int:
        """How many filters there are, all copies counted."""
        return int(self.numbers.shape[0])

    @property
    def scale(self) -> Array | None:
        """(n_outputs,) of int8 weights that stand for scale * integer, else None."""
        found = self.constant.quantization
        if found is None or self.numbers.dtype != np.int8 or found.zero_point.any():
            return None
        if found.scale.size > 1 and found.axis != self.axis:
            return None
        scale = np.broadcast_to(found.scale, (self.n_outputs // self.copies,))
        return np.tile(scale, self.copies).astype(np.float32)


def convert_fully_connected(operator: FileOperator, conversion: Conversion) -> None:
    """FULLY_CONNECTED; of several rows a 1x1 convolution."""
    options = conversion.options(operator, schema.BuiltinOptions.FULLY_CONNECTED)
    activation = fused_activation(options, schema.FullyConnectedOptions.FUSED_ACTIVATION_FUNCTION)
    if options.integer(schema.FullyConnectedOptions.WEIGHTS_FORMAT):
        refuse("its weights are shuffled, expected the default format")
    tensor = conversion.value(operator)
    weights = read_weights(operator, conversion, 2, (0, 1))
    n_inputs, shape = weights.numbers.shape[1], conversion.shape(tensor)
    n_rows, rest = divmod(math.prod(shape), n_inputs)
    keeps_axes = bool(options.integer(schema.FullyConnectedOptions.KEEP_NUM_DIMS))
    if rest or n_rows < 1 or (keeps_axes and shape[-1:] != (n_inputs,)):
        refuse(f"its input has shape {shape}, expected {n_inputs} features")
    has_rows = conversion.padded_value(operator).has_rows or (n_rows > 1 and not keeps_axes)
    if has_rows and not conversion.only_read_by(operator, "RESHAPE"):
        refuse(f"its input has shape {shape}, expected {n_inputs} features, or a RESHAPE of the {n_rows} results")
    if n_rows > 1 and tensor in conversion.integers:
        conversion.objections.append(f"FULLY_CONNECTED {operator.name!r} has {n_rows} rows, which rounds once")
    result = _add_product(operator, conversion, tensor, (weights, activation))
    axes = shape[:-1] if keeps_axes else (n_rows,) if has_rows else ()
    conversion.put(operator, conversion.builder.reshape(result, (*axes, weights.n_outputs)), has_rows=has_rows)


def convert_batch_mat_mul(operator: FileOperator, conversion: Conversion) -> None:
    """BATCH_MATMUL of an activation with a constant matrix: a dense layer, of several rows a 1x1 convolution."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.BATCH_MATMUL), schema.BatchMatMulOptions
    if options.integer(fields.ADJ_X):
        refuse("its first factor is transposed, expected the second alone")
    tensor = conversion.value(operator)
    constant, shape = conversion.constant(operator, 1, "second factor"), conversion.shape(tensor)
    rank = constant.numbers.ndim
    if not 2 <= rank <= len(shape) + 1 or any(size != 1 for size in constant.numbers.shape[:-2]):
        refuse(f"a second factor of shape {constant.numbers.shape}, expected one matrix")
    order = (-2, -1) if options.integer(fields.ADJ_Y) else (-1, -2)
    matrix = tuple(range(rank - 2))
    weights = read_weights(operator, conversion, rank, (*(axis % rank for axis in order), *matrix))
    weights = _with_shape(weights, weights.numbers.shape[:2])
    if shape[-1:] != weights.numbers.shape[1:]:
        refuse(f"its input has shape {shape}, expected {weights.numbers.shape[1]} features")
    if tensor in conversion.integers:
        conversion.objections.append(f"BATCH_MATMUL {operator.name!r} has a constant matrix, which rounds otherwise")
    result = _add_product(operator, conversion, tensor, (weights, ActivationFunction.NONE))
    conversion.put(operator, conversion.builder.reshape(result, (*shape[:-1], weights.n_outputs)))


def convert_conv(operator: FileOperator, conversion: Conversion) -> None:
    """CONV_2D, also in groups."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.CONV_2D), schema.Conv2DOptions
    value = conversion.padded_value(operator)
    weights = read_weights(operator, conversion, 4, (0, 1, 2, 3))
    n_channels = conversion.shape(conversion.image(value.tensor))[2]
    groups, rest = divmod(n_channels, weights.numbers.shape[3])
    if rest or groups < 1 or weights.n_outputs % groups:
        refuse(f"weights of shape {weights.numbers.shape} for {n_channels} channels")
    dilation = read_size(options, fields.DILATION_H_FACTOR, fields.DILATION_W_FACTOR)
    _add_conv(operator, conversion, weights, groups, dilation)


def convert_depthwise_conv(operator: FileOperator, conversion: Conversion) -> None:
    """DEPTHWISE_CONV_2D, whose weights are (1, height, width, n_outputs)."""
    options = conversion.options(operator, schema.BuiltinOptions.DEPTHWISE_CONV_2D)
    fields = schema.DepthwiseConv2DOptions
    value = conversion.padded_value(operator)
    weights = read_weights(operator, conversion, 4, (3, 1, 2, 0))
    n_channels = conversion.shape(conversion.image(value.tensor))[2]
    if weights.numbers.shape[3] != 1 or weights.n_outputs % n_channels:
        refuse(f"weights of shape {weights.constant.numbers.shape} for {n_channels} channels")
    dilation = read_size(options, fields.DILATION_H_FACTOR, fields.DILATION_W_FACTOR)
    _add_conv(operator, conversion, weights, n_channels, dilation)


def read_weights(operator: FileOperator, conversion: Conversion, rank: int, order: tuple[int, ...]) -> Weights:
    """Return a layer's weight of some rank; ``order`` brings its outputs in front."""
    constant = conversion.constant(operator, 1, "weights")
    if constant.numbers.ndim != rank or (constant.quantization is None and not constant.is_float):
        refuse(f"weights of shape {constant.numbers.shape} and type {constant.numbers.dtype}, expected {rank} axes")
    return Weights(constant, constant.numbers.transpose(order), constant.values().transpose(order), order[0])


def add_constants(
    operator: FileOperator, conversion: Conversion, source: str, weights: Weights, bias_place: int = 2
) -> tuple[str, tuple[str, str]]:
    """Add a layer's weight and bias; return the layer's title, and their names."""
    builder, title = conversion.builder, weights.constant.name.split(";")[0] or operator.name
    bias = _read_bias(operator, conversion, weights, bias_place)
    entry, scale = conversion.integers.get(source), weights.scale
    bias_scale = None if entry is None or scale is None else entry.quantization.scale * scale
    if bias is None:
        values = np.zeros(weights.n_outputs, np.float32)
    elif bias.is_float or bias_scale is None:
        values = np.tile(bias.values().reshape(-1), weights.copies)
    else:
        values = np.tile(bias.numbers.reshape(-1).astype(np.float64), weights.copies) * bias_scale
    if entry is not None and entry.type == "INT16" and bias is not None and bias.numbers.dtype == np.int32:
        conversion.objections.append(
            f"{operator.op_type} {operator.name!r} adds an int32 bias to int16, expected int64"
        )
    names = builder.add_constant(f"{title}.weight", weights.values), builder.add_constant(f"{title}.bias", values)
    if entry is not None and scale is not None and bias_scale is not None:
        _keep_integers(conversion, (entry.type, weights, scale, bias, bias_scale), names)
    return title, names


def _add_product(
    operator: FileOperator, conversion: Conversion, tensor: str, layer: tuple[Weights, ActivationFunction]
) -> str:
    """Append a dense layer, of several rows a 1x1 convolution; return its output in whatever shape it has."""
    weights, activation = layer
    n_inputs, builder = weights.numbers.shape[1], conversion.builder
    n_rows = math.prod(conversion.shape(tensor)) // n_inputs
    source = builder.reshape(tensor, (n_inputs,) if n_rows == 1 else (1, n_rows, n_inputs))
    if n_rows > 1:
        weights = _with_shape(weights, (weights.n_outputs, 1, 1, n_inputs))
    title, constants = add_constants(operator, conversion, tensor, weights)
    output = builder.tensor_name(operator.name)
    kind = Dense if n_rows == 1 else Conv2d
    result = builder.add(kind(builder.op_name(title), source, *constants, output, activation=activation))
    conversion.put(operator, result)
    return result


def _add_conv(operator: FileOperator, conversion: Conversion, weights: Weights, groups: int, dilation: Size2d) -> None:
    options = operator.options
    assert options is not None
    fields = schema.Conv2DOptions if operator.op_type == "CONV_2D" else schema.DepthwiseConv2DOptions
    value, builder = conversion.padded_value(operator), conversion.builder
    stride = read_size(options, fields.STRIDE_H, fields.STRIDE_W)
    kernel = Size2d(*weights.numbers.shape[1:3])
    height, width, _ = conversion.shape(value.tensor)
    around = value.padding
    padded = (height + around.top + around.bottom, width + around.left + around.right)
    own = read_padding(options, fields.PADDING, padded, (kernel, stride, dilation))
    title, constants = add_constants(operator, conversion, value.tensor, weights)
    op = Conv2d(
        builder.op_name(title),
        value.tensor,
        *constants,
        builder.tensor_name(operator.name),
        stride=stride,
        padding=added(around, own),
        dilation=dilation,
        groups=groups,
        activation=fused_activation(options, fields.FUSED_ACTIVATION_FUNCTION),
    )
    conversion.put(operator, builder.add(op))


def _with_shape(weights: Weights, shape: tuple[int, ...]) -> Weights:
    return Weights(weights.constant, weights.numbers.reshape(shape), weights.values.reshape(shape), weights.axis)


def _read_bias(operator: FileOperator, conversion: Conversion, weights: Weights, place: int) -> Constant | None:
    bias = conversion.optional_constant(operator, place, "bias")
    if bias is None:
        return None
    if bias.numbers.size * weights.copies != weights.n_outputs:
        refuse(f"its bias has {bias.numbers.size} values, expected {weights.n_outputs // weights.copies}")
    return bias


def _keep_integers(
    conversion: Conversion,
    found: tuple[str, Weights, Array, Constant | None, Array],
    names: tuple[str, str],
) -> None:
    """Keep a layer's integers where they are of the types that go with its input."""
    kind, weights, scale, bias, bias_scale = found
    dtype = BIAS_TYPES.get(kind)
    if dtype is None or (bias is not None and bias.numbers.dtype != dtype):
        return
    numbers = np.zeros(weights.n_outputs) if bias is None else np.tile(bias.numbers.reshape(-1), weights.copies)
    data = np.ascontiguousarray(weights.numbers, np.int8)
    conversion.integers[names[0]] = Integers("INT8", Quantization(scale, 0, axis=0), data)
    bias_type = dtype.name.upper()
    conversion.integers[names[1]] = Integers(bias_type, Quantization(bias_scale, 0, axis=0), numbers.astype(dtype))
