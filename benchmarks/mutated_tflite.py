"""Whether damaged .tflite files are refused by one sentence: no crash, no hang, no memory filled, no warning."""

import os
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.results_file import Figure, Results, Row, benchmark_parser, report_results
from benchmarks.tflite_mutations import mutated, original
from nettrim.importers.tflite_import import import_tflite
from nettrim_runtime.errors import GraphError, NettrimError

SEED = 0
FILES, QUICK_FILES = 100_000, 2_000
CHUNK = 250
TIME_LIMIT_S = 5.0
MEMORY_BYTES = 4 << 30  # of address space, of each process


class TimeUpError(BaseException):
    """An import that took longer than it may; nothing catches it by chance."""


@dataclass(frozen=True)
class Job:
    """Some mutations of one file, by their numbers."""

    path: Path
    first: int
    last: int


@dataclass(frozen=True)
class Outcome:
    """How they ended: counts by error class, "loaded", or "crash"; a sentence a crash; the slowest import."""

    name: str
    counts: Counter[str]
    crashes: tuple[str, ...]
    slowest_s: float


def main() -> int:
    """Mutate, import and count; returns the exit status."""
    options = benchmark_parser("mutated_tflite", __doc__).parse_args()
    paths = sorted((options.data / "models").glob("*.tflite")) if options.data else []
    if not paths:
        print("no .tflite files: give --data DIR with DIR/models/*.tflite", file=sys.stderr)
        return 6
    outcomes = run_jobs(make_jobs(paths, QUICK_FILES if options.quick else FILES))
    for crash in (crash for outcome in outcomes for crash in outcome.crashes):
        print(crash, file=sys.stderr)
    report_results(summary(outcomes), options)
    return 0


def make_jobs(paths: Sequence[Path], n_files: int) -> list[Job]:
    """Share the mutations evenly among the files."""
    each = -(-n_files // len(paths))
    return [Job(path, first, min(first + CHUNK, each)) for path in paths for first in range(0, each, CHUNK)]


def run_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """Run jobs on all cores; one that kills its process counts as a crash."""
    outcomes = []
    while jobs:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            futures = [pool.submit(run_job, job) for job in jobs]
            for number, future in enumerate(futures):
                try:
                    outcomes.append(future.result())
                except BrokenProcessPool:
                    text = f"{jobs[number]}: the process died"
                    outcomes.append(Outcome(jobs[number].path.name, Counter({"crash": 1}), (text,), 0.0))
                    jobs = jobs[number + 1 :]
                    break
            else:
                return outcomes
    return outcomes


def run_job(job: Job) -> Outcome:
    """Import each mutation of a job, warnings as errors and with little memory; the process is then as before."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, limits[1]))
        try:
            return _import_each(job)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def _import_each(job: Job) -> Outcome:
    source = original(job.path.name, job.path.read_bytes())
    counts, slowest = Counter[str](), 0.0
    crashes: list[str] = []
    for number in range(job.first, job.last):
        data = mutated(source, np.random.default_rng([SEED, len(source.data), number]))
        start = time.perf_counter()
        ending = import_ending(data)
        slowest = max(slowest, time.perf_counter() - start)
        counts[ending if ending in {"loaded", "ModelFileError", "UnsupportedOperatorError"} else "crash"] += 1
        if counts["crash"] > len(crashes):
            crashes.append(f"{source.name}, mutation {number}: {ending}")
    return Outcome(source.name, counts, tuple(crashes), slowest)


def import_ending(data: bytes) -> str:
    """Return "loaded", the class of a typed error, or what else an import ended with."""
    try:
        with _time_limit(TIME_LIMIT_S):
            import_tflite(data, "mutated.tflite", "mutated")
    except GraphError as error:  # reads as a bug of ours, so it counts as one
        return f"GraphError: {error}"
    except NettrimError as error:
        return type(error).__name__
    except TimeUpError:
        return f"longer than {TIME_LIMIT_S} s"
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what this looks for
        return f"{type(error).__name__}: {error}"
    return "loaded"


def summary(outcomes: Sequence[Outcome]) -> Results:
    """Return the figures, and a row a file."""
    rows = [_row(name, [outcome for outcome in outcomes if outcome.name == name]) for name in _names(outcomes)]
    total = sum((outcome.counts for outcome in outcomes), Counter[str]())
    figures = {
        "mutated_files": Figure(float(total.total()), "files", "higher"),
        "mutated_crashes": Figure(float(total["crash"]), "files", "lower", goal=0.0),
        "mutated_slowest_import": Figure(max(outcome.slowest_s for outcome in outcomes), "s", "lower"),
    }
    return Results(figures, rows)


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(outcome.name for outcome in outcomes))


def _row(name: str, outcomes: Sequence[Outcome]) -> Row:
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    return {
        "file": name,
        "mutations": counts.total(),
        "refused as damaged": counts["ModelFileError"],
        "refused as unsupported": counts["UnsupportedOperatorError"],
        "loaded": counts["loaded"],
        "crashes": counts["crash"],
        "slowest_s": max(outcome.slowest_s for outcome in outcomes),
    }


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeUpError

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
