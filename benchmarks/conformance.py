"""Whether models read from files compute what the files do: floats within rounding, int8 bit for bit in three programs.

    python -m benchmarks.conformance --data DIR [--quick] [--json FILE]

A .tflite file of floats is compared with LiteRT, an ONNX file with ONNX Runtime. In int8 a quantised file's own
integers, and of other files the integers that nettrim chooses, run in the NumPy runtime, in C compiled for this machine
and in LiteRT's reference kernels: outputs that differ are counted. LiteRT's default kernels round otherwise: how far,
and for how many samples the class changes, is shown beside.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.conformance_subjects import ENTRIES, MNIST, Subject, load_subject
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from nettrim.calibrate import choose_tails, quantize_on
from nettrim.evaluate import run_deployed
from nettrim.importers import ImportedModel
from nettrim.prune import PruneSettings, prune
from nettrim.toolchain import ToolchainError, compile_bench, run_binary
from nettrim_boards.board import load_board
from nettrim_exporters.c_header import KERNELS_FILE, render_c_header, render_c_kernels
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

QUICK_SAMPLES = 20
PRUNED_SPARSITY = 0.5
PRUNED_ROWS = 10_000  # columns of a layer's problem
ACCURACY_GOALS = {"kws": 90.2, "ic": 87.8}  # per cent, of the files as they are
MNIST_DROP, FLIPS, ERRORS = 0.3, 1.0, 2.0  # points; per cent of the samples; standard errors of a paired difference
RELATIVE_ERROR = 1e-5  # of floats, a share of the largest output: sums in another order
C_NAME = "subject"
REFERENCE_KERNELS, DEFAULT_KERNELS = "BUILTIN_REF", "AUTO"
DIGIT_MODELS = tuple(entry.file for entry in ENTRIES if entry.archive == MNIST)
HYBRID_FILES = (
    "mlperf_kws_float32.tflite",
)  # int8 weights: LiteRT rounds the activations to int8 as well, at run time


@dataclass(frozen=True)
class Comparison:
    """What was found of one model; None where there is nothing to compare with, or no labels.

    Attributes
    ----------
    float_error : float or None
        Largest difference of a float output from LiteRT's or ONNX Runtime's, a share of the largest output.
    integers : str
        Whose: the file's own, or nettrim's.
    differing_c, differing_litert : int
        Outputs of C, and of LiteRT's reference kernels, that are not the NumPy runtime's.
    default_step, default_classes : int
        How far LiteRT's default kernels stray at most, and on how many samples to another class.
    tested : int
        Samples that nothing was calibrated on; the shares below are theirs, of the pruned network those of samples that
        nettrim's integers would not be calibrated on.
    accuracy_float, accuracy_int8, accuracy_pruned, accuracy_default : float or None
        Shares of right classes: of nettrim's floats, of the bits that all three programs give, of the network pruned to
        `PRUNED_SPARSITY` in int8, of the default kernels.
    drop, net_flips, standard_errors : float or None
        What int8 loses, in points; that as a share of the samples, in per cent, without its sign; and over the standard
        error of the paired difference.
    numpy_seconds, c_seconds, seconds : float
        Of all samples in the NumPy runtime and in C (with the program's compilation), and of everything.
    """

    model: str
    samples: int
    float_error: float | None
    integers: str
    outputs: int
    differing_c: int
    differing_litert: int
    default_step: int
    default_classes: int
    tested: int
    accuracy_float: float | None
    accuracy_int8: float | None
    accuracy_pruned: float | None
    accuracy_default: float | None
    drop: float | None
    net_flips: float | None
    standard_errors: float | None
    numpy_seconds: float
    c_seconds: float
    seconds: float


def main() -> int:
    """Compare, print and write; returns the exit status."""
    options = benchmark_parser("conformance", __doc__.splitlines()[0] if __doc__ else "").parse_args()
    if options.data is None or not (options.data / "models").is_dir():
        print("no models: give --data DIR with DIR/models and the data sets", file=sys.stderr)
        return 6
    found: list[Comparison] = []
    refused: list[Row] = []
    for entry in ENTRIES:
        try:
            subject = load_subject(entry, options.data, QUICK_SAMPLES if options.quick else None)
        except UnsupportedOperatorError as error:
            refused.append({"part": "refused", "model": entry.file, "reason": _first_reason(error)})
        else:
            found.append(compare(subject))
    rows: list[Row] = [{"part": "models", **asdict(comparison)} for comparison in found]
    report_results(Results(figures(found), [*rows, *refused]), options)
    return 0


def compare(subject: Subject) -> Comparison:
    """Run one model everywhere."""
    start = time.perf_counter()
    model, x, labels = subject.model, subject.as_inputs(subject.x), subject.y
    floats = run_graph(model.graph, x)
    graph, content = integer_network(subject)
    integers = graph.quantization(graph.inputs[0]).quantize(x)
    numpy_seconds, outputs = _timed(lambda: run_graph(graph, integers).reshape(len(x), -1))
    given = _as_given(subject, graph, integers)
    reference, default = (
        run_litert(content, given, kernels, graph.outputs[0]).reshape(outputs.shape)
        for kernels in (REFERENCE_KERNELS, DEFAULT_KERNELS)
    )
    c_seconds, in_c = _timed(lambda: run_c(graph, integers).reshape(outputs.shape))
    held_out = slice(subject.n_tested)
    tested = held_out if model.quantized is None else slice(len(x))
    loss = None if labels is None else Loss.of(floats[tested], outputs[tested], labels[tested])
    return Comparison(
        model=subject.name,
        samples=len(x),
        float_error=float_error(subject, floats),
        integers="the file's" if model.quantized is not None else "nettrim's",
        outputs=outputs.size,
        differing_c=int(np.count_nonzero(in_c != outputs)),
        differing_litert=int(np.count_nonzero(reference != outputs)),
        default_step=int(np.abs(default.astype(int) - reference.astype(int)).max()),
        default_classes=int(np.count_nonzero(default.argmax(axis=1) != reference.argmax(axis=1))),
        tested=len(floats[tested]),
        accuracy_float=_accuracy(floats[tested], labels),
        accuracy_int8=_accuracy(outputs[tested], labels),
        accuracy_pruned=None if labels is None else _accuracy(_run_pruned(subject, x[held_out]), labels),
        accuracy_default=_accuracy(default[tested], labels),
        drop=loss.points if loss else None,
        net_flips=abs(loss.points) if loss else None,
        standard_errors=loss.standard_errors if loss else None,
        numpy_seconds=numpy_seconds,
        c_seconds=c_seconds,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class Loss:
    """What one network loses against another on the same samples."""

    points: float
    standard_errors: float

    @classmethod
    def of(cls, before: Array, after: Array, labels: Array) -> "Loss":
        """Compare two networks' outputs (n_samples, n_classes) on labelled samples."""
        right = [outputs.reshape(len(labels), -1).argmax(axis=1) == labels for outputs in (before, after)]
        difference = right[0].astype(float) - right[1]
        error = float(difference.std() / np.sqrt(len(labels)))
        return cls(100 * float(difference.mean()), float(difference.mean()) / error if error else 0.0)


def integer_network(subject: Subject) -> tuple[Graph, bytes]:
    """Return a quantised graph and the .tflite file of it: the subject's own where it is quantised."""
    model = subject.model
    if model.quantized is not None:
        return model.quantized, subject.path.read_bytes()
    samples = subject.as_inputs(subject.calibration)
    graph = quantize_on(model.graph, samples, tails=choose_tails(model.graph, samples))
    return graph, render_tflite(graph)


def _run_pruned(subject: Subject, x: Array) -> Array:
    """Return the outputs of the network pruned and in int8 on samples as the graph takes them."""
    samples, graph = subject.as_inputs(subject.calibration), subject.model.graph
    settings = PruneSettings(sparsity=PRUNED_SPARSITY, max_rows=PRUNED_ROWS)
    pruned = prune(graph, samples, settings, np.random.default_rng(0)).graph
    return run_deployed(quantize_on(pruned, samples, tails=choose_tails(graph, samples)), x)


def _timed(run: Callable[[], Array]) -> tuple[float, Array]:
    start = time.perf_counter()
    outputs = run()
    return time.perf_counter() - start, outputs


def float_error(subject: Subject, outputs: Array) -> float | None:
    """Return how far float outputs lie from those of the file's own runtime, None where there is none to compare."""
    expected = _float_reference(subject)
    if expected is None:
        return None
    difference = np.abs(outputs.reshape(len(outputs), -1) - _channels_last(subject.model, expected))
    return float(difference.max() / np.abs(expected).max())


def run_litert(content: bytes, samples: Array, kernels: str, output: str | None = None) -> Array:
    """Return LiteRT's outputs, sample by sample: some files fix the batch size.

    Parameters
    ----------
    output : str or None
        The tensor to return: the last of integers in a file that ends in floats; None for the file's output.
    """
    interpreter = _interpreter(content, kernels)
    entry, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    wanted = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}.get(output, last)
    if wanted != last:
        interpreter = _interpreter(content, kernels, keeps_all=True)
    interpreter.allocate_tensors()
    results = []
    for sample in samples:
        interpreter.set_tensor(entry, sample[np.newaxis])
        interpreter.invoke()
        results.append(interpreter.get_tensor(wanted)[0].copy())
    return np.stack(results)


def run_c(graph: Graph, samples: Array) -> Array:
    """Return the int8 outputs of the graph's C, compiled for this machine."""
    host = load_board("host")
    with tempfile.TemporaryDirectory(prefix="nettrim-") as name:
        folder = Path(name)
        golden = samples[:1], run_graph(graph, samples[:1])
        (folder / "model.h").write_text(render_c_header(graph, C_NAME, golden), encoding="utf-8")
        (folder / KERNELS_FILE).write_text(render_c_kernels(), encoding="utf-8")
        program = compile_bench(host, folder, C_NAME, folder / "program")
        (folder / "inputs").write_bytes(samples.tobytes())
        finished = run_binary(host, program, ["run", folder / "inputs", folder / "outputs"])
        if finished.returncode != 0:
            raise ToolchainError(f"{graph.name} ended with status {finished.returncode}: {finished.stderr.strip()}")
        return np.frombuffer((folder / "outputs").read_bytes(), np.int8)


def figures(found: Sequence[Comparison]) -> dict[str, Figure]:
    """Return what the benchmark is judged by."""
    errors = [entry.float_error for entry in found if entry.float_error is not None]
    labelled = [entry for entry in found if entry.drop is not None]
    digits = [entry.drop or 0.0 for entry in labelled if entry.model in DIGIT_MODELS]
    others = [entry for entry in labelled if entry.model not in DIGIT_MODELS]
    differing = sum(entry.differing_c + entry.differing_litert for entry in found)
    result = {
        "models_converted": Figure(float(len(found)), "models", "higher", float(len(ENTRIES))),
        "models_total": Figure(float(len(ENTRIES)), "models", "higher"),
        "differing_outputs": Figure(float(differing), "outputs", "lower", 0.0),
        "largest_float_error": Figure(max(errors, default=None), "of the largest output", "lower", RELATIVE_ERROR),
        "worst_int8_drop_mnist": Figure(max(digits, default=None), "points", "lower", MNIST_DROP),
        "worst_int8_drop_elsewhere": Figure(
            max((entry.standard_errors or 0.0 for entry in others), default=None), "standard errors", "lower", ERRORS
        ),
        "worst_net_flips_elsewhere": Figure(
            max((entry.net_flips or 0.0 for entry in others), default=None), "% of samples", "lower", FLIPS
        ),
    }
    by_name = {entry.model: entry for entry in found}
    for name, file in (("kws", "mlperf_kws_int8.tflite"), ("ic", "mlperf_ic_int8.tflite")):
        accuracy = by_name[file].accuracy_int8 if file in by_name else None
        result[f"{name}_int8_accuracy"] = Figure(
            None if accuracy is None else 100 * accuracy, "%", "higher", ACCURACY_GOALS[name]
        )
    return result


def _interpreter(content: bytes, kernels: str, *, keeps_all: bool = False) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415

    return Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType[kernels],
        num_threads=1,
        experimental_preserve_all_tensors=keeps_all,
    )


def _first_reason(error: UnsupportedOperatorError) -> str:
    """Return what a refusal says before the list of what is supported, without the path."""
    return str(error).split(". Supported")[0].split(": ", 1)[-1]


def _float_reference(subject: Subject) -> Array | None:
    """Return (n_samples, ...) of LiteRT or ONNX Runtime."""
    is_tflite = subject.twin.suffix == ".tflite"
    if is_tflite and subject.model.quantized is None and subject.name not in HYBRID_FILES:
        return run_litert(subject.twin.read_bytes(), subject.x, REFERENCE_KERNELS)
    return _run_onnx(subject) if subject.twin.suffix == ".onnx" else None


def _run_onnx(subject: Subject) -> Array:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(subject.twin), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [session.run(None, {name: sample[np.newaxis]})[0] for sample in subject.x]
    return np.concatenate(outputs)


def _channels_last(model: ImportedModel, outputs: Array) -> Array:
    """Return (n_samples, n_outputs) in the order of the graph's output."""
    is_image = model.input_layout == "NCHW" and outputs.ndim == 4
    ordered = outputs.transpose(0, 2, 3, 1) if is_image else outputs
    return ordered.reshape(len(ordered), -1)


def _as_given(subject: Subject, graph: Graph, integers: Array) -> Array:
    """Return int8 inputs as the file takes them: as they are, or as the floats that it makes the same integers of."""
    if subject.model.quantized is None:
        return integers
    shaped = integers.reshape(subject.x.shape)
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    entry = Interpreter(model_path=str(subject.path)).get_input_details()[0]
    return shaped if entry["dtype"] is np.int8 else graph.quantization(graph.inputs[0]).dequantize(shaped)


def _accuracy(outputs: Array, labels: Array | None) -> float | None:
    if labels is None:
        return None
    return float(np.mean(outputs.reshape(len(outputs), -1).argmax(axis=1) == labels[: len(outputs)]))


if __name__ == "__main__":
    sys.exit(main())
