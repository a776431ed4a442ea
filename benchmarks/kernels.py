"""Instructions of the C kernels, dense and sparse, and the density below which sparse ones take fewer.

Counted by emulators, so exact and the same in every run; the constants of nettrim/storage.py come from here.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.firmware_emulation import count_firmware_instructions
from benchmarks.layers import LayerCase, random_layer
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from nettrim.quantize import with_sparse_weights
from nettrim.toolchain import MissingToolError, ToolchainError, compile_bench, count_instructions, link_firmware
from nettrim_boards.board import Board, load_board
from nettrim_exporters.c_header import KERNELS_FILE, render_c_header, render_c_kernels
from nettrim_runtime.csr import csr_from_dense
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph, layer_macs

Array = npt.NDArray[Any]

BOARDS = {"a72": "rpi4", "m4": "nucleo-f446re"}
SEED = 0
LARGEST_FIT_ERROR = 0.05  # above it the line, and so the break-even density, says little

# The first layer of an operator is the one whose instructions become figures.
CASES = (
    LayerCase("300-100", (300,), (100, 300)),
    LayerCase("3x3 16-32 on 8x8", (8, 8, 16), (32, 3, 3, 16), pad=1),
    LayerCase("784-300", (784,), (300, 784)),
    LayerCase("120-84", (120,), (84, 120)),
    LayerCase("5x5 6-16 on 14x14", (14, 14, 6), (16, 5, 5, 6)),
    LayerCase("5x5 1-6 on 28x28", (28, 28, 1), (6, 5, 5, 1), pad=2),
    LayerCase("1x1 64-64 on 5x5", (5, 5, 64), (64, 1, 1, 64)),
    LayerCase("3x3 depthwise 32 on 8x8", (8, 8, 32), (32, 3, 3, 1), pad=1, groups=32),
)
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
QUICK_DENSITIES = (0.02, 0.1, 0.5)


@dataclass(frozen=True)
class Measurement:
    """Instructions of one run of a one-layer model; ``density`` None means stored dense."""

    cpu: str
    case: LayerCase
    density: float | None
    macs: int  # of the kept weights alone when stored sparse
    outputs: int
    instructions: int


@dataclass(frozen=True)
class Comparison:
    """Dense against sparse for one layer on one processor.

    Attributes
    ----------
    dense_per_mac : float
        Instructions of the whole dense layer over its multiply-accumulates.
    csr_per_nonzero, csr_per_output : float
        Of the line instructions = csr_per_output * outputs + csr_per_nonzero * multiply-accumulates.
    fit_error : float
        Largest distance of a count from that line, relative to the count.
    break_even_density : float
        Where the line meets the dense count.
    """

    cpu: str
    case: LayerCase
    dense_per_mac: float
    csr_per_nonzero: float
    csr_per_output: float
    fit_error: float
    break_even_density: float


def main() -> int:
    """Measure, print and write; returns the exit status."""
    options = benchmark_parser("kernels", __doc__).parse_args()
    densities = QUICK_DENSITIES if options.quick else DENSITIES
    comparisons: list[Comparison] = []
    for cpu, board_name in BOARDS.items():
        try:
            measured = measure_board(cpu, load_board(board_name), CASES, densities)
        except MissingToolError as error:
            print(f"{board_name} is left out: {error}", file=sys.stderr)
            continue
        comparisons += [compare(cpu, case, measured) for case in CASES]
    report_results(Results(figures(comparisons), [_row(comparison) for comparison in comparisons]), options)
    return 0 if comparisons else 6


def measure_board(
    cpu: str, board: Board, cases: Sequence[LayerCase], densities: Sequence[float]
) -> tuple[Measurement, ...]:
    """Build and count every layer once dense and once at every density.

    Raises
    ------
    MissingToolError
        When a compiler or emulator of the board is not installed.
    ToolchainError
        When a program fails, gives other bits than the NumPy runtime, or a count does not repeat.
    """
    wanted = [(case, density) for case in cases for density in (None, *densities)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(pool.map(lambda pair: _measure(cpu, board, *pair), wanted))


def compare(cpu: str, case: LayerCase, measured: Iterable[Measurement]) -> Comparison:
    """Fit the sparse counts of a layer with a line and cut it with the dense count."""
    ours = [entry for entry in measured if entry.case == case]
    (dense,) = (entry for entry in ours if entry.density is None)
    sparse = [entry for entry in ours if entry.density is not None]
    terms = np.array([(entry.outputs, entry.macs) for entry in sparse], dtype=float)  # (n_densities, 2)
    counts = np.array([entry.instructions for entry in sparse], dtype=float)  # (n_densities,)
    # Each equation over its count: the relative errors are made small, the ones that are reported.
    per_output, per_nonzero = np.linalg.lstsq(terms / counts[:, None], np.ones(len(sparse)))[0]
    fitted = terms @ (per_output, per_nonzero)
    return Comparison(
        cpu=cpu,
        case=case,
        dense_per_mac=dense.instructions / dense.macs,
        csr_per_nonzero=float(per_nonzero),
        csr_per_output=float(per_output),
        fit_error=float(np.max(np.abs(fitted - counts) / counts)),
        break_even_density=float((dense.instructions - per_output * dense.outputs) / (per_nonzero * dense.macs)),
    )


def figures(comparisons: Sequence[Comparison]) -> Mapping[str, Figure]:
    """Return, for each processor and operator, its first layer's costs and the smallest break-even density of all."""
    found: dict[str, Figure] = {}
    for cpu, kind in dict.fromkeys((comparison.cpu, comparison.case.kind) for comparison in comparisons):
        ours = [entry for entry in comparisons if (entry.cpu, entry.case.kind) == (cpu, kind)]
        break_even = min(entry.break_even_density for entry in ours)
        fit_error = max(entry.fit_error for entry in ours)
        found |= {
            f"{cpu}_{kind.lower()}_{what}": figure
            for what, figure in {
                "instructions_per_mac": Figure(round(ours[0].dense_per_mac, 4), "instructions/MAC", "lower"),
                "csr_instructions_per_nonzero": Figure(
                    round(ours[0].csr_per_nonzero, 4), "instructions/nonzero MAC", "lower"
                ),
                "break_even_density": Figure(round(break_even, 4), "share of nonzeros", "higher"),
                "fit_error": Figure(round(fit_error, 4), "share of a count", "lower", LARGEST_FIT_ERROR),
            }.items()
        }
    return found


def _row(comparison: Comparison) -> Row:
    return {
        "cpu": comparison.cpu,
        "op": comparison.case.kind,
        "layer": comparison.case.name,
        "dense_per_mac": round(comparison.dense_per_mac, 4),
        "csr_per_nonzero": round(comparison.csr_per_nonzero, 4),
        "csr_per_output": round(comparison.csr_per_output, 4),
        "fit_error": round(comparison.fit_error, 4),
        "break_even_density": round(comparison.break_even_density, 4),
    }


def _measure(cpu: str, board: Board, case: LayerCase, density: float | None) -> Measurement:
    rng = np.random.default_rng(SEED)
    graph = random_layer(case, 1.0 if density is None else density, rng)
    layer = graph.layers[0]
    weight = graph.tensors[layer.weight]
    positions = layer_macs(graph, layer) // weight.size
    nnz = weight.size if density is None else weight.nnz
    if density is not None:
        graph = with_sparse_weights(graph, {layer.name: csr_from_dense(weight.values().reshape(weight.shape[0], -1))})
    x = rng.integers(-128, 128, (1, *case.input_shape), dtype=np.int8)
    with tempfile.TemporaryDirectory(prefix="nettrim-") as folder:
        count = _counter(board, graph, x, Path(folder))
        counts = (count(), count())
    if counts[0] != counts[1]:
        raise ToolchainError(f"{case.name} on {board.name}: two counts differ: {counts}, expected the same")
    outputs = graph.tensors[layer.output].size
    return Measurement(cpu, case, density, positions * nnz, outputs, counts[0])


def _counter(board: Board, graph: Graph, x: Array, folder: Path) -> Callable[[], int]:
    """Build the model for the board; what is returned runs it on x (1, *input_shape), checks its bits and counts."""
    expected = run_graph(graph, x)
    (folder / "model.h").write_text(render_c_header(graph, "layer", (x, expected)), encoding="utf-8")
    (folder / KERNELS_FILE).write_text(render_c_kernels(), encoding="utf-8")
    program = folder / "program"
    if board.os == "none":
        link_firmware(board, folder, "layer", program)
        return partial(count_firmware_instructions, board, program)
    compile_bench(board, folder, "layer", program)
    return partial(_count_program, board, program, x, expected)


def _count_program(board: Board, program: Path, x: Array, expected: Array) -> int:
    samples, outputs = program.with_name("samples"), program.with_name("outputs")
    samples.write_bytes(x.tobytes())
    count = count_instructions(board, program, ["run", samples, outputs]).instructions
    if outputs.read_bytes() != expected.tobytes():
        raise ToolchainError(f"{program.name} on {board.name} gives other bits than the NumPy runtime")
    return count


if __name__ == "__main__":
    sys.exit(main())
