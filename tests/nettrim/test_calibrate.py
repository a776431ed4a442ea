"""Ranges of activations, and the tails that int8 does best without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.calibrate import activation_ranges, choose_tails, quantize_on, quantizer, range_without_tails
from nettrim.quantize import quantize_graph
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Array, Graph
from tests.graphs import RELU, GraphBuilder, random_branches, random_cnn, random_inputs, random_mlp


def test_ranges_are_the_least_and_the_largest_of_all_samples() -> None:
    rng = np.random.default_rng(0)
    graph = random_cnn(rng)
    samples = random_inputs(graph, rng, 150)
    program = prepare(graph, 150)
    program.run(samples)
    for name, found in activation_ranges(graph, samples).items():
        values = program.buffers[name]
        np.testing.assert_allclose(found, (values.min(), values.max()), rtol=1e-5)  # other batches, other rounding


@given(st.integers(0, 2**31), st.sampled_from([1e-3, 1e-2, 0.1]))
@settings(max_examples=30)
def test_tails_leave_their_share_out_at_each_end(seed: int, tail: float) -> None:
    values = np.random.default_rng(seed).standard_normal((40, 50))
    low, high = range_without_tails(values, tail)
    assert np.count_nonzero(values < low) == np.count_nonzero(values > high) == int(tail * values.size)


def _quantisation_error(graph: Graph, samples: Array, tails: dict[str, float]) -> float:
    deployed = quantize_graph(graph, activation_ranges(graph, samples, tails))
    integers = run_graph(deployed, deployed.quantization("input").quantize(samples))
    outputs = deployed.quantization(deployed.outputs[0]).dequantize(integers)
    return float(np.linalg.norm(outputs - run_graph(graph, samples)))


def _with_clicks(rng: np.random.Generator) -> tuple[Graph, Array]:
    """Return a network whose inputs hold a rare value a hundred times as large, on an input that hardly counts."""
    builder = GraphBuilder(rng, (40,))
    builder.dense(20, RELU)
    builder.dense(4)
    graph = builder.build()
    first = graph.tensors[graph.layers[0].weight]
    first.values()[:, 7] *= 1e-4
    samples = rng.standard_normal((640, 40)).astype(np.float32)
    samples[::13, 7] = 100
    return graph, samples


def test_rare_values_that_cost_the_others_their_resolution_are_cut_off() -> None:
    graph, samples = _with_clicks(np.random.default_rng(1))
    tails = choose_tails(graph, samples)
    assert tails["input"] > 0
    assert _quantisation_error(graph, samples, tails) < 0.7 * _quantisation_error(graph, samples, {})


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches])
@pytest.mark.parametrize("seed", [0, 1])
def test_chosen_tails_do_not_err_more(make: type[Graph], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = make(rng)
    samples = random_inputs(graph, rng, 256)
    tails = choose_tails(graph, samples)
    assert _quantisation_error(graph, samples, tails) <= 1.1 * _quantisation_error(graph, samples, {})


def test_logits_keep_their_range() -> None:
    rng = np.random.default_rng(2)
    graph = random_mlp(rng)
    assert graph.layers[-1].output not in choose_tails(graph, random_inputs(graph, rng, 64))


def test_running_again_behind_an_activation_gives_what_a_whole_run_does() -> None:
    rng = np.random.default_rng(3)
    graph = random_branches(rng)
    samples = random_inputs(graph, rng, 4)
    program = prepare(graph, 4)
    expected = program.run(samples)[0].copy()
    for op in graph.ops[:3]:
        kept = program.buffers[op.output].copy()
        program.buffers[op.output][:] = 0
        program.run_behind(op.output)
        program.buffers[op.output][:] = kept
        program.run_behind(op.output)
        np.testing.assert_array_equal(program.buffers[graph.outputs[0]], expected)


def test_int16_activations_keep_their_tails_and_the_others_are_cut() -> None:
    rng = np.random.default_rng(5)
    graph = random_mlp(rng)
    samples = random_inputs(graph, rng, 100)
    first, second = (layer.output for layer in graph.layers[:2])
    tails = dict.fromkeys((first, second), 0.05)
    quantize = quantizer(graph, samples, tails)
    for wide in (frozenset[str](), frozenset({first}), frozenset({second})):
        ranges = activation_ranges(graph, samples, {name: tail for name, tail in tails.items() if name not in wide})
        wanted = quantize_graph(graph, ranges, wide)
        for found in (quantize(wide), quantize_on(graph, samples, wide, tails)):
            for name in (first, second):
                assert found.tensors[name].dtype == wanted.tensors[name].dtype
                assert found.quantization(name).scale == wanted.quantization(name).scale
