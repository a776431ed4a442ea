"""What random samples never need stays: no output becomes a constant, no silent neuron is lost."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nettrim.activations import RELU
from nettrim.importers import load_model
from nettrim.layer_problem import build_problem, distance
from nettrim.layer_search import solve_to_epsilon
from nettrim.prune import PruneSettings, prune
from nettrim.unseen_weights import target_variation, with_unseen_weights
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.model_file import load_model as load_deployed
from tests.graphs import RELU as FUSED_RELU
from tests.graphs import GraphBuilder
from tests.nettrim.test_deploy import Deploy, deploy  # noqa: F401  # a fixture
from tests.shared_data import shared_data


def _offset_network(rng: np.random.Generator) -> Graph:
    """Return a network whose outputs hardly vary beside their biases, and half of whose hidden neurons are silent."""
    builder = GraphBuilder(rng, (20,))
    builder.dense(16, FUSED_RELU)
    builder.dense(20)
    graph = builder.build()
    first, second = (graph.tensors[layer.bias] for layer in graph.layers)
    silent = np.where(np.arange(16) % 2, np.float32(-100), first.values())
    return graph.with_tensors([replace(first, data=silent), replace(second, data=second.values() + np.float32(1000))])


def _variation(values: Array) -> float:
    return float(np.linalg.norm(values - values.mean(axis=0, dtype=np.float64)))


def test_outputs_follow_the_inputs_however_large_the_biases_are() -> None:
    rng = np.random.default_rng(0)
    graph = _offset_network(rng)
    samples = rng.standard_normal((400, 20)).astype(np.float32)
    wanted = run_graph(graph, samples)
    found = {}
    for cautious in (True, False):
        settings = PruneSettings(relative_epsilon=0.02, cautious=cautious)
        found[cautious] = run_graph(prune(graph, samples, settings, np.random.default_rng(1)).graph, samples)
    assert np.linalg.norm(found[True] - wanted) < 0.1 * _variation(wanted)
    assert (found[True].std(axis=0) > 0).all()
    assert not np.ptp(found[False], axis=0).any()  # a constant is within 2 % of such a norm


def test_neurons_that_random_samples_leave_silent_speak_on_others() -> None:
    rng = np.random.default_rng(0)
    graph = _offset_network(rng)
    samples = rng.standard_normal((400, 20)).astype(np.float32)
    settings = PruneSettings(relative_epsilon=0.02, cautious=True)
    pruned = prune(graph, samples, settings, np.random.default_rng(1)).graph
    first, second = graph.layers
    for name in (first.weight, first.bias):
        np.testing.assert_array_equal(pruned.tensors[name].values()[1::2], graph.tensors[name].values()[1::2])
    silent = graph.tensors[second.weight].values()[:, 1::2]
    np.testing.assert_array_equal(pruned.tensors[second.weight].values()[:, 1::2], silent)
    loud = 100 * samples
    wanted, found = run_graph(graph, loud), run_graph(pruned, loud)
    assert np.linalg.norm(found - wanted) < 0.1 * _variation(wanted)


def test_what_is_restored_is_measured_again() -> None:
    rng = np.random.default_rng(2)
    X, W = rng.normal(size=(12, 300)).astype(np.float32), rng.normal(size=(12, 6)).astype(np.float32)
    X[3] = 0
    bias = np.array([0, 0, -100, 0, 0, 0], np.float32)
    problem = build_problem(X, W, bias, RELU, relative_epsilon=0.1)
    solution = solve_to_epsilon(problem)
    whole = with_unseen_weights(problem, solution)
    assert not solution.W[:, 2].any()
    assert not solution.W[3].any()
    np.testing.assert_array_equal(whole.W[:, 2], W[:, 2])
    np.testing.assert_array_equal(whole.W[3], W[3])
    others = np.ix_(np.arange(12) != 3, np.arange(6) != 2)
    np.testing.assert_array_equal(whole.W[others], solution.W[others])
    assert whole.distance == pytest.approx(distance(problem, whole.W, whole.bias))
    assert whole.distance <= problem.epsilon
    assert whole.epsilon == solution.epsilon


def test_variation_is_the_norm_without_the_means() -> None:
    rng = np.random.default_rng(3)
    X, W = rng.normal(size=(12, 300)).astype(np.float32), rng.normal(size=(12, 6)).astype(np.float32)
    problem, shifted = (build_problem(X, W, np.full(6, bias, np.float32), RELU) for bias in (500.0, 1000.0))
    assert target_variation(problem) == pytest.approx(np.linalg.norm(problem.target - problem.target.mean(1)[:, None]))
    assert target_variation(shifted) == pytest.approx(target_variation(problem), rel=1e-4)  # float32 at 1000
    assert shifted.target_norm > 1.9 * problem.target_norm


@pytest.mark.slow
def test_a_public_autoencoder_without_data_does_not_become_a_constant(
    deploy: Deploy,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = shared_data("models/mlperf_ad_float32.tflite")
    assert deploy("--target", "host", path, "--output", "ad") == 0
    report = json.loads((tmp_path / "ad" / "report.json").read_text())
    assert report["data"]["synthetic"]
    assert not any("no weight is left" in warning for warning in report["data"]["warnings"])
    deployed = load_deployed(tmp_path / "ad" / "model.npz")
    samples = np.random.default_rng(0).standard_normal((200, 640)).astype(np.float32)
    wanted = run_graph(load_model(path).graph, samples)
    assert report["layers"][-1]["error_pruned"] < 0.1 * _variation(wanted) / np.linalg.norm(wanted)
    outputs = run_graph(deployed, deployed.quantization(deployed.inputs[0]).quantize(samples))
    assert np.count_nonzero(outputs.std(axis=0)) > 600  # of 640; in int8 the smallest round to one value
