"""Reads Keras files (.h5, .keras) into layers with their weights: JSON and numbers; nothing in them is executed."""

import contextlib
import importlib
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.keras_config import Entry, KerasModel, Weights, layer_name, read_model
from nettrim.importers.memory_limit import FLOAT_BYTES, ByteTotal, check_json_size
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]


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
        check_json_size(path, "model_config", len(config))
        version = _text(file.attrs.get("keras_version", "2"))
        weights = _H5Weights(ByteTotal(path, is_compressed=True), file["model_weights"])
        return read_model(json.loads(_text(config)), version, weights)


def read_keras_zip(path: Path) -> KerasModel:
    """Return the model in a .keras archive.

    Raises
    ------
    ModelFileError
        When h5py is missing or the file is damaged.
    """
    with _reported(path), zipfile.ZipFile(path) as archive:
        for name in ("config.json", "metadata.json"):
            check_json_size(path, name, archive.getinfo(name).file_size)
        config = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
        with _open_h5(path, io.BytesIO(archive.read("model.weights.h5"))) as file:
            weights = _ZipWeights(ByteTotal(path, is_compressed=True), file["layers"])
            return read_model(config, metadata["keras_version"], weights)


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


class _H5Weights:
    """Weights of the layers of model.save("model.h5"): one group a layer, with the names of its weights."""

    def __init__(self, total: ByteTotal, groups: Any) -> None:
        self.total, self.groups = total, groups

    def of(self, entry: Entry) -> tuple[Array, ...]:
        if layer_name(entry) not in self.groups:
            return ()  # a Sequential model's InputLayer has no group
        group = _child(self.groups, layer_name(entry))
        return tuple(_read_dataset(self.total, group, name) for name in _weight_names(group))

    def inside(self, entry: Entry) -> Weights:
        return _InnerH5Weights(self.total, _child(self.groups, layer_name(entry)))


class _InnerH5Weights:
    """The same for a model within the model: one group for all its layers, whose names are in those of the weights."""

    def __init__(self, total: ByteTotal, group: Any) -> None:
        self.total, self.group = total, group
        self.names = _weight_names(group)

    def of(self, entry: Entry) -> tuple[Array, ...]:
        own = [name for name in self.names if layer_name(entry) in name.split("/")[-2:-1]]
        return tuple(_read_dataset(self.total, self.group, name) for name in own)

    def inside(self, _entry: Entry) -> Weights:
        return self


class _ZipWeights:
    """Weights of the layers in a .keras archive: groups named after the layers' classes, counted from the second on."""

    def __init__(self, total: ByteTotal, groups: Any) -> None:
        self.total, self.groups = total, groups
        self.taken = Counter[str]()

    def of(self, entry: Entry) -> tuple[Array, ...]:
        title = self._title(entry)
        if title not in self.groups:
            return ()
        variables = _child(_child(self.groups, title), "vars")
        return tuple(_read_dataset(self.total, variables, str(index)) for index in range(len(variables)))

    def inside(self, entry: Entry) -> Weights:
        return _ZipWeights(self.total, _child(_child(self.groups, self._title(entry)), "layers"))

    def _title(self, entry: Entry) -> str:
        name = _snake_case(str(entry["class_name"]))
        number = self.taken[name]
        self.taken[name] += 1
        return f"{name}_{number}" if number else name


def _weight_names(group: Any) -> list[str]:
    return [_text(name) for name in group.attrs.get("weight_names", ())]


def _snake_case(name: str) -> str:
    """Return a class's name as Keras names its group: "SeparableConv2D" as "separable_conv2d"."""
    parts = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", parts).lower()


def _read_dataset(total: ByteTotal, group: Any, name: str) -> Array:
    for part in name.split("/"):
        group = _child(group, part)
    if group.external or group.is_virtual:
        raise ModelFileError(f"{total.path}: weight {name!r} lies in another file, which nettrim does not open")
    if group.dtype.kind not in "fiu":
        raise ModelFileError(f"{total.path}: weight {name!r} is {group.dtype}, expected numbers")
    total.add(name, group.size * max(group.dtype.itemsize, FLOAT_BYTES))  # also what was never written
    return np.asarray(group[()], np.float32)


def _child(group: Any, name: str) -> Any:
    """Return a member of a group that is stored in it: HDF5's links can lead to other files."""
    link = group.get(name, getlink=True)
    if type(link).__name__ != "HardLink":
        raise ValueError(f"{name!r} is a {type(link).__name__}, expected data in the file itself")
    return group[name]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
