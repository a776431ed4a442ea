"""Weights of a dense layer as the blocks of 1x16 that the stock interpreter multiplies faster than a dense matrix."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_exporters.tflite_file import BlockSparsity

Array = npt.NDArray[Any]

BLOCK_WIDTH = 16
# op_version.cc: FULLY_CONNECTED with sparse weights; with any other version XNNPACK takes the kept blocks for a matrix.
BLOCKED_FULLY_CONNECTED_VERSION = 8


def can_block(weight: Array) -> bool:
    """Whether the rows of a matrix (n_outputs, n_inputs) are whole blocks, and at least one is kept."""
    return weight.ndim == 2 and weight.shape[1] % BLOCK_WIDTH == 0 and bool(weight.any())


def block_density(weight: Array) -> float:
    """Return the share of a matrix's blocks that hold a weight other than zero."""
    return float(_kept(weight).mean())


def encode_blocks(weight: Array) -> tuple[Array, BlockSparsity]:
    """Return the kept blocks of a matrix (n_outputs, n_inputs), one after the other, and where they belong."""
    kept = _kept(weight)
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    dtype = np.min_scalar_type(kept.shape[1] - 1)
    indices = np.nonzero(kept)[1].astype(dtype if dtype.itemsize < 4 else np.int32)
    values: Array = weight.reshape(*kept.shape, BLOCK_WIDTH)[kept].reshape(-1)
    return values, BlockSparsity(BLOCK_WIDTH, segments, indices)


def _kept(weight: Array) -> Array:
    """Return which blocks hold a weight: (n_outputs, n_inputs / width) bool."""
    kept: Array = np.any(weight.reshape(weight.shape[0], -1, BLOCK_WIDTH), axis=2)
    return kept
