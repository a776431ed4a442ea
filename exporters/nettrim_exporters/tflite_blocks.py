"""Sparse weights as a .tflite file keeps them: the blocks of each row that hold a weight, one after the other.

The stock interpreter multiplies blocks of 16 int8 weights, or of 4 floats, faster than a dense matrix. Convolutions of
one pixel keep single weights, behind a DENSIFY operator.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_exporters.tflite_file import BlockSparsity
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Conv2d, Dense

Array = npt.NDArray[Any]

BLOCK_WIDTHS = {"int8": 16, "float32": 4}  # of dense layers
MOST_HYBRID_BLOCKS = 255  # a row of int8 weights beside floats: its kernel counts them in a byte
# op_version.cc: FULLY_CONNECTED with sparse weights; with any other version XNNPACK takes the kept blocks for a matrix.
BLOCKED_FULLY_CONNECTED_VERSION = 8


def block_width(graph: Graph, layer: Dense | Conv2d) -> int:
    """Return how many weights of a row a layer's blocks have."""
    return BLOCK_WIDTHS[graph.tensors[layer.weight].dtype] if isinstance(layer, Dense) else 1


def can_block(graph: Graph, layer: Dense) -> bool:
    """Whether the rows of a layer's weights are whole blocks, of which one is kept, and the interpreter takes them."""
    weight, width = graph.tensors[layer.weight], block_width(graph, layer)
    is_hybrid = weight.dtype == "int8" and not graph.is_quantized
    fits = not is_hybrid or weight.shape[1] // width <= MOST_HYBRID_BLOCKS
    return fits and weight.shape[1] % width == 0 and weight.nnz > 0


def block_density(weight: Array, width: int) -> float:
    """Return the share of blocks that hold a weight other than zero."""
    return float(_kept(weight, width).mean())


def encode_blocks(weight: Array, width: int) -> tuple[Array, BlockSparsity]:
    """Return the kept blocks along the last axis of a weight, one after the other, and where they belong."""
    kept = _kept(weight, width)
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    dtype = np.min_scalar_type(kept.shape[1] - 1)
    indices = np.nonzero(kept)[1].astype(dtype if dtype.itemsize < 4 else np.int32)
    values: Array = weight.reshape(*kept.shape, width)[kept].reshape(-1)
    return values, BlockSparsity(width, segments, indices)


def _kept(weight: Array, width: int) -> Array:
    """Return which blocks hold a weight: (n_rows, row length / width) bool."""
    kept: Array = np.any(weight.reshape(-1, weight.shape[-1] // width, width), axis=2)
    return kept
