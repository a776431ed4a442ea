"""A Keras model to ONNX bytes, layer by layer, so that one importer does the rest.

Keras keeps images as (height, width, channels), ONNX as (channels, height, width). Images stay in the order that the
last layer left them in; Transpose nodes stand where a layer wants the other one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nettrim.importers.keras_config import KerasLayer, KerasModel, Source
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError

Array = npt.NDArray[Any]

OPSET, IR_VERSION = 20, 9  # the first opset with Gelu
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
# What settings of another type than Keras writes raise in a converter.
MISTYPED = (AttributeError, LookupError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Value:
    """An activation.

    Attributes
    ----------
    name : str
        ONNX's name.
    rank : int
        Without the batch axis.
    is_channels_first : bool
        The order of an image's axes.
    """

    name: str
    rank: int
    is_channels_first: bool = False


class RefusedLayerError(Exception):
    """A layer that cannot be carried over, and why."""


class Network:
    """The ONNX graph that is being written.

    Parameters
    ----------
    version : int
        Keras's major version.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._reordered: dict[Value, Value] = {}

    def add(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of one output; return the output's name."""
        output = f"{name}:{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, name: str, values: Array) -> str:
        """Add an initializer; return its name."""
        title = name if all(name != tensor.name for tensor in self.constants) else f"{name}:{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), title))
        return title

    def channels_first(self, value: Value) -> Value:
        """Return an image as ONNX wants it."""
        if value.rank != 3:
            raise RefusedLayerError(f"its input has {value.rank} axes, expected images")
        return value if value.is_channels_first else self._reorder(value, TO_CHANNELS_FIRST)

    def channels_last(self, value: Value) -> Value:
        """Return an activation as Keras has it."""
        return self._reorder(value, TO_CHANNELS_LAST) if value.is_channels_first else value

    def _reorder(self, value: Value, perm: tuple[int, ...]) -> Value:
        if value not in self._reordered:
            name = self.add("Transpose", f"{value.name}.transposed", value.name, perm=perm)
            self._reordered[value] = Value(name, value.rank, is_channels_first=not value.is_channels_first)
        return self._reordered[value]


Converter = Callable[[KerasLayer, Network, tuple[Value, ...]], Value]


def render_onnx(
    model: KerasModel, source: str, converters: Mapping[str, Converter], input_shape: tuple[int, ...] | None
) -> bytes:
    """Return a Keras model as ONNX bytes.

    Parameters
    ----------
    source : str
        The file, for error messages.
    converters : Mapping of str to callable
        What appends a layer's nodes, by Keras's class.
    input_shape : tuple of int, optional
        The shape of one sample, for a model that does not tell.

    Raises
    ------
    ModelFileError
        When the layers are not connected, or the shape of the input is missing.
    UnsupportedOperatorError
        When layers cannot be carried over: the message names all of them.
    """
    _check_ports(model, source)
    shape = model.input_shape if model.input_shape is not None else input_shape
    if shape is None:
        raise ModelFileError(
            f"{source}: the file does not tell the shape of its input; give that of one sample,"
            " for instance --input-shape 28,28,1"
        )
    network = Network(model.version)
    values = _convert_layers(model, network, Value("input", len(shape)), source, converters)
    output = network.channels_last(values[model.outputs[0]])
    network.nodes.append(onnx.helper.make_node("Identity", [output.name], ["output"], name="output"))
    infos = [_port("input", shape), _port("output", (None,) * output.rank)]
    graph = onnx.helper.make_graph(network.nodes, "keras", infos[:1], infos[1:], network.constants)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    rendered: bytes = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return rendered


def _port(name: str, shape: tuple[int | None, ...]) -> onnx.ValueInfoProto:
    sizes = ["batch", *(size or f"{name}{axis}" for axis, size in enumerate(shape))]
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)


def _check_ports(model: KerasModel, source: str) -> None:
    for what, ports in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(ports) != 1:
            raise UnsupportedOperatorError(f"{source}: the network has {len(ports)} {what}, expected one")


def _convert_layers(
    model: KerasModel, network: Network, value: Value, source: str, converters: Mapping[str, Converter]
) -> dict[Source, Value]:
    values: dict[Source, Value] = {}
    pending = [(layer, call) for layer in model.layers for call in range(len(layer.calls))]
    refusals: list[str] = []
    while pending:
        ready = [(layer, call) for layer, call in pending if all(each in values for each in layer.calls[call])]
        if not ready:
            raise ModelFileError(f"{source}: the layers of the Keras model are not connected to its input")
        for layer, call in ready:
            inputs = tuple(values[each] for each in layer.calls[call])
            if not inputs and layer.name != model.inputs[0][0]:
                raise ModelFileError(f"{source}: layer {layer.name!r} of the Keras model is applied to nothing")
            inputs = inputs or (value,)
            values[layer.name, call] = _convert_layer(layer, network, inputs, converters, refusals)
        pending = [entry for entry in pending if entry not in ready]
    if refusals:
        found, known = "; ".join(dict.fromkeys(refusals)), ", ".join(sorted(converters))
        raise UnsupportedOperatorError(f"{source}: unsupported layers: {found}. Supported: {known}")
    if model.outputs[0] not in values:
        raise ModelFileError(f"{source}: the Keras model's output {model.outputs[0]} is no layer of it")
    return values


def _convert_layer(
    layer: KerasLayer,
    network: Network,
    inputs: tuple[Value, ...],
    converters: Mapping[str, Converter],
    refusals: list[str],
) -> Value:
    """Append a layer's nodes; note a refusal and go on, so that all are reported at once."""
    title = f"{layer.kind} ({layer.name!r})"
    if layer.kind not in converters:
        refusals.append(f"{title}: it is Python code, which nettrim does not run" if layer.kind == "Lambda" else title)
        return inputs[0]
    try:
        return converters[layer.kind](layer, network, inputs)
    except RefusedLayerError as error:
        refusals.append(f"{title}: {error}")
    except MISTYPED as error:
        reason = " ".join(str(error).split())[:200]
        refusals.append(f"{title}: its settings are not as Keras writes them ({type(error).__name__}: {reason})")
    return inputs[0]
