"""Measure a deployment: NumPy and C on this machine, C under the board's emulator, all with the same bits."""

import json
import platform
import re
import statistics
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nettrim_runtime
from nettrim.board_python import find_board_python
from nettrim.toolchain import (
    MissingToolError,
    ToolchainError,
    build_flags,
    compile_bench,
    compiler_version,
    count_instructions,
    run_binary,
)
from nettrim_boards.board import Board, load_board
from nettrim_runtime.bench import (
    SCHEMA_VERSION,
    Array,
    BenchSettings,
    bench_graph,
    crc32_text,
    judge,
    load_samples,
)
from nettrim_runtime.board_state import read_board_state
from nettrim_runtime.compare import count_differing, output_tolerance
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.model_file import load_model

__all__ = ["BenchSettings", "bench_bundle", "bench_table"]

NS_PER_MS = 1_000_000
TIME_LIMIT_SLACK_S = 300.0  # for the first runs, and a machine that does other things
RUNTIME_FOLDER = Path(nettrim_runtime.__file__).parents[1]
RUN_FUNCTION = re.compile(r"\bint nt_(\w+)_run\(")

Section = dict[str, Any]


def bench_bundle(folder: Path, board: Board, settings: BenchSettings) -> dict[str, Any]:
    """Measure everything that can be measured without the board.

    Parameters
    ----------
    folder : Path
        A deployment: model.npz, model.h, nettrim_kernels.h and golden.npz (x, y: int8 (n_samples, ...)).
    board : Board
        The deployment's target.
    settings : BenchSettings
        The protocol of the timed sections.

    Returns
    -------
    dict
        Ready for JSON: ``sections``, each with ``unit`` and ``value`` (the median latency, or in emulation the
        instructions a run), compiler, flags, checksums and verdict; ``left_out``, each with its reason.

    Raises
    ------
    ModelFileError, DataError
        When the folder is no whole deployment.
    ToolchainError
        When a compiler that is installed fails.
    """
    bundle = _read_bundle(folder)
    steps: dict[str, Callable[[], Section]] = {"numpy on host": lambda: _numpy_section(bundle, settings)}
    if not bundle.tolerance:
        steps["c on host"] = lambda: _host_section(bundle, settings)
    if board.os == "linux" and not bundle.tolerance:
        steps[f"c on {board.name}"] = lambda: _emulated_section(bundle, board)
    if board.os == "linux":
        steps[f"numpy on {board.name}"] = lambda: _emulated_numpy_section(bundle, board)
    sections, left_out = [], _never_measured(bundle, board)
    for name, step in steps.items():
        try:
            sections.append({"name": name, **_with_checked_bits(step(), bundle)})
        except MissingToolError as error:
            left_out[name] = str(error)
    return {
        "schema_version": SCHEMA_VERSION,
        "board": board.name,
        "model": bundle.name,
        "machine": f"{platform.machine()} {platform.system()}",
        "samples": len(bundle.x),
        "input_crc32": crc32_text(bundle.x),
        "output_crc32": crc32_text(bundle.y),
        "settings": asdict(settings),
        "sections": sections,
        "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
    }


def bench_table(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row a section, in texts: what, result, unit, verdict and remark (spread, or why it is left out)."""
    rows = [
        {
            "what": section["name"] + (", emulated" if section["emulated"] else ""),
            "result": f"{section['value']:,}" if section["emulated"] else f"{section['value']:.4g}",
            "unit": section["unit"],
            "verdict": section["verdict"],
            "remark": "; ".join(section["reasons"]) or _remark(section),
        }
        for section in result["sections"]
    ]
    return rows + [
        {"what": entry["name"], "result": "-", "unit": "", "verdict": "left out", "remark": entry["reason"]}
        for entry in result["left_out"]
    ]


@dataclass(frozen=True, eq=False)
class _Bundle:
    """What of a deployment is measured: golden inputs ``x`` and outputs ``y``, (n_samples, ...), of its network.

    A network of floats has no C program, and outputs differ by ``tolerance`` of the largest.
    """

    folder: Path
    name: str
    x: Array
    y: Array
    tolerance: float = 0.0


def _read_bundle(folder: Path) -> _Bundle:
    golden = folder / "golden.npz"
    x, y = load_samples(golden, "x"), load_samples(golden, "y")
    if y.dtype == np.float32:
        graph = load_model(folder / "model.npz")
        return _Bundle(folder, graph.name, x, y, output_tolerance(graph))
    return _Bundle(folder, _c_name(folder / "model.h"), x, y)


def _c_name(header: Path) -> str:
    try:
        match = RUN_FUNCTION.search(header.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{header}: cannot be read: {error}; expected a folder that nettrim-deploy wrote"
        ) from error
    if match is None:
        raise ModelFileError(f"{header}: no function nt_<name>_run, expected a header that nettrim wrote")
    return match.group(1)


def _never_measured(bundle: _Bundle, board: Board) -> dict[str, str]:
    if bundle.tolerance:
        return {"c": "there is no model.h: C is written for int8, and this network computes in floats"}
    if board.os == "none":
        return {f"c on {board.name}": "measured on the board only: there is no operating system to emulate"}
    return {}


def _with_checked_bits(section: Section, bundle: _Bundle) -> Section:
    reasons = list(section.pop("reasons"))
    exact = {"input_crc32": bundle.x} if bundle.tolerance else {"input_crc32": bundle.x, "output_crc32": bundle.y}
    for key, values in exact.items():
        if section[key] != crc32_text(values):
            reasons.append(f"{key} is {section[key]}, expected {crc32_text(values)} as in golden.npz: other bits")
    return {**section, "verdict": "INVALID" if reasons else "VALID", "reasons": reasons}


def _numpy_section(bundle: _Bundle, settings: BenchSettings) -> Section:
    graph = load_model(bundle.folder / "model.npz")
    measured = asdict(bench_graph(graph, bundle.x, settings))
    measured["reasons"] = (*measured["reasons"], *_far_outputs(bundle, run_graph(graph, bundle.x)))
    compiler = f"Python {measured.pop('python')}, NumPy {measured.pop('numpy')}"
    return {"emulated": False, "unit": "ms", "value": measured["p50_ms"], "compiler": compiler, "flags": [], **measured}


def _host_section(bundle: _Bundle, settings: BenchSettings) -> Section:
    host = load_board("host")
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        program = compile_bench(host, bundle.folder, bundle.name, Path(scratch, "bench"))
        samples = Path(scratch, "input.bin")
        samples.write_bytes(bundle.x.tobytes())
        time_limit_s = 2 * settings.windows * settings.window_seconds + TIME_LIMIT_SLACK_S
        before = read_board_state()
        args: list[str | Path] = ["time", str(settings.window_seconds), samples, str(settings.windows)]
        finished = run_binary(host, program, args, time_limit_s)
        after = read_board_state()
    if finished.returncode != 0:
        raise ToolchainError(f"the benchmark program failed (status {finished.returncode}): {finished.stderr.strip()}")
    timing = _parse_timing(finished.stdout)
    _, reasons = judge([window["p50_ms"] for window in timing["windows"]], before, after, settings)
    states = {"before": asdict(before), "after": asdict(after), "reasons": reasons}
    return {"emulated": False, "unit": "ms", "value": timing["p50_ms"], **_compiler(host), **timing, **states}


def _emulated_section(bundle: _Bundle, board: Board) -> Section:
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        program = compile_bench(board, bundle.folder, bundle.name, Path(scratch, "bench"))
        samples, results = Path(scratch, "input.bin"), Path(scratch, "output.bin")
        samples.write_bytes(bundle.x.tobytes())
        counted = count_instructions(board, program, ["run", samples, results])
        output = results.read_bytes()
    return {**_emulated(bundle, board, counted.instructions, output), **_compiler(board), "exact": True}


def _emulated_numpy_section(bundle: _Bundle, board: Board) -> Section:
    python = find_board_python(board)
    options = python.emulator_options(RUNTIME_FOLDER)
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        results = Path(scratch, "output.bin")
        args: list[str | Path] = ["-m", "nettrim_runtime.count"]
        args += [bundle.folder / "model.npz", bundle.folder / "golden.npz", results]
        counted = count_instructions(board, python.program, args, options)
        output = results.read_bytes()
    return {
        **_emulated(bundle, board, counted.instructions, output),
        "reasons": _far_outputs(bundle, np.frombuffer(output, bundle.y.dtype).reshape(-1, *bundle.y.shape[1:])),
        "compiler": counted.stdout.strip(),
        "flags": [],
        "exact": False,  # memory addresses change what Python's dictionaries do
    }


def _emulated(bundle: _Bundle, board: Board, instructions: int, output: bytes) -> Section:
    return {
        "emulated": True,
        "unit": "instructions",
        "value": instructions,
        "emulator": " ".join([board.emulator or "", *board.emulator_options]),
        "input_crc32": crc32_text(bundle.x),
        "output_crc32": f"{zlib.crc32(output):08x}",
        "reasons": (),
    }


def _far_outputs(bundle: _Bundle, outputs: Array) -> tuple[str, ...]:
    """Return what is wrong with outputs in floats; integers are compared by their checksum."""
    differing = count_differing(outputs, bundle.y, bundle.tolerance) if bundle.tolerance else 0
    reason = (
        f"{differing} of {len(bundle.y)} outputs lie further from golden.npz than {bundle.tolerance:g} of the largest"
    )
    return (reason,) if differing else ()


def _parse_timing(text: str) -> dict[str, Any]:
    """Return the JSON lines of ``bench time`` with the keys of the NumPy measurement."""
    events = [json.loads(line) for line in text.splitlines()]
    named = {event["event"]: event for event in events}
    windows = [
        {
            "runs": event["runs"],
            "seconds": event["seconds"],
            **{f"{share}_ms": event[f"{share}_ns"] / NS_PER_MS for share in ("min", "p50", "p90", "p99")},
        }
        for event in events
        if event["event"] == "window"
    ]
    medians = {key: statistics.median(window[key] for window in windows) for key in ("p50_ms", "p90_ms", "p99_ms")}
    return {
        "samples": named["result"]["samples"],
        "first_run_ms": named["first_run"]["latency_ns"] / NS_PER_MS,
        "warm_up_runs": named["warm_up"]["runs"],
        "windows": windows,
        **medians,
        "peak_rss_bytes": named["memory"]["peak_rss_bytes"],
        "input_crc32": named["result"]["input_crc32"],
        "output_crc32": named["result"]["output_crc32"],
    }


def _compiler(board: Board) -> Section:
    return {"compiler": compiler_version(board), "flags": list(build_flags(board))}


def _remark(section: Mapping[str, Any]) -> str:
    if section["emulated"]:
        return f"{'exact' if section['exact'] else 'repeats within 0.1 %'}; {section['emulator']}"
    return f"p90 {section['p90_ms']:.4g}, p99 {section['p99_ms']:.4g}, first run {section['first_run_ms']:.4g}"
