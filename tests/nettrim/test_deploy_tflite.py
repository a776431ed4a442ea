"""A .tflite file to a deployment: an int8 one as it is, or pruned and quantised again, a float one as any network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nettrim.importers import load_model
from nettrim.own_integers import dequantized
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.model_file import load_model as load_deployed
from tests.graphs import quantized, random_cnn, random_inputs, random_mlp
from tests.nettrim.test_deploy import deploy  # noqa: F401  # a fixture
from tests.nettrim.tflite_models import run_litert
from tests.shared_data import shared_data

Deploy = Callable[..., int]


def int8_network(folder: Path) -> tuple[Path, Graph]:
    rng = np.random.default_rng(0)
    graph = quantized(random_mlp(rng), rng)
    path = folder / "net.tflite"
    path.write_bytes(render_tflite(graph))
    return path, graph


def test_a_quantised_file_is_deployed_as_it_is(
    deploy: Deploy,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, graph = int8_network(tmp_path)
    assert deploy("--target", "host", path) == 0
    report = json.loads((tmp_path / "net-host" / "report.json").read_text())
    assert report["goal"]["as_in_file"]
    assert any("deployed as it is" in note for note in report["model"]["notes"])
    said = capsys.readouterr().out
    assert "agreement with the floats that the file's integers stand for" in said
    assert "by proof" not in said
    assert {layer["status"] for layer in report["layers"]} == {"as in the file"}
    samples = random_inputs(graph, np.random.default_rng(1), 50)
    expected = run_litert(path.read_bytes(), samples)
    np.testing.assert_array_equal(run_graph(load_deployed(tmp_path / "net-host" / "model.npz"), samples), expected)
    written = (tmp_path / "net-host" / "model.tflite").read_bytes()
    np.testing.assert_array_equal(run_litert(written, samples), expected)


@pytest.mark.parametrize("by_search", [True, False])
def test_with_a_goal_a_quantised_file_is_pruned_and_quantised_again_behind_the_same_input(
    deploy: Deploy,  # noqa: F811
    tmp_path: Path,
    by_search: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, graph = int8_network(tmp_path)
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(2).normal(size=(300, 20)).astype(np.float32))
    goal = ("--max-drop", "0.5") if by_search else ("--sparsity", "0.5")
    assert deploy("--target", "host", path, "--data", tmp_path / "data.npz", *goal) == 0
    deployed = load_deployed(tmp_path / "net-host" / "model.npz")
    assert deployed.quantization(deployed.inputs[0]).same_as(graph.quantization(graph.inputs[0]))
    report = json.loads((tmp_path / "net-host" / "report.json").read_text())
    assert not report["goal"]["as_in_file"]
    assert report["totals"]["sparsity"] >= 0.5
    assert "the file's integers became the values that they stand for" in capsys.readouterr().out


def test_a_float_file_is_deployed_as_any_network(deploy: Deploy, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "net.tflite"
    path.write_bytes(render_tflite(random_mlp(np.random.default_rng(0))))
    assert deploy("--target", "host", path) == 0
    report = json.loads((tmp_path / "net-host" / "report.json").read_text())
    assert (report["model"]["format"], report["goal"]["as_in_file"]) == ("TensorFlow Lite", False)


def test_the_floats_of_a_quantised_graph_are_those_of_its_import(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graph = quantized(random_cnn(rng), rng)
    path = tmp_path / "net.tflite"
    path.write_bytes(render_tflite(graph))
    model = load_model(path)
    assert model.quantized is not None
    floats = dequantized(model.quantized)
    samples = random_inputs(floats, rng, 20)
    np.testing.assert_allclose(run_graph(floats, samples), run_graph(model.graph, samples), atol=1e-6)  # float32 sums


@pytest.mark.parametrize("goal", [(), ("--sparsity", "0")])
def test_integers_of_the_files_own_type_are_not_quantised_a_second_time(
    deploy: Deploy,  # noqa: F811
    tmp_path: Path,
    goal: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, graph = int8_network(tmp_path)
    integers = random_inputs(graph, np.random.default_rng(4), 300)
    answers = run_litert(path.read_bytes(), integers).argmax(axis=1)
    real = graph.quantization(graph.inputs[0]).dequantize(integers)
    reports = []
    for name, x in (("integers", integers), ("real", real)):
        np.savez(tmp_path / f"{name}.npz", x=x, y=answers)
        data = ("--data", tmp_path / f"{name}.npz", "--test-data", tmp_path / f"{name}.npz")
        assert deploy("--target", "host", path, *data, *goal, "--output", name) == 0
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        told = f"note: {name}.npz: x is int8 as the model's input is" in capsys.readouterr().err
        assert told == (name == "integers") == bool(reports[-1]["data"]["notes"])
    own, values = reports
    assert own["agreement"] == values["agreement"]
    assert own["accuracy"]["deployed"] == values["accuracy"]["deployed"]
    assert goal or own["accuracy"]["deployed"] == 1


@pytest.mark.slow
def test_the_int8_samples_of_a_public_network_give_its_accuracy(deploy: Deploy, tmp_path: Path) -> None:  # noqa: F811
    model, data = shared_data("models/mlperf_kws_int8.tflite"), shared_data("kws01_test.npz")
    assert deploy("--target", "host", model, "--test-data", data, "--output", "kws") == 0
    report = json.loads((tmp_path / "kws" / "report.json").read_text())
    assert (report["accuracy"]["samples"], report["accuracy"]["deployed"]) == (1000, 0.901)
    assert not report["data"]["synthetic"]  # agreement is that on the test samples: nothing was fitted to them
    assert report["agreement"]["samples"] == 1000
    assert report["agreement"]["deployed"] > 0.98


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("mlperf_kws_int8", "int8"),
        ("mlperf_kws_float32", None),
        ("tinyengine_lenet-300-100_q", None),
        ("hello_world_int8", "int8"),
    ],
)
def test_only_integer_inputs_take_integers(name: str, dtype: str | None) -> None:
    found = load_model(shared_data(f"models/{name}.tflite")).input_integers
    assert (found and found.dtype) == dtype
