"""Reads a safetensors file into named arrays: a header in JSON, then raw numbers.

Layout: https://github.com/huggingface/safetensors, README, "Format". Read here, because that is shorter than a
dependency, and because the header can then be checked before anything is allocated.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.memory_limit import ByteTotal, check_json_size
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

LENGTH_BYTES = 8  # of the header's length, little-endian, in front
METADATA = "__metadata__"  # the one entry of the header that is no tensor
BFLOAT16 = "BF16"  # the upper half of a float32, which NumPy does not know
DTYPES = dict(
    zip(
        ("F64", "F32", "F16", BFLOAT16, "I64", "I32", "I16", "I8", "U8", "BOOL"),
        ("<f8", "<f4", "<f2", "<u2", "<i8", "<i4", "<i2", "i1", "u1", "?"),
        strict=True,
    )
)


def is_safetensors(path: Path, size: int) -> bool:
    """Whether a file of ``size`` bytes begins with a header of the format."""
    return _read_header(path, size) is not None


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the file's tensors by name, in the file's order; bfloat16 comes as float32.

    Raises
    ------
    ModelFileError
        When the header and the file do not fit, or numbers are of a type that NumPy does not have.
    """
    header = _read_header(path, path.stat().st_size)
    if header is None:
        raise ModelFileError(f"{path}: the header of the safetensors file is damaged; save or copy it again")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        file.seek(LENGTH_BYTES + length)
        data = file.read()
    total = ByteTotal(path)
    return {name: _read_tensor(total, name, entry, data) for name, entry in header.items() if name != METADATA}


def float_values(path: Path, name: str, values: Array) -> Array:
    """Return a tensor's values as float32.

    Raises
    ------
    ModelFileError
        When they are integers.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise ModelFileError(f"{path}: tensor {name!r} is {values.dtype}, expected trained weights in floats")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        return values.astype(np.float32)


def _read_header(path: Path, size: int) -> Mapping[str, Any] | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 2 <= length <= size - LENGTH_BYTES:
            return None
        if file.read(1) != b"{":
            return None
        check_json_size(path, "the header of the safetensors file", length)
        try:
            header = json.loads(b"{" + file.read(length - 1))
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) else None


def _read_tensor(total: ByteTotal, name: str, entry: Any, data: bytes) -> Array:
    path = total.path
    try:
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        kind = str(entry["dtype"])
    except (TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{path}: tensor {name!r} has no dtype, shape and data_offsets in the header") from error
    if kind not in DTYPES:
        raise ModelFileError(f"{path}: tensor {name!r} is {kind}, expected one of {', '.join(DTYPES)}")
    dtype = np.dtype(DTYPES[kind])
    numbers = (*shape, begin, end)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ModelFileError(f"{path}: tensor {name!r} has shape {shape} at {begin}:{end}, expected integers from 0")
    if not begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ModelFileError(
            f"{path}: tensor {name!r} of shape {shape}, {kind}, lies at {begin}:{end} of {len(data)} bytes:"
            " damaged or cut short; save or copy the file again"
        )
    total.add(name, 2 * (end - begin) if kind == BFLOAT16 else end - begin)  # tensors may lie over one another
    values = np.frombuffer(data, dtype, math.prod(shape), begin).reshape(shape)
    return (values.astype(np.uint32) << 16).view(np.float32) if kind == BFLOAT16 else values.copy()
