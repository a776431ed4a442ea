"""Deployments that compute in floats: --precision hybrid and float32."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nettrim.bench import BenchSettings, bench_bundle
from nettrim_boards.board import load_board
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.model_file import load_model
from tests.graphs import GraphBuilder
from tests.nettrim.test_deploy import deploy, digits, hashes  # noqa: F401  # two of them fixtures

Deploy = Callable[..., int]
SHORT = BenchSettings(windows=2, window_seconds=0.02, max_spread=1e9)


@pytest.mark.parametrize("precision", ["hybrid", "float32"])
def test_a_network_is_deployed_in_floats_and_verified(
    precision: str,
    deploy: Deploy,  # noqa: F811
    digits: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (digits / "model.pt", "--test-data", digits / "test.npz", "--sparsity", 0.5, "--precision", precision)
    assert deploy("--target", "rpi4", *arguments) == 0
    said, folder = capsys.readouterr().out, tmp_path / "model-rpi4"
    assert f"deployed ({precision})" in said
    assert "verified: model.tflite by LiteRT: 32 samples, all within" in said
    report = json.loads((folder / "report.json").read_text())
    assert (report["precision"], report["totals"]["flash_bytes"]) == (precision, None)
    assert {check["by"] for check in report["verification"]} >= {"NumPy runtime", "LiteRT reference kernels", "LiteRT"}
    assert ("nettrim, read back" in said) == (precision == "float32")
    assert not (folder / "model.h").exists()
    assert not (folder / "bench").exists()
    assert "model.h" not in (folder / "README.md").read_text()
    with np.load(folder / "golden.npz") as golden:
        assert golden["y"].dtype == np.float32
        np.testing.assert_allclose(run_graph(load_model(folder / "model.npz"), golden["x"]), golden["y"], atol=1e-4)
    weight = 1 if precision == "hybrid" else 4
    assert report["totals"]["dense_bytes"] == weight * (64 * 32 + 32 * 10) + 4 * (32 + 10)
    certificate = json.loads((folder / "certificate.json").read_text())
    assert "int8 network" not in certificate["response"]["statement"]
    bounds = [certificate["response"][f"output_bound_{name}"] for name in ("pruned", "deployed")]
    assert bounds[1] == pytest.approx(bounds[0]) if precision == "float32" else bounds[1] > bounds[0]


@pytest.mark.parametrize("precision", ["hybrid", "float32"])
def test_a_drop_is_looked_for_in_floats(
    precision: str,
    deploy: Deploy,  # noqa: F811
    digits: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    assert deploy("--target", "host", digits / "model.pt", "--max-drop", 0.2, "--precision", precision) == 0
    report = json.loads((tmp_path / "model-host" / "report.json").read_text())
    assert report["goal"]["drop"] <= 0.2
    assert report["totals"]["sparsity"] > 0.5


def test_a_drop_is_reported_in_what_the_goal_counts(deploy: Deploy, tmp_path: Path) -> None:  # noqa: F811
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (5, 6, 2))
    builder.conv(3, (1, 1), density=0.5)
    graph = builder.build()
    weight = graph.tensors[graph.layers[0].weight]
    small = weight.values() + np.float32(1e-3) * (weight.values() == 0)  # what may go
    (tmp_path / "images.tflite").write_bytes(render_tflite(graph.with_tensors([replace(weight, data=small)])))
    x = rng.normal(size=(80, 5, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "images.calibration.npz", x=x, y=rng.integers(0, 90, 80))
    assert deploy("--target", "host", tmp_path / "images.tflite", "--precision", "float32") == 0
    report = json.loads((tmp_path / "images-host" / "report.json").read_text())
    error = report["agreement"]["relative_output_error"]
    assert report["goal"]["measure"] == "output error"
    assert 0 < report["goal"]["drop"] == error


def test_an_error_of_outputs_that_are_no_classes_is_in_the_page(deploy: Deploy, tmp_path: Path) -> None:  # noqa: F811
    builder = GraphBuilder(np.random.default_rng(0), (8,))
    builder.dense(1)
    (tmp_path / "one.tflite").write_bytes(render_tflite(builder.build()))
    assert deploy("--target", "host", tmp_path / "one.tflite", "--sparsity", 0.5, "--precision", "hybrid") == 0
    report = json.loads((tmp_path / "one-host" / "report.json").read_text())
    page = (tmp_path / "one-host" / "report.html").read_text()
    assert f"{report['agreement']['relative_output_error']:.2%} of the output's norm" in page
    assert "agreement" not in page


def test_two_runs_in_floats_give_the_same_bytes(deploy: Deploy, digits: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("first", "second"):
        arguments = ("--sparsity", 0.9, "--precision", "float32", "--output", name)
        assert deploy("--target", "rpi4", digits / "model.pt", *arguments) == 0
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_blocks_of_4_floats_give_a_second_tflite_file(
    deploy: Deploy,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(640, 24), torch.nn.ReLU(), torch.nn.Linear(24, 4))
    torch.save(network.state_dict(), tmp_path / "wide.pt")
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).random((60, 640), np.float32))
    arguments = ("--structure", "1x4", "--sparsity", 0.95, "--precision", "float32")
    assert deploy("--target", "rpi4", tmp_path / "wide.pt", *arguments) == 0
    assert "model.sparse.tflite: layer 0 in blocks of 1x4; the same network as model.tflite" in capsys.readouterr().out
    report = json.loads((tmp_path / "wide-rpi4" / "report.json").read_text())
    checks = {(check["artifact"], check["by"]) for check in report["verification"]}
    assert {
        ("model.sparse.tflite", by) for by in ("nettrim, read back", "LiteRT reference kernels", "LiteRT")
    } <= checks
    sizes = [(tmp_path / "wide-rpi4" / name).stat().st_size for name in ("model.sparse.tflite", "model.tflite")]
    assert sizes[0] < sizes[1] / 4


def test_microcontrollers_compute_in_integers(
    deploy: Deploy,  # noqa: F811
    digits: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert deploy("--target", "nucleo-f446re", digits / "model.pt", "--precision", "float32") == 2
    assert "--precision float32 needs an operating system" in capsys.readouterr().err


def test_a_deployment_in_floats_is_measured(
    deploy: Deploy,  # noqa: F811
    digits: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert deploy("--target", "host", digits / "model.pt", "--sparsity", 0.5, "--precision", "float32") == 0
    folder = tmp_path / "model-host"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = bench_bundle(folder, load_board("host"), SHORT)
    assert {section["name"]: section["verdict"] for section in result["sections"]}["numpy on host"] == "VALID"
    assert "C is written for int8" in {entry["name"]: entry["reason"] for entry in result["left_out"]}["c"]
    command = [sys.executable, "-m", "nettrim_runtime.bench", "model.npz", "--windows", "1", "--seconds", "0.01"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": "runtime"}, capture_output=True, text=True, check=False
    )
    assert "golden outputs: 32 of 32 equal" in done.stdout
    with np.load(folder / "golden.npz") as golden:
        x, y = golden["x"], golden["y"]
    y[0] += 1
    np.savez(folder / "golden.npz", x=x, y=y)
    sections = bench_bundle(folder, load_board("host"), SHORT)["sections"]
    assert "1 of 32 outputs lie further from golden.npz than 0.0001 of the largest" in sections[0]["reasons"]
