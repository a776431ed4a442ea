"""The benchmark of blocked layers: its random layers and its fit; counting itself needs emulator and network."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.sparse_tflite import Count, blocked_layer, cost_rows
from benchmarks.sparse_tflite_network import train_network
from nettrim.hybrid import Precision
from nettrim.sparse_convolutions import sparse_convolutions
from nettrim_exporters.tflite_blocks import block_density
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Conv2d


def test_the_fit_finds_the_costs_that_counts_were_made_of() -> None:
    def count(n_outputs: int, n_inputs: int, density: float | None) -> Count:
        macs = n_outputs * n_inputs
        cost = 0.3 * macs if density is None else 70 * n_outputs + 18 * density * macs / 16
        return Count("int8", n_outputs, n_inputs, density, round(8000 + cost))

    counts = [count(*shape, density) for shape in ((128, 640), (300, 784)) for density in (None, 0.1, 0.2, 0.4)]
    (row,) = cost_rows(counts)
    names = ("per_invocation", "per_mac", "per_output", "per_block")
    assert [row[name] for name in names] == pytest.approx([8000, 0.3, 70, 18], rel=1e-2)
    assert float(row["fit_error"] or 0) < 1e-3


@pytest.mark.parametrize(("precision", "width"), [("int8", 16), ("hybrid", 16), ("float32", 4)])
def test_layers_keep_about_the_share_of_blocks_that_was_asked_for(precision: Precision, width: int) -> None:
    graph = blocked_layer(precision, (100, 320), 0.2, np.random.default_rng(0))
    found = block_density(graph.tensors["weight"].values(), width)
    assert found == pytest.approx(0.2, abs=0.05)  # of 2000 blocks or more


def test_the_trained_network_is_of_the_kind_that_runs_sparse() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 32, 32, 3)).astype(np.float32), rng.integers(0, 10, 64)
    graph = train_network(x, y, n_epochs=1)
    pointwise = [op for op in graph.layers if isinstance(op, Conv2d) and graph.tensors[op.weight].shape[1] == 1]
    zeros = [replace(graph.tensors[op.weight], data=_mostly_zeros(graph, op)) for op in pointwise]
    assert sparse_convolutions(graph) == ()
    assert sparse_convolutions(graph.with_tensors(zeros)) == tuple(op.name for op in pointwise)


def _mostly_zeros(graph: Graph, op: Conv2d) -> Array:
    values = graph.tensors[op.weight].values().copy()
    values.reshape(-1)[: int(0.7 * values.size)] = 0
    return values
