"""A Keras model's description in JSON to layers and what each is applied to; models within models are unrolled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]
Entry = Mapping[str, Any]  # a layer as the JSON has it
Source = tuple[str, int]  # a layer's name and which of its calls

MODELS = ("Sequential", "Functional", "Model")
LARGEST_SIZE = 2**31 - 1  # of an axis of the input


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer.

    Attributes
    ----------
    kind : str
        Keras's name of the class.
    name : str
        With the names of the models around it in front.
    config : Mapping of str to Any
        Its arguments.
    calls : tuple of tuple of (str, int)
        For each time that the layer is applied: what it is applied to; nothing stands for the network's input.
    weights : tuple of Array
        In Keras's order.
    numbers : Mapping of int to float
        What is combined with tensors in the first call, by its position among the arguments.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[tuple[Source, ...], ...]
    weights: tuple[Array, ...]
    numbers: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class KerasModel:
    """A Sequential or Functional model.

    Attributes
    ----------
    version : int
        The first number of Keras's version: functions have changed their meaning with it.
    input_shape : tuple or None
        Of one sample, None for a size left open; None when a Sequential model does not tell.
    layers : tuple of KerasLayer
        In the file's order.
    inputs, outputs : tuple of (str, int)
        Layer's name and call.
    """

    version: int
    input_shape: tuple[int | None, ...] | None
    layers: tuple[KerasLayer, ...]
    inputs: tuple[Source, ...]
    outputs: tuple[Source, ...]


class Weights(Protocol):
    """The weights of one model's layers, asked for in the order of the JSON."""

    def of(self, entry: Entry) -> tuple[Array, ...]:
        """Return a layer's weights in Keras's order."""

    def inside(self, entry: Entry) -> "Weights":
        """Return those of a model within the model."""


def read_model(content: Entry, version: str, weights: Weights) -> KerasModel:
    """Return the model that JSON describes.

    Raises
    ------
    KeyError, TypeError, ValueError, IndexError
        When the JSON describes none.
    """
    part = _read_part(content, weights, "", ())
    return KerasModel(
        int(version.partition(".")[0]), _input_shape(content, part), part.layers, part.inputs, part.outputs
    )


@dataclass(frozen=True, eq=False)
class _Part:
    layers: tuple[KerasLayer, ...]
    inputs: tuple[Source, ...]
    outputs: tuple[Source, ...]


def _read_part(content: Entry, weights: Weights, prefix: str, feeds: tuple[Source, ...]) -> _Part:
    """Return a model's layers under a prefix, its inputs applied to ``feeds``."""
    kind, config = content["class_name"], content["config"]
    if kind not in MODELS:
        raise ValueError(f"a model of the class {kind}")
    entries = config if isinstance(config, list) else config["layers"]
    is_sequential = kind == "Sequential"
    calls = _chained(entries) if is_sequential else [_read_calls(entry) for entry in entries]
    inputs = ((layer_name(entries[0]), 0),) if is_sequential else tuple(_find_sources(config["input_layers"]))
    outputs = ((layer_name(entries[-1]), 0),) if is_sequential else tuple(_find_sources(config["output_layers"]))
    layers: list[KerasLayer] = []
    aliases: dict[str, Source] = {}  # of models within the model, by name: what they return
    for entry, own in zip(entries, calls, strict=True):
        applied = tuple(tuple(_resolve(source, prefix, aliases) for source in call) or feeds for call in own)
        if entry["class_name"] in MODELS:
            inner = _read_inner(entry, weights, prefix, applied)
            layers += inner.layers
            aliases[layer_name(entry)] = inner.outputs[0]
        else:
            layers.append(_read_layer(entry, prefix, applied, weights))
    return _Part(
        tuple(layers), *(tuple(_resolve(port, prefix, aliases) for port in ports) for ports in (inputs, outputs))
    )


def _read_layer(entry: Entry, prefix: str, calls: tuple[tuple[Source, ...], ...], weights: Weights) -> KerasLayer:
    name = prefix + layer_name(entry)
    return KerasLayer(_kind(entry), name, entry["config"], calls, weights.of(entry), _read_numbers(entry))


def _read_inner(entry: Entry, weights: Weights, prefix: str, calls: tuple[tuple[Source, ...], ...]) -> _Part:
    name = layer_name(entry)
    if len(calls) != 1 or len(calls[0]) > 1:
        raise ValueError(
            f"the model {name!r} within the model is applied {len(calls)} times, expected once to one input"
        )
    inner = _read_part(entry, weights.inside(entry), f"{prefix}{name}/", calls[0])
    if len(inner.inputs) != 1 or len(inner.outputs) != 1:
        raise ValueError(f"the model {name!r} within the model has several inputs or outputs, expected one")
    return inner


def _resolve(source: Source, prefix: str, aliases: Mapping[str, Source]) -> Source:
    name, call = source
    return aliases.get(name, (prefix + name, call))


def layer_name(entry: Entry) -> str:
    """Return a layer's own name."""
    return str(entry.get("name") or entry["config"]["name"])


def _kind(entry: Entry) -> str:
    """Return Keras's name of a layer's class; one of the user's own keeps its package in front."""
    own = entry.get("registered_name")
    return str(entry["class_name"]) if own is None or str(entry.get("module")).startswith("keras") else str(own)


def _chained(entries: list[Entry]) -> list[tuple[tuple[Source, ...], ...]]:
    """Return the calls of layers that follow one another; the first is applied to nothing."""
    names = [layer_name(entry) for entry in entries]
    return [((),), *((((name, 0),),) for name in names[:-1])]


def _read_calls(entry: Entry) -> tuple[tuple[Source, ...], ...]:
    return tuple(tuple(_find_sources(node)) for node in entry["inbound_nodes"]) or ((),)


def _read_numbers(entry: Entry) -> dict[int, float]:
    """Return the numbers among the arguments of a layer's first call: Keras 3's args, or Keras 2's y of `x + y`."""
    call = next(iter(entry.get("inbound_nodes") or ()), None)
    if isinstance(call, dict):
        arguments = call["args"]
    else:  # a list of tensors, or the one tensor that `x + y` begins with
        first = call[0] if call and isinstance(call[0], list) else call
        arguments = [None, first[3].get("y")] if first and len(first) > 3 else []
    return {
        index: float(part)
        for index, part in enumerate(arguments)
        if isinstance(part, int | float) and not isinstance(part, bool)
    }


def _find_sources(node: Any) -> Iterator[Source]:
    """Yield the tensors that a call names, in the notation of Keras 2 or 3."""
    if isinstance(node, dict):
        node = node["config"]["keras_history"] if node.get("class_name") == "__keras_tensor__" else list(node.values())
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            if node[2] != 0:
                raise ValueError(f"output {node[2]} of layer {node[0]!r} is used, expected layers of one output")
            yield node[0], node[1]
            node = node[3:]
        for part in node:
            yield from _find_sources(part)


def _input_shape(content: Entry, part: _Part) -> tuple[int | None, ...] | None:
    first = next(layer.config for layer in part.layers if layer.name == part.inputs[0][0])
    shape = first.get("batch_shape") or first.get("batch_input_shape")
    if shape is None and isinstance(content["config"], dict):
        shape = content["config"].get("build_input_shape")
    if shape is None:
        return None
    sizes = tuple(shape[1:])
    if not sizes or not all(size is None or (type(size) is int and 0 < size <= LARGEST_SIZE) for size in sizes):
        raise ValueError(f"input shape {shape}")
    return sizes
