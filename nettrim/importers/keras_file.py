"""Reads Keras files (.h5, .keras) into layers with their weights: JSON and numbers; nothing in them is executed."""

import contextlib
import importlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.file_kind import MAX_FILE_BYTES
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]
Source = tuple[str, int]  # a layer's name and which of its calls


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer.

    Attributes
    ----------
    kind : str
        Keras's name of the class.
    config : Mapping of str to Any
        Its arguments.
    calls : tuple of tuple of (str, int)
        For each time that the layer is applied: what it is applied to.
    weights : tuple of Array
        In Keras's order.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    calls: tuple[tuple[Source, ...], ...]
    weights: tuple[Array, ...]


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


def read_keras_h5(path: Path) -> KerasModel:
    """Return the model in an HDF5 file that model.save wrote.

    Raises
    ------
    ModelFileError
        When h5py is missing, the file is damaged or holds weights without a network.
    """
    with _reported(path), _open_h5(path, path) as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise ModelFileError(
                f"{path}: this HDF5 file holds no Keras network (no model_config), perhaps only weights; save the"
                " whole model with model.save('model.keras')"
            )
        version = _text(file.attrs.get("keras_version", "2"))
        groups = file["model_weights"]
        return _read_model(path, json.loads(_text(config)), version, lambda layer: _h5_weights(path, groups, layer))


def read_keras_zip(path: Path) -> KerasModel:
    """Return the model in a .keras archive.

    Raises
    ------
    ModelFileError
        When h5py is missing or the file is damaged.
    """
    with _reported(path), zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
        with _open_h5(path, io.BytesIO(archive.read("model.weights.h5"))) as file:
            groups, taken = file["layers"], Counter[str]()
            return _read_model(
                path, config, metadata["keras_version"], lambda layer: _zip_weights(path, groups, layer, taken)
            )


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into one line."""
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{path}: the Keras file is damaged, or no Sequential or Functional model"
            f" ({type(error).__name__}: {reason}); save or copy it again"
        ) from error


def _open_h5(path: Path, source: Any) -> Any:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ModelFileError(
            f"{path}: h5py is needed to read this file and is not installed: pip install nettrim[keras]"
        ) from error
    return h5py.File(source, "r")


def _read_model(
    path: Path, content: Any, version: str, weights_of: Callable[[Mapping[str, Any]], tuple[Array, ...]]
) -> KerasModel:
    kind, config = content["class_name"], content["config"]
    if kind not in {"Sequential", "Functional", "Model"}:
        raise ModelFileError(f"{path}: the Keras model is a {kind}, expected Sequential or Functional")
    entries = config if isinstance(config, list) else config["layers"]
    is_sequential = kind == "Sequential"
    calls = _chained(entries) if is_sequential else [_read_calls(entry) for entry in entries]
    layers = tuple(
        KerasLayer(_kind(entry), _name(entry), entry["config"], each, weights_of(entry))
        for entry, each in zip(entries, calls, strict=True)
    )
    inputs = ((layers[0].name, 0),) if is_sequential else _sources(config["input_layers"])
    outputs = ((layers[-1].name, 0),) if is_sequential else _sources(config["output_layers"])
    return KerasModel(int(version.partition(".")[0]), _input_shape(content, layers, inputs), layers, inputs, outputs)


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _kind(entry: Mapping[str, Any]) -> str:
    """Return Keras's name of a layer's class; one of the user's own keeps its package in front."""
    own = entry.get("registered_name")
    return str(entry["class_name"]) if own is None or str(entry.get("module")).startswith("keras") else str(own)


def _chained(entries: Iterable[Mapping[str, Any]]) -> list[tuple[tuple[Source, ...], ...]]:
    """Return the calls of layers that follow one another; the first is applied to nothing."""
    names = [_name(entry) for entry in entries]
    return [((),), *((((name, 0),),) for name in names[:-1])]


def _read_calls(entry: Mapping[str, Any]) -> tuple[tuple[Source, ...], ...]:
    return tuple(_sources(node) for node in entry["inbound_nodes"]) or ((),)


def _sources(node: Any) -> tuple[Source, ...]:
    """Return the tensors that a call names, in the notation of Keras 2 or 3."""
    return tuple(_find_sources(node))


def _find_sources(node: Any) -> Iterator[Source]:
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


def _input_shape(
    content: Mapping[str, Any], layers: tuple[KerasLayer, ...], inputs: tuple[Source, ...]
) -> tuple[int | None, ...] | None:
    first = next(layer.config for layer in layers if layer.name == inputs[0][0])
    shape = first.get("batch_shape") or first.get("batch_input_shape")
    if shape is None and isinstance(content["config"], dict):
        shape = content["config"].get("build_input_shape")
    if shape is None:
        return None
    sizes = tuple(shape[1:])
    if not sizes or not all(size is None or (isinstance(size, int) and size > 0) for size in sizes):
        raise ValueError(f"input shape {shape}")
    return sizes


def _h5_weights(path: Path, groups: Any, entry: Mapping[str, Any]) -> tuple[Array, ...]:
    if _name(entry) not in groups:
        return ()  # a Sequential model's InputLayer has no group
    group = _child(groups, _name(entry))
    return tuple(_read_dataset(path, group, _text(name)) for name in group.attrs.get("weight_names", ()))


def _zip_weights(path: Path, groups: Any, entry: Mapping[str, Any], taken: Counter[str]) -> tuple[Array, ...]:
    name = _snake_case(str(entry["class_name"]))
    number = taken[name]
    taken[name] += 1
    title = f"{name}_{number}" if number else name
    if title not in groups:
        return ()
    variables = _child(_child(groups, title), "vars")
    return tuple(_read_dataset(path, variables, str(index)) for index in range(len(variables)))


def _snake_case(name: str) -> str:
    """Return a class's name as Keras names its group: "SeparableConv2D" as "separable_conv2d"."""
    parts = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", parts).lower()


def _read_dataset(path: Path, group: Any, name: str) -> Array:
    for part in name.split("/"):
        group = _child(group, part)
    if group.external or group.is_virtual:
        raise ModelFileError(f"{path}: weight {name!r} lies in another file, which nettrim does not open")
    if group.dtype.kind not in "fiu":
        raise ModelFileError(f"{path}: weight {name!r} is {group.dtype}, expected numbers")
    if group.size * group.dtype.itemsize > MAX_FILE_BYTES:  # a file can claim more than it holds
        raise ModelFileError(f"{path}: weight {name!r} has shape {group.shape}, more than a model may hold")
    return np.asarray(group[()], np.float32)


def _child(group: Any, name: str) -> Any:
    """Return a member of a group that is stored in it: HDF5's links can lead to other files."""
    link = group.get(name, getlink=True)
    if type(link).__name__ != "HardLink":
        raise ValueError(f"{name!r} is a {type(link).__name__}, expected data in the file itself")
    return group[name]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
