"""Compressed sparse rows: the pruned weights of a layer, one row an output."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_UINT8_COLUMNS = 1 << 8
MAX_UINT16_COLUMNS = 1 << 16


@dataclass(frozen=True, eq=False)
class CsrMatrix:
    """A sparse matrix; names as in ``scipy.sparse.csr_matrix``.

    Attributes
    ----------
    data : Array
        (nnz,) the kept values, row after row.
    indices : Array
        (nnz,) uint8, uint16 or uint32: the column of each value, ascending within a row.
    indptr : Array
        (n_rows + 1,) int32: row ``i`` lies in ``data[indptr[i]:indptr[i + 1]]``.
    shape : tuple of int
        (n_rows, n_columns).
    """

    data: Array
    indices: Array
    indptr: Array
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """Number of stored values."""
        return int(self.data.size)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the three arrays together."""
        return int(self.data.nbytes + self.indices.nbytes + self.indptr.nbytes)

    def to_dense(self) -> Array:
        """Return the (n_rows, n_columns) array of ``data``'s type."""
        dense = np.zeros(self.shape, dtype=self.data.dtype)
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        dense[rows, self.indices] = self.data
        return dense


def csr_from_dense(dense: Array) -> CsrMatrix:
    """Keep the values of a matrix that are not zero.

    Parameters
    ----------
    dense : Array
        (n_rows, n_columns).
    """
    n_rows, n_columns = dense.shape
    rows, columns = np.nonzero(dense)
    counts = np.bincount(rows, minlength=n_rows)
    return CsrMatrix(
        data=np.ascontiguousarray(dense[rows, columns]),
        indices=columns.astype(index_dtype(n_columns)),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        shape=(n_rows, n_columns),
    )


def index_dtype(n_columns: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest unsigned type that holds every column index."""
    if n_columns <= MAX_UINT8_COLUMNS:
        return np.uint8
    if n_columns <= MAX_UINT16_COLUMNS:
        return np.uint16
    return np.uint32


def csr_fault(matrix: CsrMatrix) -> str | None:
    """Say what is wrong with a matrix that comes from outside, or None if it is sound."""
    n_rows, n_columns = matrix.shape
    if matrix.indptr.shape != (n_rows + 1,):
        return f"indptr has shape {matrix.indptr.shape}, expected ({n_rows + 1},)"
    if matrix.indptr[0] != 0 or matrix.indptr[-1] != matrix.data.size:
        return f"indptr runs from {matrix.indptr[0]} to {matrix.indptr[-1]}, expected 0 to {matrix.data.size}"
    if np.any(np.diff(matrix.indptr.astype(np.int64)) < 0):
        return "indptr decreases"
    if matrix.indices.shape != matrix.data.shape or matrix.data.ndim != 1:
        return f"indices have shape {matrix.indices.shape}, data {matrix.data.shape}, expected one axis and equal"
    if matrix.indices.size and int(matrix.indices.max()) >= n_columns:
        return f"a column index is {int(matrix.indices.max())}, expected less than {n_columns}"
    steps = np.diff(matrix.indices.astype(np.int64))
    row_starts = matrix.indptr[1:-1]
    inside_row = np.ones(steps.size, dtype=bool)
    inside_row[row_starts[(row_starts > 0) & (row_starts < matrix.data.size)] - 1] = False
    if np.any(steps[inside_row] <= 0):
        return "column indices do not ascend within a row"
    return None
