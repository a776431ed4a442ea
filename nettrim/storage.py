"""Which layers are stored sparse: by bytes in model.npz, by the board's cycles in model.h."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.quantize import with_sparse_weights
from nettrim_boards.board import Board
from nettrim_runtime.csr import CsrMatrix, csr_from_dense
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Layer

Array = npt.NDArray[Any]

# Density below which a CSR layer of the C kernels takes fewer instructions than a dense one: the smallest over the
# layers that `python -m benchmarks.kernels` counts in emulation with the board's compile flags (found in
# benchmarks/results/kernels.json), rounded down to a multiple of 0.05. Instructions flatter sparse layers: their loads
# are gathers, while a dense layer's NEON loads bring 16 weights at once.
SPARSE_WINS_BELOW = {
    "cortex-a72": {"Dense": 0.05, "Conv2d": 0.05},
    "cortex-m4": {"Dense": 0.45, "Conv2d": 0.7},
}
SPARSE_WINS_BELOW_ELSEWHERE = {"Dense": 0.05, "Conv2d": 0.05}


def smallest_formats(graph: Graph) -> Graph:
    """Return the graph with each layer's weights as CSR where that takes fewer bytes than dense."""
    sparse = {layer.name: _csr(graph, layer) for layer in graph.layers}
    smaller = {
        layer.name: sparse[layer.name]
        for layer in graph.layers
        if sparse[layer.name].stored_bytes < graph.tensors[layer.weight].dense_bytes
    }
    return with_sparse_weights(graph, smaller)


def with_dense_weights(graph: Graph) -> Graph:
    """Return the graph with all weights stored dense."""
    weights = (graph.tensors[layer.weight] for layer in graph.layers)
    return graph.with_tensors(replace(tensor, data=tensor.values()) for tensor in weights)


def fastest_formats(graph: Graph, board: Board) -> Graph:
    """Return the quantised graph with weights as CSR where the C kernels then run faster on the board.

    A sparse layer that would take more bytes than a dense one stays dense too.
    """
    limits = SPARSE_WINS_BELOW.get(board.cpu, SPARSE_WINS_BELOW_ELSEWHERE)
    smaller = smallest_formats(graph)
    chosen = {}
    for layer in graph.layers:
        data = smaller.tensors[layer.weight].data
        density = graph.tensors[layer.weight].nnz / graph.tensors[layer.weight].size
        if isinstance(data, CsrMatrix) and density < limits[type(layer).__name__]:
            chosen[layer.name] = data
    return with_sparse_weights(graph, chosen)


def format_name(graph: Graph, layer: Layer) -> str:
    """Return how a layer's weights are stored: "csr" or "dense"."""
    return "csr" if isinstance(graph.tensors[layer.weight].data, CsrMatrix) else "dense"


def _csr(graph: Graph, layer: Layer) -> CsrMatrix:
    values = graph.tensors[layer.weight].values()
    return csr_from_dense(np.ascontiguousarray(values.reshape(values.shape[0], -1)))
