"""Keras layers as ONNX nodes: one function a kind of layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.keras_activations import add_activation
from nettrim.importers.keras_arithmetic import (
    PAIRS,
    convert_normalization,
    convert_pair,
    convert_prelu,
    convert_rescaling,
    convert_tensorflow_call,
)
from nettrim.importers.keras_config import KerasLayer
from nettrim.importers.keras_network import Converter, Network, RefusedLayerError, Value

Array = npt.NDArray[Any]
Inputs = tuple[Value, ...]


def convert_identity(_layer: KerasLayer, _network: Network, inputs: Inputs) -> Value:
    """Return the input: layers that only training knows."""
    return inputs[0]


def convert_conv(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Conv2D."""
    kernel, bias = _split_weights(layer, 4)
    image, groups = network.channels_first(inputs[0]), int(layer.config.get("groups", 1))
    value = _add_conv(layer, network, image, _conv_weight(kernel), bias, groups=groups)
    return _add_own_activation(layer, network, value)


def convert_depthwise_conv(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a DepthwiseConv2D."""
    kernel, bias = _split_weights(layer, 4)
    image = network.channels_first(inputs[0])
    value = _add_conv(layer, network, image, _depthwise_weight(kernel), bias, groups=kernel.shape[2])
    return _add_own_activation(layer, network, value)


def convert_separable_conv(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a SeparableConv2D: a depthwise convolution, then one of 1x1."""
    kernel, bias = _split_weights(layer, 4, skipped=1)
    depthwise = layer.weights[0]
    if depthwise.ndim != 4:
        raise RefusedLayerError(f"its depthwise kernel has shape {depthwise.shape}, expected 4 axes")
    image = network.channels_first(inputs[0])
    spread = _add_conv(layer, network, image, _depthwise_weight(depthwise), None, groups=depthwise.shape[2])
    title = f"{layer.name}.pointwise"
    parts = _constants(network, title, _conv_weight(kernel), bias)
    return _add_own_activation(layer, network, _image(network.add("Conv", title, spread.name, *parts)))


def convert_dense(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Dense; on images it is a convolution of 1x1."""
    kernel, bias = _split_weights(layer, 2)
    value = inputs[0]
    if value.rank == 3:
        parts = _constants(network, layer.name, _conv_weight(kernel[None, None]), bias)
        image = network.channels_first(value)
        return _add_own_activation(layer, network, _image(network.add("Conv", layer.name, image.name, *parts)))
    if value.rank != 1:
        raise RefusedLayerError(f"its input has {value.rank} axes, expected features or images")
    parts = _constants(network, layer.name, kernel.T, bias)
    return _add_own_activation(layer, network, Value(network.add("Gemm", layer.name, value.name, *parts, transB=1), 1))


def convert_batch_normalization(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a BatchNormalization of the last axis."""
    value, config = inputs[0], layer.config
    axes = np.ravel(config.get("axis", -1)).tolist()
    if axes not in ([-1], [value.rank]) or value.rank not in {1, 3}:
        raise RefusedLayerError(f"its axis is {axes}, expected the channels")
    parts = list(layer.weights)
    missing = [name for name in ("scale", "center") if not config.get(name, True)]
    if len(parts) != 4 - len(missing):
        raise RefusedLayerError(f"it has {len(parts)} weights, expected {4 - len(missing)}")
    size = parts[-1].shape
    if "scale" in missing:
        parts.insert(0, np.ones(size, np.float32))
    if "center" in missing:
        parts.insert(1, np.zeros(size, np.float32))
    names = ("gamma", "beta", "mean", "variance")
    constants = [network.constant(f"{layer.name}.{name}", part) for name, part in zip(names, parts, strict=True)]
    source = network.channels_first(value) if value.rank == 3 else value
    epsilon = float(config.get("epsilon", 1e-3))
    output = network.add("BatchNormalization", layer.name, source.name, *constants, epsilon=epsilon)
    return Value(output, value.rank, source.is_channels_first)


def convert_activation(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append the function that an Activation names."""
    return _add_own_activation(layer, network, inputs[0])


def convert_function(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a layer that is a function with settings, such as LeakyReLU, or an operator that is one."""
    return add_activation(layer.name, layer.kind, layer.config, network, inputs[0])


def convert_max_pool(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a MaxPooling2D."""
    return _add_pool("MaxPool", layer, network, inputs)


def convert_average_pool(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append an AveragePooling2D, whose padding does not count."""
    return _add_pool("AveragePool", layer, network, inputs)


def convert_global_pool(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a GlobalAveragePooling2D or GlobalMaxPooling2D."""
    _check_data_format(layer)
    op_type = "GlobalAveragePool" if "Average" in layer.kind else "GlobalMaxPool"
    pooled = network.add(op_type, layer.name, network.channels_first(inputs[0]).name)
    if layer.config.get("keepdims"):
        return _image(pooled)
    return Value(network.add("Flatten", f"{layer.name}.flat", pooled, axis=1), 1)


def convert_flatten(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Flatten of (height, width, channels)."""
    _check_data_format(layer)
    return Value(network.add("Flatten", layer.name, network.channels_last(inputs[0]).name, axis=1), 1)


def convert_reshape(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Reshape."""
    target = [int(size) for size in layer.config["target_shape"]]
    shape = network.constant(f"{layer.name}.shape", np.array([0, *target], np.int64))
    return Value(network.add("Reshape", layer.name, network.channels_last(inputs[0]).name, shape), len(target))


def convert_zero_padding(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a ZeroPadding2D."""
    _check_data_format(layer)
    (top, bottom), (left, right) = layer.config["padding"]
    pads = network.constant(f"{layer.name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return _image(network.add("Pad", layer.name, network.channels_first(inputs[0]).name, pads))


def convert_concatenate(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Concatenate of channels."""
    rank, axis = inputs[0].rank, layer.config.get("axis", -1)
    if axis not in {-1, rank} or any(value.rank != rank for value in inputs) or rank not in {1, 3}:
        raise RefusedLayerError(f"its axis is {axis}, expected the channels")
    values = [network.channels_first(value) if rank == 3 else value for value in inputs]
    output = network.add("Concat", layer.name, *(value.name for value in values), axis=1)
    return Value(output, rank, is_channels_first=rank == 3)


def _image(name: str) -> Value:
    return Value(name, 3, is_channels_first=True)


def _split_weights(layer: KerasLayer, rank: int, skipped: int = 0) -> tuple[Array, Array | None]:
    """Return kernel and bias, checked."""
    weights, expected = layer.weights[skipped:], 2 if layer.config.get("use_bias", True) else 1
    if len(weights) != expected:
        raise RefusedLayerError(f"it has {len(layer.weights)} weights, expected {expected + skipped}")
    kernel, bias = weights[0], weights[1] if expected == 2 else None
    if kernel.ndim != rank or (bias is not None and bias.ndim != 1):
        raise RefusedLayerError(f"its kernel has shape {kernel.shape}, expected {rank} axes")
    return kernel, bias


def _constants(network: Network, title: str, weight: Array, bias: Array | None) -> list[str]:
    names = [network.constant(f"{title}.weight", weight)]
    return names if bias is None else [*names, network.constant(f"{title}.bias", bias)]


def _conv_weight(kernel: Array) -> Array:
    """Return (n_outputs, n_inputs / groups, height, width) of (height, width, n_inputs / groups, n_outputs)."""
    return kernel.transpose(3, 2, 0, 1)


def _depthwise_weight(kernel: Array) -> Array:
    """Return (n_channels * multiplier, 1, height, width) of (height, width, n_channels, multiplier)."""
    height, width, n_channels, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(n_channels * multiplier, 1, height, width)


def _add_conv(
    layer: KerasLayer, network: Network, image: Value, weight: Array, bias: Array | None, *, groups: int
) -> Value:
    _check_data_format(layer)
    output = network.add(
        "Conv",
        layer.name,
        image.name,
        *_constants(network, layer.name, weight, bias),
        kernel_shape=weight.shape[2:],
        strides=_pair(layer.config, "strides"),
        dilations=_pair(layer.config, "dilation_rate"),
        group=groups,
        auto_pad=_auto_pad(layer),
    )
    return _image(output)


def _add_pool(op_type: str, layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    _check_data_format(layer)
    output = network.add(
        op_type,
        layer.name,
        network.channels_first(inputs[0]).name,
        kernel_shape=_pair(layer.config, "pool_size"),
        strides=_pair(layer.config, "strides" if layer.config.get("strides") else "pool_size"),
        auto_pad=_auto_pad(layer),
    )
    return _image(output)


def _add_own_activation(layer: KerasLayer, network: Network, value: Value) -> Value:
    """Append the function in a layer's "activation", which Keras writes as a name or as an object."""
    function = layer.config.get("activation") or "linear"
    if isinstance(function, Mapping):
        config = function.get("config")
        if not isinstance(config, Mapping):
            raise RefusedLayerError(f"its activation {config!r} is a function of one's own")
        return add_activation(layer.name, str(function.get("class_name")), config, network, value)
    return add_activation(layer.name, str(function), {}, network, value)


def _check_data_format(layer: KerasLayer) -> None:
    if layer.config.get("data_format") not in {None, "channels_last"}:
        raise RefusedLayerError(f"data_format {layer.config['data_format']!r}, expected 'channels_last'")


def _pair(config: Mapping[str, Any], name: str) -> list[int]:
    sizes = [int(size) for size in np.ravel(config.get(name, 1))]
    sizes = sizes * 2 if len(sizes) == 1 else sizes
    if len(sizes) != 2:
        raise RefusedLayerError(f"its {name} is {sizes}, expected two sizes")
    return sizes


def _auto_pad(layer: KerasLayer) -> str:
    padding = layer.config.get("padding", "valid")
    if padding not in {"valid", "same"}:
        raise RefusedLayerError(f"padding {padding!r}, expected 'valid' or 'same'")
    return "SAME_UPPER" if padding == "same" else "VALID"


CONVERTERS: Mapping[str, Converter] = {
    **dict.fromkeys(
        ("InputLayer", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"), convert_identity
    ),
    **dict.fromkeys(("AlphaDropout", "ActivityRegularization", "Identity", "RandomFlip"), convert_identity),
    **dict.fromkeys(("RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"), convert_identity),
    **dict.fromkeys(PAIRS, convert_pair),
    **dict.fromkeys(("ReLU", "LeakyReLU", "Softmax"), convert_function),
    **dict.fromkeys(("Relu", "Relu6", "Sigmoid", "Tanh", "Silu"), convert_function),  # of keras.ops
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalMaxPooling2D"), convert_global_pool),
    "Activation": convert_activation,
    "AveragePooling2D": convert_average_pool,
    **dict.fromkeys(("BatchNormalization", "BatchNormalizationV1"), convert_batch_normalization),
    "Concatenate": convert_concatenate,
    "Conv2D": convert_conv,
    "Dense": convert_dense,
    "DepthwiseConv2D": convert_depthwise_conv,
    "Flatten": convert_flatten,
    "MaxPooling2D": convert_max_pool,
    "Normalization": convert_normalization,
    "PReLU": convert_prelu,
    "Rescaling": convert_rescaling,
    "Reshape": convert_reshape,
    "SeparableConv2D": convert_separable_conv,
    "TFOpLambda": convert_tensorflow_call,
    "ZeroPadding2D": convert_zero_padding,
}
