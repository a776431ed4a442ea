"""Keras layers and operators that combine tensors value by value, with each other or with constants, as ONNX nodes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.keras_activations import add_activation
from nettrim.importers.keras_config import KerasLayer
from nettrim.importers.keras_network import Network, RefusedLayerError, Value

Array = npt.NDArray[Any]
Inputs = tuple[Value, ...]

SMALLEST_DEVIATION = 1e-7  # keras.backend.epsilon(), which Normalization divides by at least
PAIRS: Mapping[str, str] = {  # ONNX's names of Keras's layers and operators
    "Add": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Divide": "Div",
    "TrueDivide": "Div",
}
# Functions that Keras 2 writes down for `a + b` and the like, and for calls of TensorFlow's own.
TENSORFLOW_PAIRS: Mapping[str, str] = {
    **dict.fromkeys(("__operators__.add", "math.add"), "Add"),
    **dict.fromkeys(("__operators__.sub", "math.subtract"), "Sub"),
    **dict.fromkeys(("__operators__.mul", "math.multiply"), "Mul"),
    **dict.fromkeys(("__operators__.truediv", "math.truediv"), "Div"),
}
TENSORFLOW_FUNCTIONS = ("relu", "relu6", "sigmoid", "tanh", "silu", "swish", "softmax")


def convert_pair(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a sum, product or the like of tensors, or of one tensor and a number."""
    return _add_pair(PAIRS[layer.kind], layer, network, inputs)


def convert_tensorflow_call(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append what Keras 2 wrote down as a function of TensorFlow: the file names it, nothing is called."""
    function = str(layer.config.get("function"))
    if function in TENSORFLOW_PAIRS:
        return _add_pair(TENSORFLOW_PAIRS[function], layer, network, inputs)
    module, _, name = function.partition(".")
    if module in {"nn", "math"} and name in TENSORFLOW_FUNCTIONS and len(inputs) == 1:
        return add_activation(layer.name, name, {}, network, inputs[0])
    known = ", ".join((*TENSORFLOW_PAIRS, *(f"nn.{each}" for each in TENSORFLOW_FUNCTIONS)))
    raise RefusedLayerError(f"it calls {function}, expected one of {known}")


def convert_rescaling(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Rescaling: scale * input + offset."""
    scale, offset = (np.array(layer.config.get(name) or 0, np.float32) for name in ("scale", "offset"))
    return _add_affine(layer, network, inputs[0], scale, offset)


def convert_normalization(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a Normalization of the channels with the statistics that it was adapted to."""
    statistics = layer.weights[:2] or (layer.config.get("mean"), layer.config.get("variance"))
    if len(statistics) != 2 or any(part is None for part in statistics) or layer.config.get("invert"):
        raise RefusedLayerError("expected a mean and a variance of each channel, not inverted")
    mean, variance = (np.asarray(part, np.float64).reshape(-1) for part in statistics)
    scale = 1 / np.maximum(np.sqrt(variance), SMALLEST_DEVIATION)
    return _add_affine(layer, network, inputs[0], scale.astype(np.float32), (-mean * scale).astype(np.float32))


def convert_prelu(layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a PReLU with one slope a channel."""
    value = inputs[0]
    if len(layer.weights) != 1 or layer.weights[0].size != layer.weights[0].shape[-1]:
        raise RefusedLayerError("expected one slope a channel (shared_axes=[1, 2])")
    slope = _along_channels(network, f"{layer.name}.slope", layer.weights[0].reshape(-1), value)
    return Value(network.add("PRelu", layer.name, value.name, slope), value.rank, value.is_channels_first)


def _add_affine(layer: KerasLayer, network: Network, value: Value, scale: Array, offset: Array) -> Value:
    value = network.channels_first(value) if value.rank == 3 else value
    factors = _along_channels(network, f"{layer.name}.scale", scale, value)
    offsets = _along_channels(network, f"{layer.name}.offset", offset, value)
    scaled = network.add("Mul", f"{layer.name}.scaled", value.name, factors)
    return Value(network.add("Add", layer.name, scaled, offsets), value.rank, value.is_channels_first)


def _along_channels(network: Network, name: str, values: Array, value: Value) -> str:
    """Add a constant, of one number or one a channel, in the shape that goes with an activation."""
    if values.ndim > 1:
        raise RefusedLayerError(f"constants of shape {values.shape}, expected one a channel")
    is_image = values.size > 1 and value.is_channels_first
    return network.constant(name, values.reshape(-1, *(1,) * (value.rank - 1)) if is_image else values)


def _add_pair(op_type: str, layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    if layer.numbers:
        return _add_number(op_type, layer, network, inputs)
    first = inputs[0]
    if any(value.rank != first.rank for value in inputs) or len(inputs) < 2:
        raise RefusedLayerError("expected two or more inputs of one rank")
    order = network.channels_first if first.is_channels_first else network.channels_last
    output = first.name
    for value in inputs[1:]:
        output = network.add(op_type, layer.name, output, order(value).name)
    return Value(output, first.rank, first.is_channels_first)


def _add_number(op_type: str, layer: KerasLayer, network: Network, inputs: Inputs) -> Value:
    """Append a node of a tensor and a number, whichever comes first."""
    if len(inputs) != 1 or len(layer.numbers) != 1:
        raise RefusedLayerError(
            f"it combines {len(inputs)} tensors and {len(layer.numbers)} numbers, expected one each"
        )
    ((position, number),) = layer.numbers.items()
    value = inputs[0]
    names = [value.name, network.constant(f"{layer.name}.number", np.array(number, np.float32))]
    output = network.add(op_type, layer.name, *(names if position else names[::-1]))
    return Value(output, value.rank, value.is_channels_first)
