"""The measuring loop of the NumPy runtime."""

import json
import math
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from nettrim_runtime.bench import (
    BenchSettings,
    BoardState,
    bench_graph,
    crc32_text,
    judge,
    load_samples,
    main,
    peak_memory,
    read_board_state,
)
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Graph
from nettrim_runtime.model_file import load_model, render_model
from tests.graphs import quantized, random_mlp

SHORT = BenchSettings(windows=3, window_seconds=0.01, max_spread=math.inf)  # a busy machine is no fault of the test
CALM = BoardState(clock_hz=None, temperature_c=None, throttled=0)


def _model() -> tuple[Graph, np.ndarray]:
    rng = np.random.default_rng(0)
    graph = quantized(random_mlp(rng), rng)
    shape = graph.tensors[graph.inputs[0]].shape
    return graph, rng.integers(-128, 128, (5, *shape), np.int8)


def _throttled(bits: int) -> BoardState:
    return BoardState(clock_hz=None, temperature_c=None, throttled=bits)


def test_result_holds_every_window_and_their_medians() -> None:
    graph, samples = _model()
    result = bench_graph(graph, samples, SHORT)
    assert len(result.windows) == 3
    for window in result.windows:
        assert window.seconds >= 0.01
        assert window.runs >= 1
        assert 0 < window.min_ms <= window.p50_ms <= window.p90_ms <= window.p99_ms
    assert result.p50_ms == sorted(window.p50_ms for window in result.windows)[1]
    assert result.first_run_ms > 0
    assert result.peak_rss_bytes > 1 << 20
    assert (result.verdict, result.reasons) == ("VALID", ())


def test_checksums_are_those_of_the_reference_run() -> None:
    graph, samples = _model()
    result = bench_graph(graph, samples, SHORT)
    assert int(result.input_crc32, 16) == zlib.crc32(samples.tobytes())
    assert result.output_crc32 == crc32_text(run_graph(graph, samples))


def test_result_is_json_with_a_schema_version() -> None:
    graph, samples = _model()
    result = bench_graph(graph, samples, SHORT)
    read_back = json.loads(result.to_json())
    assert read_back["schema_version"] == 1
    assert read_back["windows"][0]["p50_ms"] == result.windows[0].p50_ms
    assert read_back["verdict"] == "VALID"


def test_samples_that_do_not_fit_are_refused() -> None:
    graph, samples = _model()
    for wrong in (samples[:0], samples[:, :-1], samples.astype(np.float32), samples[0, 0]):
        with pytest.raises(DataError, match=r"samples have shape .* expected \(n, "):
            bench_graph(graph, wrong, SHORT)


@pytest.mark.parametrize(
    "wrong", [{"windows": 0}, {"window_seconds": 0.0}, {"window_seconds": math.nan}, {"warm_up_runs": -1}]
)
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"expected (at least one|a positive length|0 runs or more)"):
        BenchSettings(**wrong)


def test_windows_that_disagree_make_the_run_invalid() -> None:
    settings = BenchSettings(max_spread=0.1)
    assert judge([1.0, 1.05, 1.09], CALM, CALM, settings) == ("VALID", ())
    verdict, reasons = judge([1.0, 1.05, 1.2], CALM, CALM, settings)
    assert verdict == "INVALID"
    assert reasons == ("unstable: the windows' medians differ by 19.0%, expected at most 10%",)


@pytest.mark.parametrize(
    ("before", "after", "meaning"),
    [
        (0x0, 0x1, "under-voltage"),
        (0x2, 0x0, "clock capped"),
        (0x0, 0x40000, "throttled"),
        (0x50005, 0xD000D, "soft temperature limit"),
    ],
)
def test_board_that_was_slowed_down_makes_the_run_invalid(before: int, after: int, meaning: str) -> None:
    verdict, reasons = judge([1.0], _throttled(before), _throttled(after), BenchSettings())
    assert verdict == "INVALID"
    assert any(reason.startswith(meaning) for reason in reasons)


def test_throttling_that_was_over_before_the_run_does_not_count() -> None:
    assert judge([1.0], _throttled(0x50000), _throttled(0x50000), BenchSettings()) == ("VALID", ())
    unknown = BoardState(clock_hz=None, temperature_c=None, throttled=None)
    assert judge([1.0], unknown, unknown, BenchSettings()) == ("VALID", ())


def _write_sys(root: Path, path: str, text: str) -> None:
    file = root / "sys" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)


def test_board_state_is_read_in_hertz_and_degrees(tmp_path: Path) -> None:
    _write_sys(tmp_path, "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n")
    _write_sys(tmp_path, "class/thermal/thermal_zone0/temp", "48686\n")
    _write_sys(tmp_path, "devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    assert read_board_state(tmp_path) == BoardState(clock_hz=1_500_000_000, temperature_c=48.686, throttled=0x50005)


def test_board_state_asks_vcgencmd_where_sys_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vcgencmd"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_board_state(tmp_path) == BoardState(clock_hz=None, temperature_c=None, throttled=None)
    for script, expected in (("echo throttled=0x50000", 0x50000), ("echo nonsense", None), ("exit 1", None)):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert read_board_state(tmp_path).throttled == expected


def _write_model(folder: Path) -> Path:
    graph, samples = _model()
    path = folder / "model.npz"
    path.write_bytes(render_model(graph))
    np.savez(folder / "golden.npz", x=samples)
    return path


def test_command_measures_the_golden_samples_beside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _write_model(tmp_path)
    status = main([str(model), "--windows", "1", "--seconds", "0.01", "--json", str(tmp_path / "bench.json")])
    assert status == 0
    assert str(tmp_path / "golden.npz") in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["samples"] == 5


def test_command_without_samples_measures_synthetic_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _write_model(tmp_path)
    (tmp_path / "golden.npz").unlink()
    assert main([str(model), "--windows", "1", "--seconds", "0.01"]) == 0
    assert "synthetic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (["absent.npz"], "no such file"),
        (["model.npz", "--input", "absent.npz"], "absent.npz: cannot be read"),
        (["model.npz", "--input", "model.npz"], "with an array x"),
        (["model.npz", "--input", "text.npz"], "text.npz: cannot be read"),
        (["model.npz", "--input", "array.npy"], "array.npy: holds one bare array"),
        (["model.npz", "--windows", "0"], "0 windows of measurement, expected at least one"),
        (["model.npz", "--windows", "1", "--seconds", "0.01", "--json", "no/folder.json"], "cannot be written"),
    ],
)
def test_users_mistake_is_one_line_and_exit_status_2(
    arguments: list[str],
    finding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _write_model(tmp_path)
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "array.npy", np.zeros(3, np.int8))
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert finding in stderr
    assert stderr.count("\n") == 1


def test_golden_outputs_are_compared_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    x = load_samples(tmp_path / "golden.npz")
    y = run_graph(load_model(tmp_path / "model.npz"), x)
    short = ["model.npz", "--windows", "1", "--seconds", "0.01", "--input"]
    np.savez("right.npz", x=x, y=y)
    main([*short, "right.npz"])
    assert f"golden outputs: {len(y)} of {len(y)} equal" in capsys.readouterr().out
    np.savez("wrong.npz", x=x, y=y + 1)
    assert main([*short, "wrong.npz"]) == 2
    assert "the model's outputs differ from y" in capsys.readouterr().err


def test_truncated_samples_are_a_data_error(tmp_path: Path) -> None:
    _write_model(tmp_path)
    whole = (tmp_path / "golden.npz").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.npz"):
            load_samples(tmp_path / "cut.npz")


@pytest.mark.slow
def test_module_runs_from_the_command_line(tmp_path: Path) -> None:
    model = _write_model(tmp_path)
    command = [sys.executable, "-m", "nettrim_runtime.bench", model, "--windows", "1", "--seconds", "0.01"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "verdict   VALID" in finished.stdout


def test_peak_memory_of_a_process_is_not_that_of_its_parent() -> None:
    ballast = np.ones(3 * 10**7)  # 240 MB here
    script = "from nettrim_runtime.bench import peak_memory; print(peak_memory())"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert peak_memory() - int(finished.stdout) > ballast.nbytes // 2
