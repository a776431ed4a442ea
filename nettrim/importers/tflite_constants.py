"""Constants of a .tflite file: their numbers, dense, and the real values that they stand for."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_file import FileQuantization, FileTensor
from nettrim.importers.tflite_sparsity import MOST_VALUES, densify
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

DTYPES = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
}


@dataclass(frozen=True, eq=False)
class Constant:
    """Numbers as the file stores them, in the tensor's shape, and their quantisation."""

    name: str
    numbers: Array
    quantization: FileQuantization | None

    @property
    def is_float(self) -> bool:
        """Whether the numbers are the values."""
        return self.numbers.dtype.kind == "f"

    def values(self) -> Array:
        """Return what the numbers stand for, float32."""
        if self.quantization is None or self.is_float:
            return self.numbers.astype(np.float32, copy=False)
        shape = [1] * self.numbers.ndim
        if self.quantization.scale.size > 1:
            shape[self.quantization.axis] = -1
        scale, zero_point = (part.reshape(shape) for part in (self.quantization.scale, self.quantization.zero_point))
        centred = self.numbers.astype(np.int64) - zero_point
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused when it becomes a constant of the graph
            values: Array = centred.astype(np.float32) * scale
        return values

    def exact_values(self) -> Array:
        """Return what the numbers stand for, float64."""
        with np.errstate(invalid="ignore"):  # NaN is refused when it becomes a constant of the graph
            values: Array = self.values().astype(np.float64)
        return values


def read_constant(tensor: FileTensor, source: str) -> Constant:
    """Return a tensor that holds values.

    Parameters
    ----------
    source : str
        The file, for error messages.

    Raises
    ------
    ModelFileError
        When its bytes, its quantisation or its sparsity do not fit its shape.
    """
    if tensor.type not in DTYPES:
        raise ModelFileError(
            f"{source}: constant {tensor.name!r} is {tensor.type}, expected one of {', '.join(DTYPES)}"
        )
    dtype = np.dtype(DTYPES[tensor.type]).newbyteorder("<")
    if min(tensor.shape, default=1) < 1 or math.prod(tensor.shape) > MOST_VALUES or tensor.data.size % dtype.itemsize:
        raise _misfit(tensor, source)
    numbers = tensor.data.view(dtype)
    if tensor.sparsity is not None:
        numbers = densify(numbers, tensor.shape, tensor.sparsity)
    if numbers.size != math.prod(tensor.shape):
        raise _misfit(tensor, source)
    found = tensor.quantization
    if found is not None and found.scale.size > 1:
        lengths = dict(enumerate(tensor.shape))
        if lengths.get(found.axis) != found.scale.size:
            raise ModelFileError(
                f"{source}: constant {tensor.name!r} of shape {tensor.shape} has {found.scale.size} scales along axis "
                f"{found.axis}, expected one an entry"
            )
    return Constant(tensor.name, numbers.reshape(tensor.shape), found)


def _misfit(tensor: FileTensor, source: str) -> ModelFileError:
    return ModelFileError(
        f"{source}: constant {tensor.name!r} of shape {tensor.shape} and type {tensor.type} holds {tensor.data.size} "
        f"bytes, expected what fits the shape and at most {MOST_VALUES} values"
    )
