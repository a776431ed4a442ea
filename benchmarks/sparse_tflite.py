"""Dense layers in blocks of 1x16: instructions of the stock LiteRT on a Raspberry Pi 4 against the dense int8 file.

    python -m benchmarks.sparse_tflite --data DIR [--quick] [--json FILE] [--svg FILE]

Counted by the emulator, without which nothing is measured; the costs of nettrim/sparse_tflite.py come from here. The
first run fetches the board's Python and LiteRT into the user's cache (40 MB).
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.emulated_litert import EmulatedLiteRT, count_invocations, fetch_litert
from benchmarks.layers import LayerCase, random_layer
from benchmarks.quality_subjects import draw_calibration, load_subject
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from nettrim.calibrate import choose_tails, quantize_on
from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.prune import PruneSettings, prune
from nettrim.sparse_tflite import blocked_layers, with_two_roundings
from nettrim_boards.board import load_board
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_blocks import BLOCK_WIDTH, block_density
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

BOARD = "rpi4"
SHAPES = ((128, 640), (256, 256), (300, 784), (1024, 1024))  # outputs, inputs
DENSITIES = (0.05, 0.1, 0.2, 0.4)
NETWORK = "LeNet-300-100"
SPARSITIES = (0.85, 0.9, 0.95)
FIGURE_SPARSITY = 0.9
SAMPLES_COUNTED = 8


@dataclass(frozen=True)
class Count:
    """One layer under the emulator; ``density`` is the share of blocks kept, None of a dense file."""

    n_outputs: int
    n_inputs: int
    density: float | None
    instructions: int


def main() -> int:
    """Measure, print and write; returns the exit status."""
    options = benchmark_parser("sparse_tflite", __doc__.splitlines()[0] if __doc__ else "").parse_args()
    if options.data is None:
        options.data = Path("../shared/data")
    litert = fetch_litert(load_board(BOARD))
    shapes, densities = (SHAPES[2:3], DENSITIES[:2]) if options.quick else (SHAPES, DENSITIES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(partial(_count_layer, litert), product(shapes, (None, *densities))))
    sparsities = (FIGURE_SPARSITY,) if options.quick else SPARSITIES
    networks = _compare_networks(litert, options.data, sparsities)
    gain = next(row["gain"] for row in networks if row["sparsity"] == FIGURE_SPARSITY)
    figures = {"sparse_tflite_gain_a72": Figure(float(gain or 0), "dense / sparse instructions", "higher", 1.0)}
    report_results(Results(figures, [*_layer_rows(counts), *cost_rows(counts), *networks]), options)
    return 0


def blocked_layer(shape: tuple[int, int], density: float, rng: np.random.Generator) -> Graph:
    """Return a quantised dense layer (n_outputs, n_inputs) that keeps a share of its blocks of 1x16."""
    graph = random_layer(LayerCase("layer", shape[1:], shape), 1.0, rng)
    weight = graph.tensors["weight"]
    kept = rng.random((shape[0], shape[1] // BLOCK_WIDTH)) < density
    return graph.with_tensors([replace(weight, data=weight.values() * np.repeat(kept, BLOCK_WIDTH, axis=1))])


def _count_layer(litert: EmulatedLiteRT, case: tuple[tuple[int, int], float | None]) -> Count:
    shape, density = case
    graph = blocked_layer(shape, 0.1 if density is None else density, np.random.default_rng(0))
    layers = () if density is None else (graph.layers[0].name,)
    x = np.random.default_rng(1).integers(-128, 128, (2, shape[1]), np.int8)
    instructions, outputs = count_invocations(litert, render_tflite(graph, blocked=layers), x)
    _check_bits(outputs, run_graph(with_two_roundings(graph, layers), x))
    return Count(*shape, None if density is None else block_density(graph.tensors["weight"].values()), instructions)


def _layer_rows(counts: Sequence[Count]) -> list[Row]:
    dense = {(count.n_outputs, count.n_inputs): count.instructions for count in counts if count.density is None}
    return [
        {
            "part": "layers",
            "layer": f"{count.n_inputs}-{count.n_outputs}",
            "blocks": "dense" if count.density is None else round(count.density, 3),
            "instructions": count.instructions,
            "gain": round(dense[count.n_outputs, count.n_inputs] / count.instructions, 3),
        }
        for count in counts
    ]


def cost_rows(counts: Sequence[Count]) -> list[Row]:
    """Fit an invocation's own cost and those of a weight, an output and a block: least squares of relative errors."""
    terms = np.array([_terms(count) for count in counts], float)
    instructions = np.array([count.instructions for count in counts], float)
    scaled = terms / instructions[:, None]
    costs = np.linalg.lstsq(scaled, np.ones(len(counts)))[0].tolist()
    error = float(np.abs(scaled @ np.array(costs) - 1).max())
    names = ("per_invocation", "per_mac", "per_output", "per_block")
    return [
        {"part": "costs", **dict(zip(names, np.round(costs, 3).tolist(), strict=True)), "fit_error": round(error, 3)}
    ]


def _terms(count: Count) -> tuple[float, float, float, float]:
    macs = count.n_outputs * count.n_inputs
    if count.density is None:
        return 1.0, macs, 0.0, 0.0
    return 1.0, 0.0, count.n_outputs, count.density * macs / BLOCK_WIDTH


def _compare_networks(litert: EmulatedLiteRT, data: Path, sparsities: Sequence[float]) -> list[Row]:
    subject = load_subject(NETWORK, data)
    (split,) = subject.splits
    samples = draw_calibration(subject, split, 0)[:3000]
    tails = choose_tails(subject.graph, samples)
    rows: list[Row] = []
    for sparsity in sparsities:
        settings = PruneSettings(sparsity=sparsity, structure="1x16", max_rows=len(samples))
        pruned = prune(subject.graph, samples, settings, np.random.default_rng(0)).graph
        graph = remove_dead_channels(quantize_on(pruned, samples, tails=tails))
        layers = blocked_layers(graph, litert.board)
        x = graph.quantization(graph.inputs[0]).quantize(split.x)
        expected = run_graph(graph, x), run_graph(with_two_roundings(graph, layers), x)
        files = render_tflite(graph), render_tflite(graph, blocked=layers)
        counts = []
        for content, outputs in zip(files, expected, strict=True):
            instructions, found = count_invocations(litert, content, x[:SAMPLES_COUNTED])
            _check_bits(found, outputs[:SAMPLES_COUNTED])
            counts.append(instructions)
        classes = [outputs.argmax(axis=1) for outputs in expected]
        rows.append(
            {
                "part": "networks",
                "network": NETWORK,
                "sparsity": sparsity,
                "accuracy": round(100 * float(np.mean(classes[0] == split.y)), 2),
                "dense": counts[0],
                "sparse": counts[1],
                "gain": round(counts[0] / counts[1], 3),
                "dense_bytes": len(files[0]),
                "sparse_bytes": len(files[1]),
                "changed_classes": int(np.sum(classes[0] != classes[1])),
                "samples": len(x),
            }
        )
    return rows


def _check_bits(found: Array, expected: Array) -> None:
    if not np.array_equal(found, expected):
        raise SystemExit("the emulated interpreter gives other bits than the NumPy runtime")


if __name__ == "__main__":
    sys.exit(main())
