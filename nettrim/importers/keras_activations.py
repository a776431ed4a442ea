"""Keras's activation functions as ONNX nodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nettrim.importers.keras_network import Network, RefusedLayerError, Value

ONNX_NAMES = {  # Keras's functions that ONNX has as well, with ONNX's own settings
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exponential": "Exp",  # as a part of a sigmoid that is spelled out
    "hard_swish": "HardSwish",
    "hard_silu": "HardSwish",
    "gelu": "Gelu",
}
HARD_SIGMOID_SLOPES = {2: 0.2, 3: 1 / 6}  # by Keras's major version


def add_activation(name: str, kind: str, config: Mapping[str, Any], network: Network, value: Value) -> Value:
    """Append the nodes of a function, or of a layer that is one.

    Parameters
    ----------
    name : str
        The layer's name.
    kind : str
        Keras's name of the function ("relu") or the layer's class ("ReLU").
    config : Mapping of str to Any
        The layer's arguments, empty for a function.

    Raises
    ------
    RefusedLayerError
        When it has no counterpart.
    """
    function = kind if kind in ONNX_NAMES else kind.lower()
    if function == "linear":
        return value
    if function == "softmax":
        return _add_softmax(name, config, network, value)
    output = _add_nodes(f"{name}.{function}", function, config, network, value.name)
    return Value(output, value.rank, value.is_channels_first)


def _add_nodes(title: str, function: str, config: Mapping[str, Any], network: Network, source: str) -> str:
    if function == "relu" and config:
        return _add_relu(title, config, network, source)
    if function == "relu6":
        return _add_relu(title, {"max_value": 6.0}, network, source)
    if function in {"leakyrelu", "leaky_relu"}:
        slope = _number(config, "alpha", _number(config, "negative_slope", 0.3 if function == "leakyrelu" else 0.2))
        return network.add("LeakyRelu", title, source, alpha=slope)
    if function == "hard_sigmoid":
        return network.add("HardSigmoid", title, source, alpha=HARD_SIGMOID_SLOPES.get(network.version, 0.2), beta=0.5)
    if function in {"swish", "silu"}:
        return network.add("Mul", title, source, network.add("Sigmoid", f"{title}.sigmoid", source))
    if function not in ONNX_NAMES:
        raise RefusedLayerError(f"activation {function!r}")
    return network.add(ONNX_NAMES[function], title, source)


def _add_relu(title: str, config: Mapping[str, Any], network: Network, source: str) -> str:
    slope, threshold, largest = (_number(config, name, 0.0) for name in ("negative_slope", "threshold", "max_value"))
    if threshold or (slope and largest):
        raise RefusedLayerError(f"ReLU with threshold {threshold}, max_value {largest}, negative_slope {slope}")
    if slope:
        return network.add("LeakyRelu", title, source, alpha=slope)
    if config.get("max_value") is None:
        return network.add("Relu", title, source)
    lower = network.constant(f"{title}.min", np.zeros((), np.float32))
    upper = network.constant(f"{title}.max", np.full((), largest, np.float32))
    return network.add("Clip", title, source, lower, upper)


def _add_softmax(name: str, config: Mapping[str, Any], network: Network, value: Value) -> Value:
    axis = config.get("axis", -1)
    if axis not in (-1, value.rank):
        raise RefusedLayerError(f"softmax along axis {axis}, expected the last")
    last = network.channels_last(value)
    return Value(network.add("Softmax", f"{name}.softmax", last.name, axis=-1), value.rank)


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    if isinstance(value, Mapping):  # a NumPy number, as older files have it
        value = value.get("value", default)
    return default if value is None else float(value)
