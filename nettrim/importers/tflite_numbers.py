"""Constants of a .tflite file that patterns of operators are told by: single numbers, few axes."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from nettrim.importers.tflite_constants import read_constant
from nettrim.importers.tflite_file import MOST_AXES, FileGraph, FileOperator, FileTensor

Array = npt.NDArray[Any]

NUMBER_BYTES = 8  # of the widest type


def find_constant(file: FileGraph, written: Mapping[str, FileOperator], name: str) -> FileTensor | None:
    """Return a constant, also one that is made float32; None of what the network computes.

    Parameters
    ----------
    written : Mapping
        The operators by the place of the tensor that they alone write, as text.
    name : str
        A tensor's place, as text.
    """
    operator = written.get(name)
    if operator is not None and operator.op_type == "DEQUANTIZE" and len(operator.inputs) == 1:
        name = str(operator.inputs[0])
    tensor = file.tensors[int(name)] if int(name) >= 0 else None
    return tensor if tensor is not None and tensor.is_constant else None


def read_number(file: FileGraph, written: Mapping[str, FileOperator], name: str) -> float | None:
    """Return the value of a constant that is one number."""
    tensor = find_constant(file, written, name)
    if tensor is None or tensor.data.size > NUMBER_BYTES:
        return None
    values = read_constant(tensor, file.source).values()
    return float(values.reshape(-1)[0]) if values.size == 1 else None


def read_axes(file: FileGraph, written: Mapping[str, FileOperator], name: str) -> tuple[int, ...]:
    """Return the numbers of a constant of few integers, none of another one."""
    tensor = find_constant(file, written, name)
    if tensor is None or tensor.data.size > MOST_AXES * NUMBER_BYTES:
        return ()
    numbers = read_constant(tensor, file.source).numbers
    return tuple(int(number) for number in numbers.flat) if numbers.dtype.kind == "i" else ()
