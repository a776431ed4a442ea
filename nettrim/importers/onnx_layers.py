"""ONNX nodes with weights: Conv, Gemm, MatMul, and what is folded into them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, refuse
from nettrim.importers.onnx_windows import image_shape, read_padding, read_size
from nettrim_runtime.ops import NO_PADDING, Conv2d, Dense, Layer, Padding, Size2d

Array = npt.NDArray[Any]


def convert_conv(node: Node, conversion: Conversion) -> None:
    """Conv of one or two dimensions with constant weights."""
    weight = conversion.constant(node, 1, "weight")
    bias = conversion.optional_constant(node, 2, "bias")
    value = conversion.padded_value(node)
    if weight.ndim not in {3, 4} or weight.ndim != len(value.shape) + 1:
        refuse(node, f"weights {weight.shape} on {('batch', *value.shape)}, expected one or two dimensions")
    require_floats(node, weight)
    weight = weight if weight.ndim == 4 else weight[:, :, np.newaxis]
    kernel_size = Size2d(*weight.shape[2:])
    if "kernel_shape" in node.attributes and read_size(node, "kernel_shape") != kernel_size:
        refuse(node, f"kernel_shape and the weight's shape {weight.shape} differ")
    stride, dilation, groups = read_size(node, "strides"), read_size(node, "dilations"), node.integer("group", 1)
    if groups < 1:
        refuse(node, f"group {groups}, expected one or more")
    image, weight = _read_image(node, conversion, value, weight, groups)
    own = read_padding(node, image_shape(value), kernel_size, stride, dilation)
    if value.padding != NO_PADDING and node.text("auto_pad", "NOTSET").startswith("SAME"):
        refuse(node, "auto_pad after a Pad node, expected one of the two")
    padding = Padding(*(first + second for first, second in zip(value.padding, own, strict=True)))
    title = layer_title(node, "weight")
    weight_name = conversion.builder.add_constant(f"{title}.weight", weight.transpose(0, 2, 3, 1))
    bias_name = _add_bias(node, conversion, title, bias, weight.shape[0])
    output = conversion.builder.tensor_name(node.outputs[0])
    op = Conv2d(
        conversion.builder.op_name(title),
        image,
        weight_name,
        bias_name,
        output,
        stride,
        padding,
        dilation,
        groups,
    )
    conversion.put_image(node, conversion.builder.add(op), len(value.shape))


def convert_gemm(node: Node, conversion: Conversion) -> None:
    """Gemm of an activation with a constant matrix: alpha * A @ B + beta * C."""
    matrix = conversion.constant(node, 1, "matrix B")
    offset = conversion.optional_constant(node, 2, "bias C")
    if node.integer("transA", 0):
        refuse(node, "transA would exchange batch and features, expected transA=0")
    if matrix.ndim != 2:
        refuse(node, f"matrix B has shape {matrix.shape}, expected two axes")
    weight = matrix if node.integer("transB", 0) else matrix.T  # (n_outputs, n_inputs)
    bias = None if offset is None else offset.astype(np.float64) * node.number("beta", 1.0)
    require_floats(node, weight)
    alpha = node.number("alpha", 1.0)
    _add_dense(node, conversion, weight if alpha == 1 else weight.astype(np.float64) * alpha, bias)


def convert_mat_mul(node: Node, conversion: Conversion) -> None:
    """MatMul of an activation with a constant matrix."""
    matrix = conversion.constant(node, 1, "second factor")
    if matrix.ndim != 2:
        refuse(node, f"the second factor has shape {matrix.shape}, expected two axes")
    require_floats(node, matrix)
    _add_dense(node, conversion, matrix.T, None)


def convert_batch_normalization(node: Node, conversion: Conversion) -> None:
    """BatchNormalization with its statistics: folded into the layer before, or a depthwise convolution."""
    names = ("scale", "bias", "mean", "variance")
    parts = [conversion.constant(node, index, what) for index, what in enumerate(names, start=1)]
    if node.integer("training_mode", 0) or not node.integer("spatial", 1):
        refuse(node, "training_mode or statistics a pixel, expected a model exported for inference")
    value = conversion.value(node)
    if not value.shape or any(part.shape != value.shape[:1] for part in parts):
        refuse(node, f"{[part.shape for part in parts]} statistics for an input of shape {value.shape}")
    gamma, beta, mean, variance = (part.astype(np.float64) for part in parts)
    epsilon = node.number("epsilon", 1e-5)
    if not (variance + epsilon > 0).all():
        refuse(node, "a variance is negative, expected zero or more")
    scale = gamma / np.sqrt(variance + epsilon)
    axes = (-1,) + (1,) * (len(value.shape) - 1)
    offset = (beta - mean * scale).reshape(axes)
    scale_values(node, conversion, value, scale.reshape(axes), offset, what="batch normalisations")


def scale_values(
    node: Node,
    conversion: Conversion,
    value: Value,
    scale: Array,
    offset: Array,
    *,
    what: str = "constant operands",
) -> None:
    """Make a node's output scale * input + offset: in the layer before it, or by a depthwise 1x1 convolution.

    Parameters
    ----------
    scale, offset : Array
        float64, to be broadcast to the shape of ``value``.
    what : str
        What the notes call such nodes.
    """
    if np.all(scale == 1) and not offset.any():
        conversion.put_view(node, value, value.positions)
        return
    if fold_affine(node, conversion, value, scale, offset):
        conversion.rewrites[f"{what} folded into the layer before them"] += 1
        return
    n_channels = (conversion.builder.tensors[value.tensor].shape or (1,))[-1]
    factors, offsets = (per_output(value, part, n_channels) for part in (scale, offset))
    if factors is None or offsets is None:  # they differ from pixel to pixel: every value is a channel
        factors, offsets = (per_output(value, part, value.positions.size) for part in (scale, offset))
    if factors is not None and offsets is not None:
        _add_scaling(node, conversion, value, factors, offsets)
    conversion.rewrites[f"{what} kept as depthwise 1x1 convolutions"] += 1


def fold_affine(node: Node, conversion: Conversion, value: Value, scale: Array, offset: Array) -> bool:
    """Make the layer before a node compute scale * output + offset; return whether that is possible.

    Parameters
    ----------
    scale, offset : Array
        float64, to be broadcast to the shape of ``value``.
    """
    builder = conversion.builder
    layer, channels = _origin(conversion, value.tensor)
    if not value.is_exclusive or layer is None:
        return False
    n_outputs = builder.tensors[layer.bias].size
    factors, offsets = (_per_output(value, part, channels, n_outputs) for part in (scale, offset))
    if factors is None or offsets is None:
        return False
    weight = builder.tensors[layer.weight].values().astype(np.float64)
    bias = builder.tensors[layer.bias].values().astype(np.float64)
    spread = factors.reshape(-1, *(1,) * (weight.ndim - 1))
    builder.replace_layer(layer, weight * spread, bias * factors + offsets)
    output = builder.rename(value.tensor, node.outputs[0])
    if value.tensor in conversion.origins:
        conversion.origins[output] = layer, channels
    conversion.put(node, output, value.positions)
    return True


def _origin(conversion: Conversion, tensor: str) -> tuple[Layer | None, Array]:
    """Return the layer whose outputs a tensor holds, if any, and the channel that each of its values is of."""
    layer = conversion.builder.producer(tensor)
    if tensor in conversion.origins or not isinstance(layer, Dense | Conv2d):
        return conversion.origins.get(tensor, (None, np.empty(0, int)))
    size, n_outputs = (conversion.builder.tensors[name].size for name in (tensor, layer.bias))
    return layer, np.arange(size) % n_outputs


def _read_image(node: Node, conversion: Conversion, value: Value, weight: Array, groups: int) -> tuple[str, Array]:
    """Return the image a convolution reads, and its weights with their inputs in the order of the image's channels."""
    channels, *pixels = value.shape
    places = np.moveaxis(value.positions, 0, -1).reshape(-1, channels)
    order = places[0]
    lies_in_pixels = order.max() < channels and np.array_equal(
        places, channels * np.arange(len(places))[:, None] + order
    )
    if groups > 1 or not lies_in_pixels or weight.shape[1] != channels:
        return conversion.image(node, value), weight
    if not np.array_equal(order, np.arange(channels)):
        conversion.rewrites["channels in another order absorbed by permuting the next weights"] += 1
    return conversion.builder.reshape(value.tensor, (*[1] * (2 - len(pixels)), *pixels, channels)), weight[
        :, np.argsort(order)
    ]


def per_output(value: Value, part: Array, n_outputs: int) -> Array | None:
    """Return (n_outputs,) float64 when every pixel of an output has the same entry, else None."""
    return _per_output(value, part, np.arange(value.positions.size) % n_outputs, n_outputs)


def _per_output(value: Value, part: Array, channels: Array, n_outputs: int) -> Array | None:
    """Return (n_outputs,) when every pixel of an output has the same entry, else None."""
    entries = np.empty(value.positions.size)
    entries[value.positions.reshape(-1)] = np.broadcast_to(part, value.shape).reshape(-1)
    by_output = np.zeros(n_outputs)
    by_output[channels] = entries
    return by_output if np.array_equal(by_output[channels], entries) else None


def _add_dense(node: Node, conversion: Conversion, weight: Array, bias: Array | None) -> None:
    value = conversion.value(node)
    if len(value.shape) > 1 and not value.is_flat:
        _add_dense_steps(node, conversion, value, weight, bias)
        return
    tensor, positions = conversion.flat(node, value)
    n_outputs, n_inputs = weight.shape
    if n_inputs != positions.size:
        refuse(node, f"its matrix takes {n_inputs} features, its input has {positions.size}")
    columns = np.empty_like(weight)
    columns[:, positions] = weight
    if not np.array_equal(positions, np.arange(n_inputs)):
        conversion.rewrites["flattened images absorbed by permuting the columns of the next weights"] += 1
    title = layer_title(node, "weight")
    weight_name = conversion.builder.add_constant(f"{title}.weight", columns)
    bias_name = _add_bias(node, conversion, title, bias, n_outputs)
    output = conversion.builder.tensor_name(node.outputs[0])
    conversion.builder.add(Dense(conversion.builder.op_name(title), tensor, weight_name, bias_name, output))
    conversion.put(node, output, np.arange(n_outputs).reshape(*value.shape[:-1], n_outputs))


def _add_dense_steps(node: Node, conversion: Conversion, value: Value, weight: Array, bias: Array | None) -> None:
    """Append a dense layer of every step's features: a 1x1 convolution of the steps."""
    builder, (n_outputs, n_inputs) = conversion.builder, weight.shape
    if n_inputs != value.shape[-1]:
        refuse(node, f"its matrix takes {n_inputs} features, its input {value.shape} has {value.shape[-1]}")
    tensor = conversion.arrange(node, value, range(len(value.shape)))
    rows = value.shape[:-1] if len(value.shape) == 3 else (value.positions.size // n_inputs, 1)
    title = layer_title(node, "weight")
    op = Conv2d(
        builder.op_name(title),
        builder.reshape(tensor, (*rows, n_inputs)),
        builder.add_constant(f"{title}.weight", weight.reshape(n_outputs, 1, 1, n_inputs)),
        _add_bias(node, conversion, title, bias, n_outputs),
        builder.tensor_name(node.outputs[0]),
    )
    shape = (*value.shape[:-1], n_outputs)
    conversion.put(node, builder.add(op), np.arange(value.positions.size // n_inputs * n_outputs).reshape(shape))


def _add_bias(node: Node, conversion: Conversion, title: str, bias: Array | None, n_outputs: int) -> str:
    values = np.zeros(n_outputs) if bias is None else bias
    if values.size not in {1, n_outputs} or values.shape[-1:] not in {(), (1,), (n_outputs,)}:
        refuse(node, f"its bias has shape {values.shape}, expected ({n_outputs},)")
    return conversion.builder.add_constant(f"{title}.bias", np.broadcast_to(values.reshape(-1), (n_outputs,)))


def _add_scaling(node: Node, conversion: Conversion, value: Value, scale: Array, offset: Array) -> None:
    """Append scale * input + offset, (n_channels,) each, on the input as images of so many channels."""
    builder, title, n_channels = conversion.builder, node.name, len(scale)
    shape = builder.tensors[value.tensor].shape
    is_image = len(shape) == 3 and shape[-1] == n_channels
    image = builder.reshape(value.tensor, shape if is_image else (value.positions.size // n_channels, 1, n_channels))
    weight_name = builder.add_constant(f"{title}.weight", scale.reshape(n_channels, 1, 1, 1))
    bias_name = builder.add_constant(f"{title}.bias", offset)
    output = builder.tensor_name(node.outputs[0])
    op = Conv2d(builder.op_name(title), image, weight_name, bias_name, output, groups=n_channels)
    conversion.put(node, builder.reshape(builder.add(op), shape), value.positions)


def require_floats(node: Node, weight: Array) -> None:
    """Refuse weights of another kind."""
    if not np.issubdtype(weight.dtype, np.floating):
        refuse(node, f"its weights are {weight.dtype}, expected float32")


def layer_title(node: Node, part: str) -> str:
    """Return the name that the user gave: PyTorch exports weights as "NAME.weight"."""
    name = node.inputs[1]
    return name.removesuffix(f".{part}") if name.endswith(f".{part}") else node.name
