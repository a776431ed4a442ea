"""Tables and vectors of a flatbuffer, read from bytes that may hold anything: every offset and length is checked.

Format: flatbuffers.dev, "FlatBuffer Internals". Offsets from tables and vectors to what they hold only lead forward,
those to vtables either way. A reader that follows a schema without recursive tables goes only as deep as the schema:
whatever points to what, it comes to an end.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.tflite_schema import Field, FieldType

Array = npt.NDArray[Any]

OFFSET_BYTES = 4
IDENTIFIER_BYTES = 4
LONGEST_TEXT = 4096  # bytes of a name that are kept
SCALARS = {
    FieldType.INT8: struct.Struct("<b"),
    FieldType.UINT8: struct.Struct("<B"),
    FieldType.INT32: struct.Struct("<i"),
    FieldType.UINT32: struct.Struct("<I"),
    FieldType.FLOAT32: struct.Struct("<f"),
}
UNSIGNED_32, UNSIGNED_16, SIGNED_32 = struct.Struct("<I"), struct.Struct("<H"), struct.Struct("<i")


@dataclass(frozen=True)
class FlatBuffer:
    """The bytes, and the file they come from for error messages."""

    data: bytes
    source: str

    def root(self, identifier: bytes, what: str) -> "Table":
        """Return the outermost table of a buffer that carries an identifier."""
        found = self.data[OFFSET_BYTES : OFFSET_BYTES + IDENTIFIER_BYTES]
        if found != identifier:
            raise ModelFileError(f"{self.source}: identifier {found!r} at byte 4, expected {identifier!r}")
        return self.table(self.read(UNSIGNED_32, 0, what), what)

    def table(self, position: int, what: str) -> "Table":
        """Return the table at a position, once it and its vtable are known to lie inside the buffer."""
        vtable = position - self.read(SIGNED_32, position, what)
        vtable_bytes = self.read(UNSIGNED_16, vtable, f"vtable of {what}")
        table_bytes = self.read(UNSIGNED_16, vtable + 2, f"vtable of {what}")
        if vtable_bytes < 4 or vtable_bytes % 2 or table_bytes < OFFSET_BYTES:
            raise self.damaged(what, f"a vtable of {vtable_bytes} bytes for a table of {table_bytes}", position)
        self.require(vtable, vtable_bytes, f"vtable of {what}")
        self.require(position, table_bytes, what)
        return Table(self, position, vtable, vtable_bytes, table_bytes, what)

    def read(self, form: struct.Struct, position: int, what: str) -> int:
        """Return a number at a position."""
        self.require(position, form.size, what)
        return int(form.unpack_from(self.data, position)[0])

    def require(self, position: int, size: int, what: str) -> None:
        """Refuse what does not lie inside the buffer."""
        if position < 0 or position + size > len(self.data):
            raise self.damaged(what, f"{size} bytes", position)

    def damaged(self, what: str, found: str, position: int) -> ModelFileError:
        """Return the error that says where the buffer is damaged."""
        return ModelFileError(
            f"{self.source}: {what} claims {found} at byte {position} of {len(self.data)}, expected it inside the "
            "file: it is damaged or cut short; copy or convert the model again"
        )


@dataclass(frozen=True)
class Table:
    """A table whose own bytes and vtable lie inside the buffer; ``what`` names it in error messages."""

    buffer: FlatBuffer
    position: int
    vtable: int
    vtable_bytes: int
    table_bytes: int
    what: str

    def integer(self, field: Field) -> int:
        """Return an integer field, or its default."""
        return int(self.number(field))

    def number(self, field: Field) -> float:
        """Return a number field, or its default."""
        form = SCALARS[field.type]
        place = self._place(field, form.size)
        return field.default if place is None else float(form.unpack_from(self.buffer.data, place)[0])

    def child(self, field: Field, what: str) -> "Table | None":
        """Return the table in a field."""
        target = self._target(field)
        return None if target is None else self.buffer.table(target, f"{what} of {self.what}")

    def children(self, field: Field, what: str, most: int) -> "tuple[int, ...]":
        """Return where the tables in a field's vector lie; `FlatBuffer.table` reads each."""
        places = self.numbers(field, np.uint32, what, most)
        target = self._target(field)
        start = 0 if target is None else target + OFFSET_BYTES
        return tuple(start + OFFSET_BYTES * index + int(offset) for index, offset in enumerate(places))

    def numbers(self, field: Field, dtype: npt.DTypeLike, what: str, most: int) -> Array:
        """Return the numbers in a field's vector, a view of the buffer; empty without the field.

        Raises
        ------
        ModelFileError
            When there are more than ``most``, or they do not lie inside the buffer.
        """
        target = self._target(field)
        little = np.dtype(dtype).newbyteorder("<")
        if target is None:
            return np.empty(0, little)
        title = f"{what} of {self.what}"
        count = self.buffer.read(UNSIGNED_32, target, title)
        self.buffer.require(target + OFFSET_BYTES, count * little.itemsize, title)
        if count > most:
            raise ModelFileError(f"{self.buffer.source}: {title} has {count} entries, expected at most {most}")
        return np.frombuffer(self.buffer.data, little, count, target + OFFSET_BYTES)

    def text(self, field: Field) -> str:
        """Return a string field; what is not UTF-8 is replaced, what is very long cut off."""
        data = self.numbers(field, np.uint8, "name", len(self.buffer.data))
        return data[:LONGEST_TEXT].tobytes().decode("utf-8", "replace")

    def _target(self, field: Field) -> int | None:
        """Return where the vector, string or table of an offset field lies."""
        place = self._place(field, OFFSET_BYTES)
        if place is None:
            return None
        return place + self.buffer.read(UNSIGNED_32, place, self.what)

    def _place(self, field: Field, size: int) -> int | None:
        """Return where a field is stored, None where it is left out."""
        entry = 4 + 2 * field.slot  # behind the two sizes
        if entry + 2 > self.vtable_bytes:
            return None
        offset = int(UNSIGNED_16.unpack_from(self.buffer.data, self.vtable + entry)[0])
        if offset == 0:
            return None
        if offset < OFFSET_BYTES or offset + size > self.table_bytes:
            raise self.buffer.damaged(f"field {field.slot} of {self.what}", f"offset {offset}", self.position)
        return self.position + offset
