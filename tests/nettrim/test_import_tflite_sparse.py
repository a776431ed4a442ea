"""Sparse weights of .tflite files, unstructured and in blocks: read dense, and computed as LiteRT does."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.engine import run_graph
from tests.nettrim.test_import_tflite import N_SAMPLES, dense_file, random_floats
from tests.nettrim.tflite_models import REFERENCE, run_litert, write_file

Array = npt.NDArray[Any]


def sparse_levels(weight: Array, block: int) -> tuple[Any, Array]:
    """Return the sparsity of a matrix in 1 x block blocks, as the schema's class, and the kept values."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows, columns // block, block)
    kept = blocks.any(axis=2)
    levels = [published.DimensionMetadataT() for _ in range(3 if block > 1 else 2)]
    levels[0].format, levels[0].denseSize = published.DimensionType.DENSE, rows
    levels[1].format = published.DimensionType.SPARSE_CSR
    vectors = (np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), np.nonzero(kept)[1])
    for name, values in zip(("arraySegments", "arrayIndices"), vectors, strict=True):
        vector = published.Uint8VectorT() if name == "arrayIndices" else published.Int32VectorT()
        vector.values = values.tolist()
        setattr(levels[1], name, vector)
        kind = published.SparseIndexVector
        setattr(levels[1], f"{name}Type", kind.Uint8Vector if name == "arrayIndices" else kind.Int32Vector)
    sparsity = published.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1], levels
    if block > 1:
        levels[2].format, levels[2].denseSize = published.DimensionType.DENSE, block
        sparsity.traversalOrder, sparsity.blockMap = [0, 1, 2], [1]
    return sparsity, blocks[kept]


@pytest.mark.parametrize("block", [1, 4])
def test_sparse_weights_are_read_dense(tmp_path: Path, block: int) -> None:
    rng = np.random.default_rng(4)
    weight = random_floats(6, 16).reshape(6, -1, block) * (rng.random((6, 16 // block, 1)) < 0.4)
    weight = weight.reshape(6, 16)
    weight[2] = 0
    sparsity, values = sparse_levels(weight, block)
    file, entry, output = dense_file(weight, bias=None)
    file.buffers[file.tensors[2].buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    file.tensors[2].sparsity = sparsity
    path = write_file(tmp_path, file.content((entry,), (output,)))
    model = load_model(path)
    np.testing.assert_array_equal(model.graph.tensors[model.graph.layers[0].weight].values(), weight)
    samples = np.random.default_rng(0).normal(size=(N_SAMPLES, 16)).astype(np.float32)
    np.testing.assert_allclose(
        run_graph(model.graph, samples), run_litert(path.read_bytes(), samples, REFERENCE), atol=1e-5
    )
