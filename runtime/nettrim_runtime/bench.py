"""The measuring protocol, as it runs on the board with python3 and NumPy alone: python3 -m nettrim_runtime.bench."""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.board_state import THROTTLE_BITS, BoardState, read_board_state
from nettrim_runtime.compare import count_differing, output_tolerance
from nettrim_runtime.engine import Program, prepare, run_graph
from nettrim_runtime.errors import DataError, NettrimError
from nettrim_runtime.graph import Graph
from nettrim_runtime.model_file import load_model

Array = npt.NDArray[Any]

SCHEMA_VERSION = 1
EXIT_INVALID = 7
EXIT_INTERRUPTED = 130
SYNTHETIC_SAMPLES = 16
NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class BenchSettings:
    """How long to measure, and how much the windows may differ.

    Attributes
    ----------
    windows : int
        Their medians' median is the result.
    window_seconds : float
        The least length of a window.
    warm_up_runs : int
        Runs before the first window, apart from the very first run.
    max_spread : float
        Largest minus smallest median of the windows, as a share of their median, that still counts as stable.
    """

    windows: int = 5
    window_seconds: float = 10.0
    warm_up_runs: int = 10
    max_spread: float = 0.1

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise DataError(f"{self.windows} windows of measurement, expected at least one")
        if not self.window_seconds > 0.0:
            raise DataError(f"windows of {self.window_seconds:g} seconds, expected a positive length")
        if self.warm_up_runs < 0 or not self.max_spread > 0.0:
            raise DataError(
                f"{self.warm_up_runs} runs of warm-up and a spread of {self.max_spread:g}, expected 0 runs or "
                "more and a positive spread"
            )


@dataclass(frozen=True)
class Window:
    """One window's number of runs, length and latency percentiles (nearest rank)."""

    runs: int
    seconds: float
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True)
class BenchResult:
    """One measurement; ``p50_ms``, ``p90_ms`` and ``p99_ms`` are medians over the windows.

    Attributes
    ----------
    samples : int
        Distinct inputs, run in turn.
    peak_rss_bytes : int
        The process's peak after warm-up, Python and NumPy included; the windows' records do not count.
    input_crc32, output_crc32 : str
        zlib's CRC-32 of the samples' and results' raw bytes, one after the other.
    verdict : str
        "VALID" or "INVALID", for the ``reasons`` given.
    """

    samples: int
    first_run_ms: float
    warm_up_runs: int
    windows: tuple[Window, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    peak_rss_bytes: int
    input_crc32: str
    output_crc32: str
    before: BoardState
    after: BoardState
    verdict: str
    reasons: tuple[str, ...]
    python: str
    numpy: str
    machine: str

    def to_json(self) -> str:
        """Return the result as JSON with a schema version."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n"


def bench_graph(graph: Graph, samples: Array, settings: BenchSettings) -> BenchResult:
    """Measure the NumPy runtime, one sample a run.

    Parameters
    ----------
    graph : Graph
        With one input.
    samples : Array
        (n_samples, *input shape): float32 or, for a quantised graph, int8.
    settings : BenchSettings
        Length and number of the windows.

    Raises
    ------
    DataError
        When the samples do not fit the graph.
    """
    _check_samples(graph, samples)
    batches = [samples[index : index + 1] for index in range(len(samples))]
    before = read_board_state()
    program = prepare(graph, batch_size=1)
    first_run_ms = _time_run(program, batches[0]) / NS_PER_MS
    output_crc32 = _output_crc32(program, batches)
    for index in range(settings.warm_up_runs):
        program.run(batches[index % len(batches)])
    peak_rss_bytes = peak_memory()
    windows = tuple(_time_window(program, batches, settings.window_seconds) for _ in range(settings.windows))
    after = read_board_state()
    verdict, reasons = judge([window.p50_ms for window in windows], before, after, settings)
    return BenchResult(
        samples=len(samples),
        first_run_ms=first_run_ms,
        warm_up_runs=settings.warm_up_runs,
        windows=windows,
        p50_ms=statistics.median(window.p50_ms for window in windows),
        p90_ms=statistics.median(window.p90_ms for window in windows),
        p99_ms=statistics.median(window.p99_ms for window in windows),
        peak_rss_bytes=peak_rss_bytes,
        input_crc32=crc32_text(samples),
        output_crc32=output_crc32,
        before=before,
        after=after,
        verdict=verdict,
        reasons=reasons,
        python=platform.python_version(),
        numpy=np.__version__,
        machine=platform.machine(),
    )


def judge(
    medians_ms: Sequence[float], before: BoardState, after: BoardState, settings: BenchSettings
) -> tuple[str, tuple[str, ...]]:
    """Return "VALID" or "INVALID" and why: the board was slowed down, or the windows disagree."""
    reasons = _throttle_reasons(before, after)
    spread = (max(medians_ms) - min(medians_ms)) / statistics.median(medians_ms)
    if spread > settings.max_spread:
        reasons.append(
            f"unstable: the windows' medians differ by {spread:.1%}, expected at most {settings.max_spread:.0%}"
        )
    return ("INVALID" if reasons else "VALID"), tuple(reasons)


def peak_memory() -> int:
    """Return the peak resident bytes of this process: on Linux not what its parent had, with which ru_maxrss starts."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # KiB everywhere else


def crc32_text(values: Array) -> str:
    """Return zlib's CRC-32 of an array's raw bytes as eight hexadecimal digits."""
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def load_samples(path: Path, name: str = "x") -> Array:
    """Read one array of an .npz file.

    Raises
    ------
    DataError
        When the file is absent or damaged, or has no array of that name.
    """
    try:
        with path.open("rb") as stream:  # opened here: np.load leaves a damaged file open
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path}: holds one bare array, expected an .npz file with an array {name}")
            return np.asarray(archive[name])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path}: cannot be read as an .npz file with an array {name}: {error}") from error
    except (OverflowError, MemoryError, RuntimeError, zlib.error) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a model from the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = BenchSettings(windows=options.windows, window_seconds=options.seconds)
        graph = load_model(options.model)
        samples, source = _samples_for(graph, options)
        seconds = settings.windows * settings.window_seconds
        sys.stdout.write(f"measuring {source}: {settings.windows} windows, about {seconds:g} s\n")
        _check_golden(graph, samples, source)
        result = bench_graph(graph, samples, settings)
        if options.json is not None:
            _write(options.json, result.to_json())
    except NettrimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    sys.stdout.write(_summary(result, settings, source))
    return 0 if result.verdict == "VALID" else EXIT_INVALID


def _check_samples(graph: Graph, samples: Array) -> None:
    if len(graph.inputs) != 1:
        raise DataError(f"{graph.name} has {len(graph.inputs)} inputs, expected one: others cannot be measured")
    tensor = graph.tensors[graph.inputs[0]]
    if samples.ndim == 0 or len(samples) == 0 or samples.shape[1:] != tensor.shape or samples.dtype != tensor.dtype:
        raise DataError(
            f"samples have shape {samples.shape} and type {samples.dtype}, "
            f"expected (n, {', '.join(map(str, tensor.shape))}) with n of at least 1 and type {tensor.dtype}"
        )


def _time_run(program: Program, batch: Array) -> int:
    start_ns = time.perf_counter_ns()
    program.run(batch)
    return time.perf_counter_ns() - start_ns


def _output_crc32(program: Program, batches: Sequence[Array]) -> str:
    crc = 0
    for batch in batches:
        for output in program.run(batch):
            crc = zlib.crc32(output.tobytes(), crc)
    return f"{crc:08x}"


def _time_window(program: Program, batches: Sequence[Array], seconds: float) -> Window:
    records_ns = array("q")
    start_ns = time.perf_counter_ns()
    end_ns = start_ns + round(seconds * NS_PER_SECOND)
    now_ns = start_ns
    while now_ns < end_ns or not records_ns:
        batch = batches[len(records_ns) % len(batches)]
        before_ns = time.perf_counter_ns()
        program.run(batch)
        now_ns = time.perf_counter_ns()
        records_ns.append(now_ns - before_ns)
    milliseconds = np.frombuffer(records_ns, np.int64) / NS_PER_MS
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99], method="inverted_cdf")
    return Window(
        runs=len(records_ns),
        seconds=(now_ns - start_ns) / NS_PER_SECOND,
        min_ms=float(milliseconds.min()),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
    )


def _throttle_reasons(before: BoardState, after: BoardState) -> list[str]:
    reasons = []
    first, last = before.throttled or 0, after.throttled or 0
    for bit, meaning in enumerate(THROTTLE_BITS):
        now, since_boot = 1 << bit, 1 << (bit + 16)
        # What happened before the run, and is over, does not count against it.
        if (first | last) & now or last & ~first & since_boot:
            reasons.append(f"{meaning}: get_throttled went from {first:#x} to {last:#x}, expected no new bit and 0 now")
    return reasons


def _samples_for(graph: Graph, options: argparse.Namespace) -> tuple[Array, str]:
    golden = options.model.with_name("golden.npz")
    path = options.input or (golden if golden.exists() else None)
    if path is not None:
        return load_samples(path), str(path)
    tensor = graph.tensors[graph.inputs[0]]
    shape = (SYNTHETIC_SAMPLES, *tensor.shape)
    rng = np.random.default_rng(0)
    synthetic = rng.integers(-128, 128, shape, np.int8) if graph.is_quantized else rng.normal(size=shape)
    return synthetic.astype(tensor.dtype), "synthetic (seed 0)"


def _check_golden(graph: Graph, samples: Array, source: str) -> None:
    """Compare with the outputs y of the input file, where it has them: a wrong program's time is worth nothing."""
    try:
        expected = load_samples(Path(source), "y")
    except DataError:
        return
    tolerance = output_tolerance(graph)
    if len(samples) != len(expected) or count_differing(run_graph(graph, samples), expected, tolerance):
        same = f"the same within {tolerance:g} of the largest" if tolerance else "the same bits"
        raise DataError(f"{source}: the model's outputs differ from y, expected {same}: do not use this deployment")
    sys.stdout.write(f"golden outputs: {len(expected)} of {len(expected)} equal\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}") from error


def _summary(result: BenchResult, settings: BenchSettings, source: str) -> str:
    bits = [f"{state.throttled:#x}" for state in (result.before, result.after) if state.throttled is not None]
    latency = f"p50 {result.p50_ms:.4g} ms  p90 {result.p90_ms:.4g}  p99 {result.p99_ms:.4g}"
    protocol = f"({settings.windows} x {settings.window_seconds:g} s), first run {result.first_run_ms:.4g} ms"
    lines = [
        f"input     {source}, {result.samples} samples, CRC-32 {result.input_crc32}, output {result.output_crc32}",
        f"latency   {latency}  {protocol}",
        f"memory    peak RSS {result.peak_rss_bytes / 1e6:.1f} MB",
        f"throttled {' -> '.join(bits) if bits else 'not known on this machine'}",
        f"verdict   {result.verdict}",
        *(f"          {reason}" for reason in result.reasons),
    ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nettrim_runtime.bench", description="Measure a model on this machine.")
    parser.add_argument("model", type=Path, help="model.npz")
    parser.add_argument("--input", type=Path, help=".npz with x; default: golden.npz beside the model, else synthetic")
    parser.add_argument("--windows", type=int, default=BenchSettings.windows, help="number of windows (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=BenchSettings.window_seconds, help="least length (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
