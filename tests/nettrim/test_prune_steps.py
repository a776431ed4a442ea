"""Weights that all steps of a recurrent layer share are pruned as one layer over all steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim.budget import error_table
from nettrim.evaluate import Networks, layer_errors
from nettrim.frontier import Frontier, live_bytes
from nettrim.importers import load_model
from nettrim.layer_plan import LayerPlan, Network, layer_problem
from nettrim.layer_rows import draw_positions
from nettrim.layer_targets import plain_target
from nettrim.propagation import propagate
from nettrim.prune import KEPT_DENSE, Mode, PruneSettings, is_prunable, measure_budget, prune
from nettrim.sensitivity import output_sensitivity
from nettrim.storage import smallest_formats
from nettrim_exporters.c_header import render_c_header
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import ActivationFunction, Layer
from tests.c_model import compile_c, run_c, write_sources
from tests.exporters.test_tflite import run_litert
from tests.graphs import quantized, random_inputs
from tests.nettrim.onnx_models import node, random_floats, write_onnx

STEPS, FEATURES, HIDDEN, SAMPLES = 5, 6, 8, 100
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU, products reset": ("GRU", {"linear_before_reset": 1}),
    "GRU, states reset": ("GRU", {}),
    "LSTM": ("LSTM", {}),
}


def write_stack(path: Path, kind: str, **attributes: Any) -> Path:
    """Write two recurrent layers, one on the other, and a dense layer behind the last state."""
    rows = {"GRU": 3, "LSTM": 4}[kind] * HIDDEN
    constants = {"w": random_floats(1, rows, FEATURES), "v": random_floats(1, rows, HIDDEN)}
    constants |= {"r": random_floats(1, rows, HIDDEN), "b": random_floats(1, 2 * rows), "d": random_floats(HIDDEN, 3)}
    nodes = [
        node("Transpose", "x", "s", perm=[1, 0, 2]),
        node(kind, "s w r b", "q", name="first", hidden_size=HIDDEN, **attributes),
        node("Squeeze", "q one", "t"),
        node(kind, "t v r b", "p h", name="second", hidden_size=HIDDEN, **attributes),
        node("Squeeze", "h zero", "u"),
        node("MatMul", "u d", "y"),
    ]
    scaled = {name: 0.5 * values for name, values in constants.items()}
    places = {"one": np.array([1]), "zero": np.array([0])}
    return write_onnx(path, nodes, ["N", STEPS, FEATURES], {**scaled, **places}, opset=14)


@pytest.fixture(params=CELLS.values(), ids=CELLS)
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Graph:
    kind, attributes = request.param
    return load_model(write_stack(tmp_path / "m.onnx", kind, **attributes)).graph


def shared_layers(graph: Graph) -> list[Layer]:
    return [layer for layer in graph.layers if len(graph.sharing(layer.weight)) > 1]


def buffers(graph: Graph, samples: Array) -> dict[str, Array]:
    program = prepare(graph, len(samples))
    program.run(samples)
    return program.buffers


def step_values(graph: Graph, layer: Layer, samples: Array, end: str) -> Array:
    """Return a layer's inputs or outputs at all steps, one step after the other: (n_steps * n_samples, size)."""
    values = buffers(graph, samples)
    return np.concatenate([values[getattr(step, end)] for step in graph.sharing(layer.weight)])


@pytest.mark.parametrize("mode", list(Mode))
def test_a_sparsity_is_reached_within_one_weight(graph: Graph, mode: Mode, rng: np.random.Generator) -> None:
    settings = PruneSettings(sparsity=0.6, mode=mode)
    result = prune(graph, random_inputs(graph, rng, SAMPLES), settings, rng)
    total = sum(graph.tensors[layer.weight].size for layer in graph.layers)
    kept = sum(result.graph.tensors[layer.weight].nnz for layer in graph.layers)
    assert abs(kept - round(0.4 * total)) <= 1
    assert all(result.graph.tensors[layer.weight].nnz < HIDDEN * HIDDEN * 3 for layer in shared_layers(graph))


def test_the_distance_is_that_of_all_steps_on_the_states_of_the_original_weight(
    graph: Graph, rng: np.random.Generator
) -> None:
    samples = random_inputs(graph, rng, SAMPLES)
    result = prune(graph, samples, PruneSettings(sparsity=0.6), rng)
    source = graph
    for layer, outcome in zip(graph.layers, result.layers, strict=True):
        weight, bias = (result.graph.tensors[name] for name in (layer.weight, layer.bias))
        if len(graph.sharing(layer.weight)) > 1:
            assert outcome.solution is not None
            inputs = step_values(source, layer, samples, "input").astype(np.float64)
            error = inputs @ weight.values().T + bias.values() - step_values(graph, layer, samples, "output")
            assert outcome.fit_rows == len(inputs) == SAMPLES * (STEPS - 1)
            assert outcome.solution.distance == pytest.approx(np.linalg.norm(error), rel=1e-4)  # float32 states
        source = source.with_tensors((weight, bias))  # the layers before are pruned: values of a fresh run


def test_a_layers_program_joins_the_steps_of_both_networks(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, SAMPLES)
    inputs = graph.tensors[graph.layers[0].weight]
    pruned = graph.with_tensors([replace(inputs, data=inputs.values() * (rng.random(inputs.shape) < 0.5))])
    original, source = (Network(each, Frontier(each, samples, 1 << 20)) for each in (graph, pruned))
    for layer in shared_layers(graph):
        plan = LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, SAMPLES, 100, rng))
        problem = layer_problem(original, source, plan, "distance")
        used = samples[:100]
        np.testing.assert_allclose(problem.X.T, step_values(pruned, layer, used, "input"), atol=1e-6)
        np.testing.assert_allclose(problem.target.T, step_values(graph, layer, used, "output"), atol=1e-6)


def test_the_output_stays_closer_than_with_the_largest_weights(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, 4 * SAMPLES)
    pruned = prune(graph, samples, PruneSettings(sparsity=0.5), rng).graph
    largest = []
    for layer in graph.layers:
        weight = graph.tensors[layer.weight]
        sizes = np.abs(weight.values())
        bound = np.sort(sizes, axis=None)[-pruned.tensors[layer.weight].nnz]
        largest.append(replace(weight, data=np.where(sizes >= bound, weight.values(), np.float32(0))))
    expected = run_graph(graph, samples)
    errors = [np.linalg.norm(run_graph(each, samples) - expected) for each in (pruned, graph.with_tensors(largest))]
    assert errors[0] < 0.7 * errors[1]


def test_values_behind_a_weight_are_forgotten_and_computed_anew(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, 10)
    layer = shared_layers(graph)[0]
    frontier = Frontier(graph, samples, 1 << 20)
    for step in graph.sharing(layer.weight):
        frontier.value(graph, step.input)
    weight = graph.tensors[layer.weight]
    changed = graph.with_tensors([replace(weight, data=weight.values() * np.float32(0.5))])
    frontier.forget(changed, {layer.weight})
    fresh = buffers(changed, samples)
    assert layer.input in frontier.values  # the first step's, which no step has touched
    for step in graph.sharing(layer.weight):
        np.testing.assert_allclose(frontier.value(changed, step.input), fresh[step.input], atol=1e-6)


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_kept_stays_below_live_bytes(
    graph: Graph, mode: Mode, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    value = Frontier.value

    def measured(self: Frontier, graph: Graph, tensor: str) -> Array:
        found = value(self, graph, tensor)
        kept.append(sum(values.nbytes // len(values) for values in self.values.values()))
        return found

    monkeypatch.setattr(Frontier, "value", measured)
    prune(graph, random_inputs(graph, rng, SAMPLES), PruneSettings(relative_epsilon=0.2, mode=mode), rng)
    assert max(kept) <= live_bytes(graph)


def test_a_weight_costs_what_all_its_steps_cost_the_output(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, SAMPLES)
    layer = shared_layers(graph)[-1]
    outputs = [step.output for step in graph.sharing(layer.weight)]
    sensitivity = output_sensitivity(graph, samples, outputs, rng)
    plan = LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, SAMPLES, 10_000, rng))
    network = Network(graph, Frontier(graph, samples, 1 << 20))
    table = error_table(layer_problem(network, network, plan, "distance"), np.sum(list(sensitivity.values()), axis=0))
    found = measure_budget(graph, samples, PruneSettings(), rng).tables[layer.name]
    np.testing.assert_allclose([row.cost for row in found], [row.cost for row in table], rtol=1e-6)


def test_steps_that_do_more_than_read_other_inputs_stay_dense(graph: Graph, rng: np.random.Generator) -> None:
    layer = shared_layers(graph)[0]
    last = graph.sharing(layer.weight)[-1]
    clamped = tuple(replace(op, activation=ActivationFunction.RELU) if op is last else op for op in graph.ops)
    other = replace(graph, ops=clamped)
    assert is_prunable(graph, layer, PruneSettings())
    assert not is_prunable(other, layer, PruneSettings())
    result = prune(other, random_inputs(graph, rng, 60), PruneSettings(sparsity=0.3), rng)
    assert [outcome.status for outcome in result.layers if outcome.name == layer.name] == [KEPT_DENSE]


def test_errors_and_bounds_are_those_of_all_steps(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, 40)
    pruned = prune(graph, samples, PruneSettings(sparsity=0.2), rng).graph
    errors = layer_errors(Networks(graph, pruned, quantized(pruned, rng)), samples)
    bounds = propagate(graph, pruned, [samples])[0].relative_bounds()
    for layer in shared_layers(graph):
        wanted, found = (step_values(each, layer, samples, "output") for each in (graph, pruned))
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert errors[layer.name][0] == pytest.approx(error, rel=1e-5)
        assert error <= bounds[layer.name]


@pytest.mark.slow
def test_polished_steps_share_one_weight_with_the_same_zeros(graph: Graph, rng: np.random.Generator) -> None:
    samples = random_inputs(graph, rng, 4 * SAMPLES)
    settings = PruneSettings(sparsity=0.6)
    plain, polished = (
        prune(graph, samples, replace(settings, polish=polish), np.random.default_rng(1)).graph
        for polish in (False, True)
    )
    for layer in graph.layers:
        before, after = (each.tensors[layer.weight].values() for each in (plain, polished))
        np.testing.assert_array_equal(after != 0, before != 0)
    expected = run_graph(graph, samples)
    errors = [np.linalg.norm(run_graph(each, samples) - expected) for each in (polished, plain)]
    assert errors[0] < errors[1]


def test_pruned_steps_have_the_same_bits_in_numpy_litert_and_c(
    graph: Graph, tmp_path: Path, rng: np.random.Generator
) -> None:
    pruned = prune(graph, random_inputs(graph, rng, SAMPLES), PruneSettings(sparsity=0.9), rng).graph
    dense = quantized(pruned, rng)
    sparse = smallest_formats(dense)
    assert all(isinstance(sparse.tensors[layer.weight].data, CsrMatrix) for layer in shared_layers(graph))
    samples = random_inputs(sparse, rng, 50)
    expected = run_graph(dense, samples)
    np.testing.assert_array_equal(run_graph(sparse, samples), expected)
    np.testing.assert_array_equal(run_litert(render_tflite(sparse), samples), expected)
    source = write_sources({"cells": render_c_header(sparse, "cells", (samples[0], expected[0]))}, tmp_path)
    np.testing.assert_array_equal(run_c(compile_c(source, tmp_path / "cells"), 0, samples, 3), expected)
