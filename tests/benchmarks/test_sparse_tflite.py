"""The benchmark of blocked layers: its random layers and its fit; counting itself needs emulator and network."""

import numpy as np
import pytest

from benchmarks.sparse_tflite import Count, blocked_layer, cost_rows
from nettrim_exporters.tflite_blocks import block_density


def test_the_fit_finds_the_costs_that_counts_were_made_of() -> None:
    def count(n_outputs: int, n_inputs: int, density: float | None) -> Count:
        macs = n_outputs * n_inputs
        cost = 0.3 * macs if density is None else 70 * n_outputs + 18 * density * macs / 16
        return Count(n_outputs, n_inputs, density, round(8000 + cost))

    counts = [count(*shape, density) for shape in ((128, 640), (300, 784)) for density in (None, 0.1, 0.2, 0.4)]
    (row,) = cost_rows(counts)
    names = ("per_invocation", "per_mac", "per_output", "per_block")
    assert [row[name] for name in names] == pytest.approx([8000, 0.3, 70, 18], rel=1e-2)
    assert float(row["fit_error"] or 0) < 1e-3


def test_layers_keep_about_the_share_of_blocks_that_was_asked_for() -> None:
    graph = blocked_layer((100, 320), 0.2, np.random.default_rng(0))
    assert block_density(graph.tensors["weight"].values()) == pytest.approx(0.2, abs=0.05)  # 2000 blocks
