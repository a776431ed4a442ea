"""Bounds by propagation against what networks really do; no random network may violate its own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.hybrid import deployed_floats
from nettrim.propagation import Propagation, logits_tensor, propagate
from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Array, Graph, Quantization
from nettrim_runtime.ops import Function, Mean, Requantize
from tests.graphs import (
    GraphBuilder,
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
    widened,
)

few_examples = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([random_mlp, random_cnn, random_branches, random_functions, random_moves])
changes = st.sampled_from([0.0, 0.01, 0.3])


def altered(graph: Graph, rng: np.random.Generator, change: float) -> Graph:
    """Drop a share of the weights and move the others by about as much."""
    tensors = []
    for layer in graph.layers:
        for name in (layer.weight, layer.bias):
            values = graph.tensors[name].values()
            moved = values * (1 + change * rng.normal(size=values.shape))
            kept = np.where(rng.random(values.shape) < change, 0, moved)
            tensors.append(replace(graph.tensors[name], data=kept.astype(np.float32)))
    return graph.with_tensors(tensors)


def activations(graph: Graph, samples: Array) -> dict[str, Array]:
    program = prepare(graph, len(samples))
    values = graph.quantization(graph.inputs[0]).quantize(samples) if graph.is_quantized else samples
    program.run(values)
    return {
        name: (graph.quantization(name).dequantize(found) if graph.is_quantized else found).reshape(len(samples), -1)
        for name, found in program.buffers.items()
    }


def assert_no_violation(original: Graph, other: Graph, samples: Array, found: Propagation) -> None:
    before, after = activations(original, samples), activations(other, samples)
    logits = logits_tensor(original)
    bounds = {**{layer.output: found.bounds[layer.name] for layer in original.layers}, logits: found.deviation}
    for tensor, bound in bounds.items():
        deviation = np.linalg.norm(after[tensor] - before[tensor], axis=1)
        rounding = 1e-5 * np.linalg.norm(before[tensor], axis=1) + 1e-5  # both networks ran in float32
        assert np.all(deviation <= bound + rounding)
    same = before[logits].argmax(axis=1) == after[logits].argmax(axis=1)
    assert np.all(same[found.margins > 1e-5])


@few_examples
@given(seed=seeds, kind=kinds, change=changes)
def test_no_pruned_network_violates_its_bound(seed: int, kind: type[Graph], change: float) -> None:
    rng = np.random.default_rng(seed)
    graph = kind(rng)
    other, samples = altered(graph, rng, change), random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    assert_no_violation(graph, other, samples, found)


@few_examples
@given(seed=seeds, kind=kinds, change=changes)
def test_no_network_of_int8_and_int16_violates_its_bound(seed: int, kind: type[Graph], change: float) -> None:
    rng = np.random.default_rng(seed)
    graph = kind(rng)
    other, samples = widened(altered(graph, rng, change), rng, 0.5), random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    assert_no_violation(graph, other, samples, found)


@few_examples
@given(seed=seeds, kind=kinds, change=changes)
def test_no_int8_network_violates_its_bound(seed: int, kind: type[Graph], change: float) -> None:
    rng = np.random.default_rng(seed)
    graph = kind(rng)
    other, samples = quantized(altered(graph, rng, change), rng), random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    assert_no_violation(graph, other, samples, found)


@few_examples
@given(seed=seeds, kind=kinds, change=changes)
def test_no_hybrid_network_violates_its_bound(seed: int, kind: type[Graph], change: float) -> None:
    rng = np.random.default_rng(seed)
    graph = kind(rng)
    other, samples = deployed_floats(altered(graph, rng, change), "hybrid"), random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    assert_no_violation(graph, other, samples, found)


@pytest.mark.parametrize("wide", [(), ("conv0.out",)])
def test_means_that_the_integers_have_no_room_for_count(wide: tuple[str, ...], rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 5, 3))
    builder.conv(3)
    means = builder.mean(0, 1, keep_dims=False)
    builder.dense(4)
    graph = builder.build("means")
    other = quantized(graph, rng, wide)
    assert type(next(op for op in other.ops if op.output == means)) is (Requantize if wide else Mean)
    narrow = Quantization(other.quantization(means).scale / np.float32(64))
    other = other.with_tensors([replace(other.tensors[means], quantization=narrow)])
    samples = random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    assert_no_violation(graph, other, samples, found)


def test_the_first_layers_bound_is_its_error(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    other, samples = altered(graph, rng, 0.1), random_inputs(graph, rng, 70)
    (found,) = propagate(graph, other, [samples])
    first = graph.layers[0]
    deviation = activations(other, samples)[first.output] - activations(graph, samples)[first.output]
    np.testing.assert_allclose(found.bounds[first.name], np.linalg.norm(deviation, axis=1), rtol=1e-4)  # float32 runs
    expected = np.linalg.norm(deviation) / np.linalg.norm(found.norms[first.name])
    assert found.relative_bounds()[first.name] == pytest.approx(expected, rel=1e-4)


def test_an_unaltered_network_loses_nothing_and_keeps_every_class(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    (found,) = propagate(graph, graph, [random_inputs(graph, rng, 5)])
    assert found.relative_bound < 1e-6
    assert found.kept == 5


def test_a_network_that_answers_otherwise_is_not_proven_to_keep_its_class(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4,))
    builder.dense(3)
    graph = builder.build()
    weight = graph.tensors[graph.layers[0].weight]
    reversed_graph = graph.with_tensors([replace(weight, data=-weight.values())])
    samples = random_inputs(graph, rng, 50)
    (found,) = propagate(graph, reversed_graph, [samples])
    assert_no_violation(graph, reversed_graph, samples, found)
    assert found.kept < 5


def test_a_branch_added_to_itself_counts_twice(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    hidden = builder.dense(6)
    builder.add(hidden)
    graph = builder.build()
    (found,) = propagate(graph, altered(graph, rng, 0.1), [random_inputs(graph, rng, 8)])
    np.testing.assert_allclose(found.deviation, 2 * found.bounds[graph.layers[0].name], rtol=1e-6)


def test_a_branch_joined_with_itself_counts_twice_in_squares(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    hidden = builder.dense(6)
    builder.concat(hidden)
    graph = builder.build()
    (found,) = propagate(graph, altered(graph, rng, 0.1), [random_inputs(graph, rng, 8)])
    np.testing.assert_allclose(found.deviation, np.sqrt(2) * found.bounds[graph.layers[0].name], rtol=1e-6)


def test_each_set_of_samples_has_its_own_bounds(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    other, samples = altered(graph, rng, 0.1), random_inputs(graph, rng, 90)
    (whole,) = propagate(graph, other, [samples])
    first, second = propagate(graph, other, [samples[:30], samples[30:]])
    np.testing.assert_allclose(np.concatenate([first.deviation, second.deviation]), whole.deviation, rtol=1e-9)
    assert first.kept + second.kept == whole.kept


def test_the_logits_are_what_the_last_softmax_reads(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    assert logits_tensor(graph) == graph.layers[-1].output
    builder = GraphBuilder(rng, (4,))
    builder.dense(6)
    rows = builder.reshape(2, 3)
    builder.softmax()
    assert logits_tensor(builder.build()) == builder.output != rows  # one softmax a row decides no single class


def test_many_roots_in_a_row_leave_no_bound_and_no_number_out_of_range(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 3))
    for _ in range(9):
        builder.inverse_root()
    builder.flatten()
    builder.dense(5)
    graph = builder.build()
    (found,) = propagate(graph, quantized(graph, rng), [random_inputs(graph, rng, 4)])
    assert found.relative_bound == np.inf
    assert found.kept == 0


def test_bounds_of_long_products_end_at_infinity_and_those_of_a_sigmoid_at_its_span(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    builder.dense(6)
    builder.function(Function.TANH)
    for _ in range(12):
        builder.mul(builder.output)
    squares = builder.dense(6)
    gate = builder.function(Function.SIGMOID)
    builder.dense(3)
    graph = builder.build()
    other, samples = altered(graph, rng, 0.3), random_inputs(graph, rng, 20)
    (found,) = propagate(graph, other, [samples])
    gain = found.operator_norms[graph.layers[-1].name]
    assert np.isinf(found.bounds[next(layer.name for layer in graph.layers if layer.output == squares)]).any()
    assert np.all(np.isfinite(found.deviation))
    assert np.all(found.bounds[graph.layers[-1].name] <= gain * np.sqrt(graph.tensors[gate].size) * 1.5 + 10)
    assert_no_violation(graph, other, samples, found)
