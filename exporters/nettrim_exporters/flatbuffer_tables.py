"""Tables and vectors of a flatbuffer, written from a schema's field slots without generated code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime import tflite_schema as schema

Array = npt.NDArray[Any]
Fields = Mapping[schema.Field, float]
Encode = Callable[[Any], int]  # writes a table into a flatbuffers.Builder, returns its offset


def write_tables(builder: Any, encoders: Sequence[Encode]) -> int:
    offsets = [encode(builder) for encode in encoders]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):  # a flatbuffer grows from its end
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def write_vector(builder: Any, values: Sequence[int] | Array, dtype: npt.DTypeLike) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype=dtype)))


def write_table(builder: Any, fields: Fields) -> int:
    builder.StartObject(max((item.slot for item in fields), default=-1) + 1)
    for item, value in fields.items():
        getattr(builder, f"Prepend{item.type.value}Slot")(item.slot, value, item.default)
    return int(builder.EndObject())
