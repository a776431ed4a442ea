"""Measuring a deployment without its board."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim.bench import BenchSettings, bench_bundle, bench_table
from nettrim.board_python import fetch_board_python
from nettrim.toolchain import ToolchainError
from nettrim_boards.board import load_board
from nettrim_exporters.c_header import render_c_header, render_c_kernels
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import DataError, ModelFileError
from nettrim_runtime.model_file import render_model
from tests.boards.need_tools import need_tools
from tests.graphs import quantized, random_cnn, random_inputs

HOST = load_board("host")
RPI4 = load_board("rpi4")
NUCLEO = load_board("nucleo-f446re")
SHORT = BenchSettings(windows=2, window_seconds=0.02, max_spread=1e9)  # a busy machine is no fault of the test


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    rng = np.random.default_rng(3)
    floats = random_cnn(rng, density=0.5)
    graph = quantized(floats, rng)
    x = graph.quantization(graph.inputs[0]).quantize(random_inputs(floats, rng, 4))
    y = run_graph(graph, x)
    (folder / "model.npz").write_bytes(render_model(graph))
    (folder / "model.h").write_text(render_c_header(graph, "Some_Net", golden=(x[0], y[0])))
    (folder / "nettrim_kernels.h").write_text(render_c_kernels())
    np.savez(folder / "golden.npz", x=x, y=y)
    return folder


def _left_out(result: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in result["left_out"]}


def _copy(bundle: Path, folder: Path, *, without: str) -> Path:
    for path in bundle.iterdir():
        if path.name != without:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.slow
def test_numpy_and_c_on_host_and_under_emulation_have_the_same_bits(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tools("cc", "aarch64-linux-gnu-gcc", "qemu-aarch64")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no Python of the board's there
    result = bench_bundle(bundle, RPI4, SHORT)
    assert [section["name"] for section in result["sections"]] == ["numpy on host", "c on host", "c on rpi4"]
    assert {section["output_crc32"] for section in result["sections"]} == {result["output_crc32"]}
    assert {section["input_crc32"] for section in result["sections"]} == {result["input_crc32"]}
    assert all(section["verdict"] == "VALID" for section in result["sections"])
    assert all(section["compiler"] for section in result["sections"])
    assert [(section["emulated"], section["unit"]) for section in result["sections"]] == [
        (False, "ms"),
        (False, "ms"),
        (True, "instructions"),
    ]
    assert "-mcpu=cortex-a72" in result["sections"][2]["flags"]
    assert json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_emulated_figure_is_the_same_in_every_run(bundle: Path) -> None:
    need_tools("cc", "aarch64-linux-gnu-gcc", "qemu-aarch64")
    figures = {bench_bundle(bundle, RPI4, SHORT)["sections"][2]["value"] for _ in range(2)}
    assert len(figures) == 1
    assert isinstance(figures.pop(), int)


@pytest.mark.slow
def test_numpy_runs_in_the_boards_own_python_with_the_same_bits(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tools("cc", "qemu-aarch64", "apt-get", "dpkg-deb")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "--fetch-python" in _left_out(bench_bundle(bundle, RPI4, SHORT))["numpy on rpi4"]
    fetch_board_python(RPI4)
    section = bench_bundle(bundle, RPI4, SHORT)["sections"][-1]
    assert section["name"] == "numpy on rpi4"
    assert (section["emulated"], section["exact"], section["unit"]) == (True, False, "instructions")
    assert section["verdict"] == "VALID"
    assert section["value"] > 100_000  # Python's own work on a network of a few layers
    assert re.fullmatch(r"Python 3\.\d+\.\d+, NumPy \d+\.\d+\.\d+", section["compiler"])
    assert sorted(path.name for path in (tmp_path / "nettrim").iterdir()) == ["python-aarch64-linux-gnu"]


def test_board_without_python_has_none_to_fetch() -> None:
    with pytest.raises(ToolchainError, match="has no Python to fetch"):
        fetch_board_python(NUCLEO)


@pytest.mark.slow
def test_other_bits_make_a_section_invalid(bundle: Path, tmp_path: Path) -> None:
    need_tools("cc")
    folder = _copy(bundle, tmp_path, without="")
    with np.load(bundle / "golden.npz") as golden:
        np.savez(folder / "golden.npz", x=golden["x"], y=golden["y"] ^ 1)
    result = bench_bundle(folder, HOST, SHORT)
    assert len(result["sections"]) == 2
    for section in result["sections"]:
        assert section["verdict"] == "INVALID"
        assert "output_crc32 is" in section["reasons"][0]


def test_missing_tools_are_left_out_with_their_packages(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = bench_bundle(bundle, RPI4, SHORT)
    assert [section["name"] for section in result["sections"]] == ["numpy on host"]
    reasons = _left_out(result)
    assert "apt install build-essential" in reasons["c on host"]
    assert "apt install gcc-aarch64-linux-gnu" in reasons["c on rpi4"]
    assert "python3 -m nettrim_runtime.bench" in reasons["numpy on rpi4"]


def test_microcontroller_says_that_it_is_measured_on_the_board(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = bench_bundle(bundle, NUCLEO, SHORT)
    assert "on the board only" in _left_out(result)["c on nucleo-f446re"]


@pytest.mark.parametrize(
    ("missing", "error"), [("model.h", ModelFileError), ("model.npz", ModelFileError), ("golden.npz", DataError)]
)
def test_folder_that_is_no_deployment_is_refused(
    missing: str, error: type[Exception], bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=missing):
        bench_bundle(_copy(bundle, tmp_path, without=missing), HOST, SHORT)


def test_header_of_another_tool_is_refused(bundle: Path, tmp_path: Path) -> None:
    folder = _copy(bundle, tmp_path, without="model.h")
    (folder / "model.h").write_text("int main(void);\n")
    with pytest.raises(ModelFileError, match=r"no function nt_<name>_run"):
        bench_bundle(folder, HOST, SHORT)


def test_table_has_a_row_a_section_and_one_a_section_left_out() -> None:
    timed = {"p90_ms": 1.5, "p99_ms": 2.0, "first_run_ms": 3.0, "reasons": [], "verdict": "VALID"}
    result = {
        "sections": [
            {"name": "numpy on host", "emulated": False, "unit": "ms", "value": 1.23456, **timed},
            {"name": "c on host", "emulated": False, "unit": "ms", "value": 0.5, **timed, "reasons": ["slow", "hot"]},
            {
                "name": "c on rpi4",
                "emulated": True,
                "unit": "instructions",
                "value": 1234567,
                "emulator": "qemu-aarch64 -cpu cortex-a72",
                "exact": True,
                "reasons": [],
                "verdict": "VALID",
            },
        ],
        "left_out": [{"name": "numpy on rpi4", "reason": "no Python"}],
    }
    rows = bench_table(result)
    assert [row["what"] for row in rows] == ["numpy on host", "c on host", "c on rpi4, emulated", "numpy on rpi4"]
    assert [row["result"] for row in rows] == ["1.235", "0.5", "1,234,567", "-"]
    assert rows[1]["remark"] == "slow; hot"
    assert rows[3] == {
        "what": "numpy on rpi4",
        "result": "-",
        "unit": "",
        "verdict": "left out",
        "remark": "no Python",
    }
