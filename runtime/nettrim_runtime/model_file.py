"""model.npz: a graph on disk, version 1, with every check that a foreign file needs.

An .npz archive without pickles. The entry ``header`` holds JSON as bytes: format, version, name,
inputs, outputs, ops (type and fields) and tensors (name, shape, dtype, zero_point, axis, storage).
Tensor number i has the entries ``i.data`` (dense, or the kept values), ``i.indices`` and
``i.indptr`` (storage "csr"), ``i.scale`` (quantised). The same graph always gives the same bytes.
"""

import dataclasses
import enum
import io
import json
import math
import types
import typing
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.csr import CsrMatrix, csr_fault
from nettrim_runtime.errors import GraphError, ModelFileError
from nettrim_runtime.graph import DTYPES, Graph, Quantization, Tensor
from nettrim_runtime.ops import OPERATORS, Op

Array = npt.NDArray[Any]

FORMAT = "nettrim-model"
VERSION = 1
LARGEST_FILE_BYTES = 1 << 31  # unpacked; a network for a board is far smaller
LARGEST_HEADER_BYTES = 1 << 26
OPERATORS_BY_NAME = {operator.__name__: operator for operator in OPERATORS}


def render_model(graph: Graph) -> bytes:
    """Return the bytes of model.npz."""
    tensors = [graph.tensors[name] for name in sorted(graph.tensors)]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": graph.name,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "ops": [{"type": type(op).__name__, **_op_fields(op)} for op in graph.ops],
        "tensors": [_tensor_fields(tensor) for tensor in tensors],
    }
    arrays = {"header": np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)}
    for number, tensor in enumerate(tensors):
        arrays |= {f"{number}.{part}": values for part, values in _tensor_arrays(tensor).items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes `allow_pickle` for one of the arrays
    return file.getvalue()


def load_model(path: str | Path) -> Graph:
    """Read model.npz.

    Raises
    ------
    ModelFileError
        When the file is absent, damaged, not a nettrim model, of another version, or inconsistent.
    """
    try:
        return _read_graph(_read_arrays(path))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; expected a model.npz that nettrim wrote") from error
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except GraphError as error:
        raise ModelFileError(f"{path}: the network in it is inconsistent: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelFileError(f"{path}: not a readable model.npz ({type(error).__name__}: {error})") from error
    except (OverflowError, MemoryError, RecursionError, RuntimeError, zlib.error) as error:
        raise ModelFileError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def _read_arrays(path: str | Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > LARGEST_FILE_BYTES:
        raise ModelFileError(f"unpacks to {unpacked} bytes, expected at most {LARGEST_FILE_BYTES}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _op_fields(op: Op) -> dict[str, Any]:
    fields = {}
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        fields[field.name] = value.value if isinstance(value, enum.Enum) else value
    return fields


def _tensor_fields(tensor: Tensor) -> dict[str, Any]:
    quantization = tensor.quantization
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "dtype": tensor.dtype,
        "zero_point": None if quantization is None else quantization.zero_point,
        "axis": None if quantization is None else quantization.axis,
        "storage": {CsrMatrix: "csr", types.NoneType: "activation"}.get(type(tensor.data), "dense"),
    }


def _tensor_arrays(tensor: Tensor) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    if isinstance(tensor.data, CsrMatrix):
        arrays = {"data": tensor.data.data, "indices": tensor.data.indices, "indptr": tensor.data.indptr}
    elif tensor.data is not None:
        arrays = {"data": tensor.data}
    if tensor.quantization is not None:
        arrays["scale"] = tensor.quantization.scale
    return arrays


def _read_graph(arrays: Mapping[str, Array]) -> Graph:
    if "header" not in arrays or arrays["header"].dtype != np.uint8 or arrays["header"].size > LARGEST_HEADER_BYTES:
        raise ModelFileError("no header entry, expected a model.npz that nettrim wrote")
    header = json.loads(arrays["header"].tobytes().decode())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ModelFileError("the header is of another format, expected a model.npz that nettrim wrote")
    if header.get("version") != VERSION:
        raise ModelFileError(
            f"format version {header.get('version')!r}, this nettrim reads version {VERSION}: export the model again"
        )
    tensors = [_read_tensor(fields, number, arrays) for number, fields in enumerate(_list(header, "tensors"))]
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelFileError("two tensors have one name")
    return Graph(
        name=_text(header, "name"),
        inputs=tuple(_texts(header, "inputs")),
        outputs=tuple(_texts(header, "outputs")),
        ops=tuple(_read_op(fields) for fields in _list(header, "ops")),
        tensors={tensor.name: tensor for tensor in tensors},
    )


def _read_op(fields: Any) -> Op:
    operator = OPERATORS_BY_NAME.get(_text(fields, "type"))
    if operator is None:
        raise ModelFileError(f"operator {fields['type']!r} is unknown, expected one of {sorted(OPERATORS_BY_NAME)}")
    hints = typing.get_type_hints(operator)
    if set(fields) != {*hints, "type"}:
        raise ModelFileError(f"{fields['type']} has fields {sorted(fields)}, expected {sorted(hints)}")
    return operator(**{name: _read_value(fields, name, kind) for name, kind in hints.items()})


def _read_value(fields: Mapping[str, Any], name: str, kind: Any) -> Any:
    value = fields[name]
    if kind is str:
        return _text(fields, name)
    if kind is int:
        return _integer(value, name)
    if kind is bool:
        return _truth(value, name)
    if kind == tuple[str, ...]:
        return tuple(_texts(fields, name))
    if kind is float:
        return _number(value, name)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    integers = tuple(_integer(item, name) for item in _list(fields, name))
    return integers if kind == tuple[int, ...] else kind(*integers)  # Size2d or Padding


def _read_tensor(fields: Any, number: int, arrays: Mapping[str, Array]) -> Tensor:
    name, dtype = _text(fields, "name"), _text(fields, "dtype")
    shape = tuple(_integer(size, f"shape of {name}") for size in _list(fields, "shape"))
    if dtype not in DTYPES or min(shape, default=1) < 1 or math.prod(shape) > LARGEST_FILE_BYTES:
        raise ModelFileError(f"tensor {name!r} has type {dtype!r} and shape {shape}")
    data: Array | CsrMatrix | None = None
    storage = _text(fields, "storage")
    if storage == "csr":
        data = _read_csr(name, shape, number, arrays)
    elif storage == "dense":
        data = arrays[f"{number}.data"]
    elif storage != "activation":
        raise ModelFileError(f"tensor {name!r} has storage {storage!r}, expected activation, dense or csr")
    return Tensor(name, shape, dtype, _read_quantization(fields, number, arrays), data)


def _read_csr(name: str, shape: tuple[int, ...], number: int, arrays: Mapping[str, Array]) -> CsrMatrix:
    data, indices, indptr = (arrays[f"{number}.{part}"] for part in ("data", "indices", "indptr"))
    if indices.dtype not in (np.uint8, np.uint16, np.uint32) or indptr.dtype != np.int32:
        raise ModelFileError(f"tensor {name!r} has indices of {indices.dtype} and indptr of {indptr.dtype}")
    matrix = CsrMatrix(data, indices, indptr, (shape[0], math.prod(shape[1:])))
    fault = csr_fault(matrix)
    if fault is not None:
        raise ModelFileError(f"tensor {name!r}: {fault}")
    return matrix


def _read_quantization(fields: Mapping[str, Any], number: int, arrays: Mapping[str, Array]) -> Quantization | None:
    if fields["zero_point"] is None:
        return None
    scale = arrays[f"{number}.scale"]
    zero_point = _integer(fields["zero_point"], "zero_point")
    axis = None if fields["axis"] is None else _integer(fields["axis"], "axis")
    sound = scale.dtype == np.float32 and scale.ndim == 1 and scale.size >= 1
    if not sound or not np.all(np.isfinite(scale) & (scale > 0)) or not -128 <= zero_point <= 127:
        raise ModelFileError(f"tensor {fields['name']!r} has an unsound scale or zero point")
    return Quantization(scale, zero_point, axis)


def _text(fields: Any, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise ModelFileError(f"{name} is {value!r}, expected text")
    return value


def _texts(fields: Any, name: str) -> list[str]:
    values = _list(fields, name)
    if not all(isinstance(value, str) for value in values):
        raise ModelFileError(f"{name} holds {values!r}, expected texts")
    return values


def _list(fields: Any, name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list):
        raise ModelFileError(f"{name} is {value!r}, expected a list")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelFileError(f"{name} is {value!r}, expected a number")
    return float(value)


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelFileError(f"{name} is {value!r}, expected an integer")
    return value


def _truth(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ModelFileError(f"{name} is {value!r}, expected true or false")
    return value
