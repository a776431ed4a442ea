"""Names, numbers and constant arrays as C99 text."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ALIGNMENT_BYTES = 16  # of every constant array and of the arena: the widest vector register of the boards
NUMBERS_A_LINE = {1: 24, 2: 20, 4: 16, 8: 12}  # by item size, for readable diffs
MAX_IDENTIFIER_LENGTH = 31  # with prefix and suffix well below what C99 5.2.4.1 tells apart
C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint32": "uint32_t",
}


@dataclass(frozen=True, eq=False)
class CArray:
    """A constant array of the generated header.

    Attributes
    ----------
    values : Array
        (size,) of a type in ``C_TYPES``.
    """

    name: str
    values: Array

    @property
    def flash_bytes(self) -> int:
        """Bytes it takes in program memory, up to the next array."""
        return -(-max(self.values.size, 1) * self.values.itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES

    @property
    def declaration(self) -> str:
        """The C definition; an empty array holds one zero that nothing reads, because C has no empty arrays."""
        values = self.values if self.values.size else np.zeros(1, self.values.dtype)
        numbers = [str(value) for value in values.tolist()]
        step = NUMBERS_A_LINE[values.itemsize]
        lines = [f"    {', '.join(numbers[start : start + step])}," for start in range(0, len(numbers), step)]
        head = f"NT_ALIGN16 static const {C_TYPES[values.dtype.name]} {self.name}[{values.size}] = {{"
        return "\n".join([head, *lines, "};"])


def c_identifier(name: str) -> str:
    """Return what resembles a name and is safe in C, in comments and after ``nt_`` in an identifier.

    ASCII letters, digits and single underscores, never empty.
    """
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:MAX_IDENTIFIER_LENGTH].strip("_") or "unnamed"


def c_float(value: float) -> str:
    """Return the float32 constant that reads back as the same bits."""
    text = f"{value:.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
