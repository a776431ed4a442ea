"""Damaged copies of .tflite files: bits flipped, bytes cut, inserted and moved, offsets and lengths made extreme."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_file import read_tflite

Array = npt.NDArray[Any]

EXTREMES = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WIDTHS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}
MOST_CHANGES = 4
LONGEST_PIECE = 64


@dataclass(frozen=True, eq=False)
class Original:
    """A sound file; ``structure`` are the places of all bytes that are not the values of a constant."""

    name: str
    data: bytes
    structure: Array


def original(name: str, data: bytes) -> Original:
    """Find where the structure of a file lies."""
    base, is_value = np.frombuffer(data, np.uint8), np.zeros(len(data), bool)
    for tensor in read_tflite(data, name).tensors:
        if tensor.is_constant:
            start = tensor.data.ctypes.data - base.ctypes.data
            is_value[start : start + tensor.data.size] = True
    return Original(name, data, np.flatnonzero(~is_value))


def mutated(source: Original, rng: np.random.Generator) -> bytes:
    """Return a copy with one to four changes, three of four within the structure."""
    data = bytearray(source.data)
    for _ in range(int(rng.integers(1, MOST_CHANGES + 1))):
        change = CHANGES[rng.integers(len(CHANGES))]
        within = source.structure if rng.random() < 0.75 else np.arange(len(source.data))
        change(data, min(int(rng.choice(within)), len(data) - 1), rng)
        if not data:
            break
    return bytes(data)


def _flip(data: bytearray, place: int, rng: np.random.Generator) -> None:
    data[place] ^= 1 << int(rng.integers(8))


def _overwrite(data: bytearray, place: int, rng: np.random.Generator) -> None:
    """Write an extreme number, the file's size or a number near what was there, aligned as a flatbuffer's are."""
    width = int(rng.choice(list(WIDTHS)))
    place -= place % width
    if place + width > len(data):
        return
    (found,) = struct.unpack_from(WIDTHS[width], data, place)
    near = found + int(rng.integers(-8, 9))
    value = (*EXTREMES, len(data), len(data) - place, near, near, near)[rng.integers(len(EXTREMES) + 5)]
    struct.pack_into(WIDTHS[width], data, place, value % (1 << 8 * width))


def _cut(data: bytearray, place: int, _: np.random.Generator) -> None:
    del data[place:]


def _remove(data: bytearray, place: int, rng: np.random.Generator) -> None:
    del data[place : place + int(rng.integers(1, LONGEST_PIECE))]


def _insert(data: bytearray, place: int, rng: np.random.Generator) -> None:
    data[place:place] = rng.bytes(int(rng.integers(1, LONGEST_PIECE)))


def _copy(data: bytearray, place: int, rng: np.random.Generator) -> None:
    """Put another piece of the file here: offsets and vtables that are sound elsewhere."""
    source, size = int(rng.integers(len(data))), int(rng.integers(1, LONGEST_PIECE))
    piece = data[source : source + size]
    data[place : place + len(piece)] = piece


CHANGES = (_flip, _flip, _overwrite, _overwrite, _overwrite, _overwrite, _copy, _remove, _insert, _cut)
