"""Sparse weights in LiteRT's stock interpreter on a Raspberry Pi 4: instructions against those of the dense file.

    python -m benchmarks.sparse_tflite --data DIR [--quick] [--json FILE] [--svg FILE]

Dense layers in blocks, and the convolutions of a small network trained on CIFAR-10. Counted by the emulator, without
which nothing is measured; the costs of nettrim/sparse_tflite.py come from here. The first run fetches the board's
Python and LiteRT into the user's cache (40 MB).
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
from benchmarks.layers import LayerCase, random_float_layer
from benchmarks.quality_subjects import draw_calibration, load_subject
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from benchmarks.sparse_tflite_network import load_images, train_network
from nettrim.calibrate import choose_tails, quantize_on
from nettrim.evaluate import port_values
from nettrim.hybrid import Precision, shipped_floats
from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.prune import PruneSettings, prune
from nettrim.quantize import quantize_graph
from nettrim.sparse_tflite import sparse_layers, with_two_roundings
from nettrim.statistics import predicted_classes, share_equal
from nettrim_boards.board import load_board
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_blocks import block_density
from nettrim_runtime.compare import count_differing, output_tolerance
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

BOARD = "rpi4"
BLOCK_WIDTHS: dict[Precision, int] = {"int8": 16, "hybrid": 16, "float32": 4}
SHAPES = ((128, 640), (256, 256), (304, 784), (1024, 1024))  # outputs, inputs
DENSITIES = (0.05, 0.1, 0.2, 0.4)
SPARSITIES = (0.85, 0.9, 0.95)
CONVOLUTION_SPARSITIES = (0.75, 0.85, 0.9)
FIGURE_SPARSITY = 0.9
FIGURES = {
    ("LeNet-300-100", "int8"): "sparse_tflite_gain_a72",
    ("LeNet-300-100", "hybrid"): "sparse_tflite_hybrid_gain_a72",
    ("LeNet-300-100", "float32"): "sparse_tflite_float32_gain_a72",
    ("separable", "float32"): "sparse_tflite_convolutions_gain_a72",
}
CALIBRATION_SAMPLES, SAMPLES_COUNTED = 3000, 8


@dataclass(frozen=True)
class Count:
    """One layer under the emulator; ``density`` is the share of blocks kept, None of a dense file."""

    precision: Precision
    n_outputs: int
    n_inputs: int
    density: float | None
    instructions: int


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network, samples to prune it on, and labelled ones to test it."""

    name: str
    graph: Graph
    samples: Array
    x: Array
    y: Array


def main() -> int:
    """Measure, print and write; returns the exit status."""
    options = benchmark_parser("sparse_tflite", __doc__.splitlines()[0] if __doc__ else "").parse_args()
    if options.data is None:
        options.data = Path("../shared/data")
    litert = fetch_litert(load_board(BOARD))
    shapes, densities = (SHAPES[2:3], DENSITIES[:2]) if options.quick else (SHAPES, DENSITIES)
    precisions: tuple[Precision, ...] = ("int8",) if options.quick else tuple(BLOCK_WIDTHS)
    cases = list(product(precisions, shapes, (None, *densities)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(partial(_count_layer, litert), cases))
    costs = [row for precision in precisions for row in cost_rows([c for c in counts if c.precision == precision])]
    networks = _measure_networks(litert, options.data, precisions, is_quick=options.quick)
    report_results(Results(_figures(networks), [*_layer_rows(counts), *costs, *networks]), options)
    return 0


def _measure_networks(
    litert: EmulatedLiteRT, data: Path, precisions: Sequence[Precision], *, is_quick: bool
) -> list[Row]:
    digits = _load_digits(data)
    sparsities = (FIGURE_SPARSITY,) if is_quick else SPARSITIES
    rows = [compare(litert, digits, *case) for case in product(precisions, sparsities)]
    if is_quick:
        return rows
    images = _load_cifar(data)
    return rows + [compare(litert, images, "float32", sparsity) for sparsity in CONVOLUTION_SPARSITIES]


def _figures(networks: Sequence[Row]) -> dict[str, Figure]:
    unit, found = "dense / sparse instructions", [row for row in networks if row["sparsity"] == FIGURE_SPARSITY]
    names = [FIGURES[str(row["network"]), str(row["precision"])] for row in found]
    return {name: Figure(float(row["gain"] or 0), unit, "higher", 1.0) for name, row in zip(names, found, strict=True)}


def blocked_layer(precision: Precision, shape: tuple[int, int], density: float, rng: np.random.Generator) -> Graph:
    """Return a dense layer (n_outputs, n_inputs) as it is shipped, that keeps a share of its blocks."""
    graph, width = random_float_layer(LayerCase("layer", shape[1:], shape), 1.0, rng), BLOCK_WIDTHS[precision]
    weight = graph.tensors["weight"]
    kept = np.repeat(rng.random((shape[0], shape[1] // width)) < density, width, axis=1).astype(np.float32)
    graph = graph.with_tensors([replace(weight, data=weight.values() * kept)])
    if precision != "int8":
        return shipped_floats(graph, precision)
    span = float(np.sqrt(1.0 + density * shape[1]))
    return quantize_graph(graph, {"input": (-1.0, 1.0), "output": (-span, span)})


def _count_layer(litert: EmulatedLiteRT, case: tuple[Precision, tuple[int, int], float | None]) -> Count:
    precision, shape, density = case
    graph = blocked_layer(precision, shape, 0.1 if density is None else density, np.random.default_rng(0))
    layers = () if density is None else (graph.layers[0].name,)
    x = port_values(graph, np.random.default_rng(1).uniform(-1, 1, (2, shape[1])).astype(np.float32))
    instructions, outputs = count_invocations(litert, render_tflite(graph, blocked=layers), x)
    _check(graph, outputs, run_graph(_computed(graph, layers), x))
    found = None if density is None else block_density(graph.tensors["weight"].values(), BLOCK_WIDTHS[precision])
    return Count(precision, *shape, found, instructions)


def _layer_rows(counts: Sequence[Count]) -> list[Row]:
    dense = {(c.precision, c.n_outputs, c.n_inputs): c.instructions for c in counts if c.density is None}
    return [
        {
            "part": "layers",
            "precision": count.precision,
            "layer": f"{count.n_inputs}-{count.n_outputs}",
            "blocks": "dense" if count.density is None else round(count.density, 3),
            "instructions": count.instructions,
            "gain": round(dense[count.precision, count.n_outputs, count.n_inputs] / count.instructions, 3),
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
    found = dict(zip(names, np.round(costs, 3).tolist(), strict=True))
    return [{"part": "costs", "precision": counts[0].precision, **found, "fit_error": round(error, 3)}]


def _terms(count: Count) -> tuple[float, float, float, float]:
    macs = count.n_outputs * count.n_inputs
    if count.density is None:
        return 1.0, macs, 0.0, 0.0
    return 1.0, 0.0, count.n_outputs, count.density * macs / BLOCK_WIDTHS[count.precision]


def _load_digits(data: Path) -> Subject:
    subject = load_subject("LeNet-300-100", data)
    (split,) = subject.splits
    samples = draw_calibration(subject, split, 0)[:CALIBRATION_SAMPLES]
    return Subject(subject.name, subject.graph, samples, split.x, split.y)


def _load_cifar(data: Path) -> Subject:
    x, y, test, labels = load_images(data)
    samples = x[np.random.default_rng(0).permutation(len(x))[:CALIBRATION_SAMPLES]]
    return Subject("separable", train_network(x, y), samples, test, labels)


def compare(litert: EmulatedLiteRT, subject: Subject, precision: Precision, sparsity: float) -> Row:
    """Prune a network and count its dense and its sparse file."""
    structure = f"1x{BLOCK_WIDTHS[precision]}" if subject.name != "separable" else "l1"
    settings = PruneSettings(sparsity=sparsity, structure=structure, max_rows=len(subject.samples))
    pruned = prune(subject.graph, subject.samples, settings, np.random.default_rng(0)).graph
    graph = _shipped(subject, pruned, precision)
    layers = sparse_layers(graph, litert.board)
    x = port_values(graph, subject.x)
    expected = run_graph(graph, x), run_graph(_computed(graph, layers), x)
    files = render_tflite(graph), render_tflite(graph, blocked=layers)
    counts = []
    for content, outputs in zip(files, expected, strict=True):
        instructions, found = count_invocations(litert, content, x[:SAMPLES_COUNTED])
        _check(graph, found, outputs[:SAMPLES_COUNTED])
        counts.append(instructions)
    classes = [predicted_classes(outputs) for outputs in (run_graph(subject.graph, subject.x), *expected)]
    accuracies = [round(100 * share_equal(found, subject.y), 2) for found in classes]
    return {
        "part": "networks",
        "network": subject.name,
        "precision": precision,
        "sparsity": sparsity,
        "sparse_layers": len(layers),
        "accuracy_original": accuracies[0],
        "accuracy": accuracies[2],
        "dense": counts[0],
        "sparse": counts[1],
        "gain": round(counts[0] / counts[1], 3),
        "dense_bytes": len(files[0]),
        "sparse_bytes": len(files[1]),
        "changed_classes": int(np.sum(classes[1] != classes[2])),
        "samples": len(x),
    }


def _shipped(subject: Subject, pruned: Graph, precision: Precision) -> Graph:
    if precision != "int8":
        return shipped_floats(pruned, precision)
    tails = choose_tails(subject.graph, subject.samples)
    return remove_dead_channels(quantize_on(pruned, subject.samples, tails=tails))


def _computed(graph: Graph, layers: Sequence[str]) -> Graph:
    """Return what the interpreter makes of a file with these layers sparse."""
    return with_two_roundings(graph, layers) if graph.is_quantized else graph


def _check(graph: Graph, found: Array, expected: Array) -> None:
    if count_differing(found, expected, output_tolerance(graph, is_other_grid=True)):
        raise SystemExit("the emulated interpreter gives other outputs than the NumPy runtime")


if __name__ == "__main__":
    sys.exit(main())
