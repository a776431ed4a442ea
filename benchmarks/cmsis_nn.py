"""Where CMSIS-NN, which TensorFlow Lite Micro calls on a Cortex-M, gives other bits than nettrim, operator by operator.

--cmsis PATH: a checkout of github.com/ARM-software/CMSIS-NN.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cmsis_nn_build import PROCESSORS, Processor, build_calls, run_calls
from benchmarks.cmsis_nn_calls import Call, Function, cmsis_call
from benchmarks.cmsis_nn_networks import random_networks
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from nettrim.toolchain import MissingToolError
from nettrim_runtime.engine import prepare
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

SEED = 0
ROUNDS, QUICK_ROUNDS = 20, 2  # of all networks, each with weights, ranges and samples of its own
N_SAMPLES = 20
OPERATORS = {
    Function.CONVOLVE: "Conv2d",
    Function.DEPTHWISE: "Conv2d, depthwise",
    Function.FULLY_CONNECTED: "Dense",
    Function.MAX_POOL: "MaxPool2d",
    Function.AVERAGE_POOL: "AveragePool2d",
    Function.ADD: "Add",
    Function.MULTIPLY: "Mul",
    Function.SOFTMAX: "Softmax",
}


@dataclass(frozen=True, eq=False)
class Subject:
    """A call, and the outputs that nettrim's runtime gives for its inputs."""

    call: Call
    expected: Array

    @property
    def name(self) -> str:
        """The operator, and what of it is counted apart."""
        is_dense, first = self.call.function is Function.FULLY_CONNECTED, self.call.first.shape[-1]
        in_groups = self.call.function is Function.CONVOLVE and self.call.kernel[2] != first
        one_scale = is_dense and not self.call.is_per_channel
        return OPERATORS[self.call.function] + ", in groups" * in_groups + ", one scale" * one_scale


@dataclass(frozen=True)
class Comparison:
    """One operator on one integer type, on one processor with one way of rounding."""

    processor: str
    rounding: str  # "double", CMSIS-NN's default, or "single"
    operator: str
    dtype: str
    outputs: int
    differing: int
    largest_step: int


def main() -> int:
    """Measure, print and write; returns the exit status."""
    parser = benchmark_parser("cmsis_nn", __doc__ or "")
    parser.add_argument("--cmsis", type=Path, metavar="PATH", required=True, help="a checkout of CMSIS-NN")
    options = parser.parse_args()
    subjects = random_subjects(np.random.default_rng(SEED), QUICK_ROUNDS if options.quick else ROUNDS)
    found: list[Comparison] = []
    try:
        for processor in PROCESSORS:
            try:
                found += measure(options.cmsis, processor, subjects)
            except MissingToolError as error:
                print(f"{processor.name} is left out: {error}", file=sys.stderr)
        found += measure(options.cmsis, PROCESSORS[0], subjects, rounds_once=True)
    except (DataError, MissingToolError) as error:
        print(f"nothing is measured: {error}", file=sys.stderr)
        return 6
    report_results(Results(figures(found), [_row(each) for each in found]), options)
    return 0


def random_subjects(rng: np.random.Generator, rounds: int) -> list[Subject]:
    """Return the operators of random networks with inputs over the whole range of int8."""
    graphs = [graph for _ in range(rounds) for graph in random_networks(rng)]
    return [subject for graph in graphs for subject in _subjects(graph, rng)]


def measure(
    checkout: Path, processor: Processor, subjects: Sequence[Subject], *, rounds_once: bool = False
) -> list[Comparison]:
    """Run every call with CMSIS-NN and compare."""
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        program = build_calls(checkout, processor, Path(scratch), rounds_once=rounds_once)
        outputs = run_calls(program, processor, [subject.call for subject in subjects])
    return compare(processor.name, "single" if rounds_once else "double", subjects, outputs)


def compare(processor: str, rounding: str, subjects: Iterable[Subject], outputs: Iterable[Array]) -> list[Comparison]:
    """Count differing outputs, operator by operator and type by type."""
    steps: dict[tuple[str, str], list[Array]] = {}
    for subject, output in zip(subjects, outputs, strict=True):
        distance = np.abs(output.astype(np.int64) - subject.expected).ravel()
        steps.setdefault((subject.name, output.dtype.name), []).append(distance)
    joined = {key: np.concatenate(parts) for key, parts in steps.items()}
    return [
        Comparison(processor, rounding, *key, all_steps.size, int(np.count_nonzero(all_steps)), int(all_steps.max()))
        for key, all_steps in sorted(joined.items())
    ]


def figures(found: Sequence[Comparison]) -> Mapping[str, Figure]:
    """Return the named figures, of the default rounding on every processor."""
    default = [each for each in found if each.rounding == "double"]
    dense = [each for each in default if each.operator.startswith("Dense") and each.dtype == "int8"]
    share = sum(each.differing for each in dense) / sum(each.outputs for each in dense)
    return {
        "cmsis_nn_largest_step": Figure(max(each.largest_step for each in default), "steps", "lower", 1),
        "cmsis_nn_dense_share": Figure(float(f"{share:.3g}"), "of int8 outputs", "lower"),
        "cmsis_nn_operators": Figure(len(_operators(default)), "operators", "higher"),
        "cmsis_nn_operators_equal": Figure(
            len(_operators(default) - _operators(each for each in default if each.differing)), "operators", "higher"
        ),
    }


def _operators(found: Iterable[Comparison]) -> set[str]:
    return {each.operator.split(",")[0] for each in found}


def _subjects(graph: Graph, rng: np.random.Generator) -> Iterator[Subject]:
    program = prepare(graph, N_SAMPLES)
    shape = graph.tensors[graph.inputs[0]].shape
    program.run(rng.integers(-128, 128, (N_SAMPLES, *shape), np.int8))
    for op in graph.ops:
        call = cmsis_call(graph, op, program.buffers)
        if call is not None:
            yield Subject(call, program.buffers[op.output].copy())


def _row(found: Comparison) -> Row:
    return {
        "part": f"{found.processor}, {found.rounding} rounding",
        "operator": found.operator,
        "type": found.dtype,
        "outputs": found.outputs,
        "differing": found.differing,
        "share": float(f"{found.differing / found.outputs:.3g}"),
        "largest_step": found.largest_step,
    }


if __name__ == "__main__":
    sys.exit(main())
