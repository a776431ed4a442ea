"""A sparse constant of a .tflite file to a dense array: walks its levels, all nodes of one at a time.

Format: schema.fbs, table SparsityParameters. Each level is a dimension in traversal order, or the inside of a blocked
one; dense levels have all entries below each node, compressed ones those that segments and indices name.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.flatbuffer import Table
from nettrim.importers.tflite_file import MOST_AXES
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

MOST_VALUES = 1 << 26  # of a dense constant
INDEX_TYPES: dict[int, Any] = {
    schema.SparseIndexVector.INT32: np.int32,
    schema.SparseIndexVector.UINT16: np.uint16,
    schema.SparseIndexVector.UINT8: np.uint8,
}


def densify(values: Array, shape: tuple[int, ...], sparsity: Table) -> Array:
    """Return the dense array that kept values stand for.

    Parameters
    ----------
    values : Array
        (n_kept,) in the order of the traversal.
    shape : tuple of int
        Of the result.

    Raises
    ------
    ModelFileError
        When the layout does not fit the shape or the number of values.
    """
    order = sparsity.numbers(schema.SparsityParameters.TRAVERSAL_ORDER, np.int32, "traversal order", 2 * MOST_AXES)
    block_map = sparsity.numbers(schema.SparsityParameters.BLOCK_MAP, np.int32, "block map", MOST_AXES)
    levels = sparsity.children(schema.SparsityParameters.DIM_METADATA, "dimensions", 2 * MOST_AXES)
    rank, most = len(shape), math.prod(shape)
    is_whole = sorted(order.tolist()) == list(range(rank + block_map.size)) and len(levels) == order.size
    is_blocked_once = len(set(block_map.tolist())) == block_map.size and all(0 <= axis < rank for axis in block_map)
    if not is_whole or not is_blocked_once or most > MOST_VALUES:
        raise _damaged(sparsity, f"traversal order {order.tolist()} and block map {block_map.tolist()} for {shape}")
    tables = [sparsity.buffer.table(place, f"level {level} of {sparsity.what}") for level, place in enumerate(levels)]
    sizes = _sizes(sparsity, shape, order, block_map, tables)
    places = np.zeros(1, np.int64)  # in the flattened result, of the nodes of a level
    for dimension, table in zip(order, tables, strict=True):
        stride = _stride(int(dimension), shape, block_map, sizes)
        places = _children(places, stride, sizes[dimension], table, most)
    if places.size != values.size:
        raise _damaged(sparsity, f"{values.size} values for {places.size} places")
    dense = np.zeros(most, values.dtype)
    dense[places] = values
    return dense.reshape(shape)


def _sizes(sparsity: Table, shape: tuple[int, ...], order: Array, block_map: Array, tables: list[Table]) -> list[int]:
    """Return the length of each dimension, then that of each block."""
    sizes = [*shape, *(0 for _ in block_map)]
    for dimension, table in zip(order, tables, strict=True):
        if dimension < len(shape):
            continue
        axis, size = int(block_map[dimension - len(shape)]), table.integer(schema.DimensionMetadata.DENSE_SIZE)
        if size < 1 or sizes[axis] % size:
            raise _damaged(sparsity, f"blocks of {size} along axis {axis} of {shape}")
        sizes[dimension], sizes[axis] = size, sizes[axis] // size
    return sizes


def _stride(dimension: int, shape: tuple[int, ...], block_map: Array, sizes: list[int]) -> int:
    """Return how far apart neighbours along a dimension, or inside a block, lie in the flattened result."""
    rank, blocked = len(shape), block_map.tolist()
    if dimension >= rank:
        return math.prod(shape[blocked[dimension - rank] + 1 :])
    block = sizes[rank + blocked.index(dimension)] if dimension in blocked else 1
    return block * math.prod(shape[dimension + 1 :])


def _children(places: Array, stride: int, size: int, table: Table, most: int) -> Array:
    """Return the places of all children of all nodes."""
    if table.integer(schema.DimensionMetadata.FORMAT) == schema.DimensionType.DENSE:
        if places.size * size > most:
            raise _damaged(table, f"more than {most} entries")
        return (places[:, None] + stride * np.arange(size)).reshape(-1)
    segments, indices = (
        _indices(table, kind, field, what, most + 1)
        for kind, field, what in (
            (schema.DimensionMetadata.ARRAY_SEGMENTS_TYPE, schema.DimensionMetadata.ARRAY_SEGMENTS, "segments"),
            (schema.DimensionMetadata.ARRAY_INDICES_TYPE, schema.DimensionMetadata.ARRAY_INDICES, "indices"),
        )
    )
    fits = segments.size == places.size + 1 and segments[0] == 0 and segments[-1] == indices.size
    if not fits or (np.diff(segments) < 0).any() or (indices < 0).any() or (indices >= size).any():
        raise _damaged(table, f"{segments.size} segments and {indices.size} indices for {places.size} nodes of {size}")
    children: Array = np.repeat(places, np.diff(segments)) + stride * indices
    return children


def _indices(table: Table, kind: schema.Field, field: schema.Field, what: str, most: int) -> Array:
    found, vector = table.integer(kind), table.child(field, what)
    if vector is None or found not in INDEX_TYPES:
        raise _damaged(table, f"{what} of type {found}")
    indices: Array = vector.numbers(schema.IndexVector.VALUES, INDEX_TYPES[found], what, most)
    return indices.astype(np.int64)


def _damaged(table: Table, found: str) -> ModelFileError:
    return ModelFileError(f"{table.buffer.source}: {table.what} has {found}, which do not fit: the file is damaged")
