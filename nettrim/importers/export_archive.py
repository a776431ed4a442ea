"""Reads a PyTorch export archive (.pt2): JSON and raw weights. Its pickles and compiled code are never opened.

torch.export.load is not used: it unpickles sample inputs without restriction, evaluates the text of symbolic sizes and
guards as Python, and looks operators up by any name. Here the listed operators alone are called, in the listed order.
"""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nettrim.importers.memory_limit import FLOAT_BYTES, ByteTotal, check_json_size
from nettrim.importers.torch_library import first_line, import_torch
from nettrim_runtime.errors import ModelFileError, NettrimError, UnsupportedOperatorError

WEIGHTS, CONSTANTS = "data/weights", "data/constants"
NUMBERED_TYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
DTYPES = {**dict(enumerate(NUMBERED_TYPES, start=1)), 12: "bool", 13: "bfloat16"}  # schema.py, ScalarType


class UntrustedArchiveError(ModelFileError):
    """An archive that torch's own loader may read, which runs code."""


@dataclass(frozen=True, eq=False)
class ExportArchive:
    """The one program of an archive.

    Attributes
    ----------
    nodes : tuple of Mapping
        In the order of execution, as torch's schema has them.
    constants : Mapping of str to (str, torch.Tensor)
        By the name in the graph: the name in the module, and the values.
    input, output : str
        Names in the graph.
    input_shape : tuple of int or None
        Of one sample, without the batch axis; None for a size left open.
    has_open_batch : bool
        Whether batches may have any size, else they have one sample.
    """

    nodes: tuple[Mapping[str, Any], ...]
    constants: Mapping[str, tuple[str, Any]]
    input: str
    output: str
    input_shape: tuple[int | None, ...]
    has_open_batch: bool


def read_export_archive(path: Path) -> ExportArchive:
    """Return the program in an archive.

    Raises
    ------
    ModelFileError
        When torch is missing, or the archive holds too much or another network than can be read.
    UntrustedArchiveError
        When the archive is damaged or of another version, or weights in it are pickled.
    UnsupportedOperatorError
        When it does not have one tensor as input and one as output.
    """
    torch = import_torch(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(torch, path, archive)
    except NettrimError:
        raise
    except Exception as error:  # a damaged archive raises anything
        raise UntrustedArchiveError(
            f"{path}: the PyTorch export archive is damaged or of another version ({first_line(error)});"
            " export it again"
        ) from error


def _read(torch: Any, path: Path, archive: zipfile.ZipFile) -> ExportArchive:
    folder = archive.namelist()[0].partition("/")[0]
    models = [name for name in archive.namelist() if name.startswith(f"{folder}/models/") and name.endswith(".json")]
    if len(models) != 1:
        raise UntrustedArchiveError(f"{path}: the export archive holds {len(models)} programs, expected one")
    title = models[0].rpartition("/")[2].removesuffix(".json")
    module = _read_json(path, archive, models[0])["graph_module"]
    total = ByteTotal(path)
    tensors = _Payload(torch, total, archive, f"{folder}/{WEIGHTS}").read(f"{title}_weights_config.json")
    tensors |= _Payload(torch, total, archive, f"{folder}/{CONSTANTS}").read(f"{title}_constants_config.json")
    graph, signature = module["graph"], module["signature"]
    name, constants = _read_inputs(path, signature["input_specs"], tensors)
    sizes = graph["tensor_values"][name]["sizes"]
    batch, *shape = (size.get("as_int") for size in sizes)
    if batch not in {None, 1}:
        raise ModelFileError(
            f"{path}: the program takes batches of {batch} samples alone; export it with one sample, or with an open"
            " batch axis"
        )
    if not all(size is None or (isinstance(size, int) and size > 0) for size in shape):
        raise ModelFileError(f"{path}: the input has shape {shape}, expected sizes of at least one")
    return ExportArchive(
        nodes=tuple(graph["nodes"]),
        constants=constants,
        input=name,
        output=_read_output(path, signature["output_specs"]),
        input_shape=tuple(shape),
        has_open_batch=batch is None,
    )


def _read_json(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    check_json_size(path, name, archive.getinfo(name).file_size)
    return json.loads(archive.read(name))


def _read_inputs(
    path: Path, specs: list[Mapping[str, Any]], tensors: Mapping[str, Any]
) -> tuple[str, dict[str, tuple[str, Any]]]:
    """Return the name of the only input, and the constants by their names in the graph."""
    inputs, constants = [], {}
    for spec in specs:
        ((kind, entry),) = spec.items()
        if kind == "user_input":
            inputs.append(entry["arg"]["as_tensor"]["name"])
        elif kind in {"parameter", "buffer", "tensor_constant"}:
            name = entry[f"{kind}_name"]
            constants[entry["arg"]["name"]] = (name, tensors[name])
        else:
            raise UnsupportedOperatorError(f"{path}: the program takes a {kind}, expected tensors alone")
    if len(inputs) != 1:
        raise UnsupportedOperatorError(f"{path}: the program has {len(inputs)} inputs, expected one")
    return inputs[0], constants


def _read_output(path: Path, specs: list[Mapping[str, Any]]) -> str:
    kinds = [kind for spec in specs for kind in spec]
    if kinds != ["user_output"]:
        found = ", ".join(kinds) or "nothing"
        raise UnsupportedOperatorError(
            f"{path}: the program returns {found}, expected one output; export after model.eval()"
        )
    return str(specs[0]["user_output"]["arg"]["as_tensor"]["name"])


class _Payload:
    """The tensors of one folder of the archive."""

    def __init__(self, torch: Any, total: ByteTotal, archive: zipfile.ZipFile, folder: str) -> None:
        self.torch, self.total, self.archive, self.folder = torch, total, archive, folder

    def read(self, config: str) -> dict[str, Any]:
        entries = _read_json(self.total.path, self.archive, f"{self.folder}/{config}")["config"]
        return {name: self._read_tensor(name, entry) for name, entry in entries.items()}

    def _read_tensor(self, name: str, entry: Mapping[str, Any]) -> Any:
        meta = entry.get("tensor_meta")
        if entry["use_pickle"] is not False or meta is None:
            raise UntrustedArchiveError(
                f"{self.total.path}: {name!r} is a pickled object, expected raw numbers: opening it could run any code"
            )
        sizes, strides = ([part["as_int"] for part in meta[key]] for key in ("sizes", "strides"))
        dtype = getattr(self.torch, DTYPES[meta["dtype"]])
        payload = f"{self.folder}/{entry['path_name']}"
        # each entry reads its payload, even one that others read too, and strides of zero make little stand for much
        self.total.add(
            name, max(math.prod(sizes) * max(dtype.itemsize, FLOAT_BYTES), self.archive.getinfo(payload).file_size)
        )
        data = bytearray(self.archive.read(payload))
        values = self.torch.frombuffer(data, dtype=dtype) if data else self.torch.empty(0, dtype=dtype)
        return values.as_strided(sizes, strides, meta["storage_offset"]["as_int"])
