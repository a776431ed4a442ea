"""Dead channels go physically, and nobody notices at the output."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Conv2d
from tests.graphs import (
    RELU,
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

NETWORKS = st.sampled_from([random_mlp, random_cnn, random_branches, random_functions, random_moves])


@given(NETWORKS, st.integers(0, 10**6), st.floats(0.02, 0.6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_quantised_outputs_keep_every_bit(make: object, seed: int, density: float, in_columns: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = _with_dead_parts(make(rng, density), rng, in_columns=in_columns)  # type: ignore[operator]
    int8 = widened(graph, rng, 0.5) if seed % 2 else quantized(graph, rng)
    smaller = remove_dead_channels(int8)
    x = random_inputs(int8, rng, 8)
    assert np.array_equal(run_graph(smaller, x), run_graph(int8, x))
    assert _weights(smaller) <= _weights(int8)


@given(NETWORKS, st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_float_outputs_stay(make: object, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = _with_dead_parts(make(rng, 0.3), rng, in_columns=True)  # type: ignore[operator]
    x = random_inputs(graph, rng, 8)
    assert np.allclose(run_graph(remove_dead_channels(graph), x), run_graph(graph, x), atol=1e-5)


def test_a_dense_network_stays_the_same_object() -> None:
    graph = random_cnn(np.random.default_rng(0))
    assert remove_dead_channels(graph) is graph


def test_a_neuron_without_weights_goes_and_its_constant_is_folded() -> None:
    rng = np.random.default_rng(1)
    graph = random_mlp(rng)
    first, second = graph.layers[:2]
    weight, bias = graph.tensors[first.weight].values().copy(), graph.tensors[first.bias].values().copy()
    weight[[2, 5]], bias[2] = 0, 1.5
    smaller = remove_dead_channels(_with(graph, {first.weight: weight, first.bias: bias}))
    assert smaller.tensors[first.weight].shape == (14, 20)
    assert smaller.tensors[second.weight].shape == (12, 14)
    column = graph.tensors[second.weight].values()[:, 2] * 1.5 + graph.tensors[second.weight].values()[:, 5] * max(
        bias[5], 0
    )
    assert np.allclose(smaller.tensors[second.bias].values(), graph.tensors[second.bias].values() + column, atol=1e-6)


def test_a_channel_goes_through_the_addition_the_pool_and_the_depthwise_convolution() -> None:
    rng = np.random.default_rng(2)
    graph = random_cnn(rng)
    stem, depthwise, pointwise, last, _ = graph.layers
    values = _copies(graph, stem.weight, stem.bias, pointwise.weight, pointwise.bias)
    depthwise_bias = graph.tensors[depthwise.bias].values().copy()
    for array in (*values.values(), depthwise_bias):
        array[3] = 0
    smaller = remove_dead_channels(_with(graph, {**values, depthwise.bias: depthwise_bias}))
    assert smaller.tensors[stem.weight].shape[0] == 7
    assert next(op for op in smaller.ops if isinstance(op, Conv2d) and op.name == depthwise.name).groups == 7
    assert smaller.tensors[last.weight].shape[-1] == 7


def test_a_constant_stays_where_a_padded_convolution_reads_it() -> None:
    rng = np.random.default_rng(3)
    graph = random_cnn(rng)
    *_, last, _ = graph.layers
    assert isinstance(last, Conv2d)
    assert last.padding.bottom
    stem, pointwise = graph.layers[0], graph.layers[2]
    values = _copies(graph, stem.weight, stem.bias, pointwise.weight, pointwise.bias)
    for array in values.values():
        array[3] = 0
    values[stem.bias][3] = 2.0  # reaches the sum, and from there the borders of the last convolution
    altered = _with(graph, values)
    smaller = remove_dead_channels(altered)
    assert smaller.tensors[last.weight].shape[-1] == 8
    x = random_inputs(altered, rng, 4)
    assert np.allclose(run_graph(smaller, x), run_graph(altered, x), atol=1e-5)


def test_a_dead_channel_and_an_unread_one_go_through_a_concatenation() -> None:
    rng = np.random.default_rng(6)
    graph = random_branches(rng)
    first, second, pointwise, *_ = graph.layers
    values = _copies(graph, first.weight, pointwise.weight)
    values[first.weight][2] = 0  # says nothing: its constant is folded behind the concatenation
    values[pointwise.weight][..., 5 + 1] = 0  # reads nothing of the second branch's channel 1
    altered = _with(graph, values)
    smaller = remove_dead_channels(altered)
    assert [smaller.tensors[layer.weight].shape[0] for layer in (first, second)] == [4, 3]
    assert smaller.tensors[pointwise.weight].shape == (6, 1, 1, 7)
    x = random_inputs(altered, rng, 4)
    assert np.allclose(run_graph(smaller, x), run_graph(altered, x), atol=1e-5)


def test_a_channel_of_a_flattened_image_goes_from_a_concatenation_of_features() -> None:
    rng = np.random.default_rng(7)
    graph = random_branches(rng)
    pointwise, hidden, last = graph.layers[2:]
    values = _copies(graph, hidden.weight, last.weight)
    for weight in values.values():
        weight[:, [1, 7, 13, 19]] = 0  # channel 1 at all four pixels
    values[last.weight][:, 24 + 3] = 0  # neuron 3 of the dense layer beside the image
    smaller = remove_dead_channels(_with(graph, values))
    assert smaller.tensors[pointwise.weight].shape[0] == 5
    assert smaller.tensors[hidden.weight].shape[0] == 3
    assert smaller.tensors[last.weight].shape == (5, 4 * 5 + 3)


def test_a_channel_that_is_read_behind_a_concatenation_stays_in_the_sum_it_is_part_of() -> None:
    builder = GraphBuilder(np.random.default_rng(8), (6,))
    branch = builder.dense(4)
    builder.output = "input"
    total = builder.dense(4)
    builder.add(branch)
    builder.concat(total)
    builder.dense(3)
    graph = builder.build()
    last = graph.layers[-1]
    weight = graph.tensors[last.weight].values().copy()
    weight[:, [0, 1]], weight[:, [4, 6]] = 0, 0  # of the sum channels 0 and 1, of its summand 0 and 2
    smaller = remove_dead_channels(_with(graph, {last.weight: weight}))
    assert [smaller.tensors[layer.weight].shape[0] for layer in smaller.layers] == [3, 3, 3]


def test_channels_go_through_a_slice_of_channels_and_a_resize() -> None:
    builder = GraphBuilder(np.random.default_rng(9), (4, 4, 3))
    builder.conv(6, (1, 1), RELU)
    builder.resize(8, 4)
    builder.slice((0, 0, 1), (8, 4, 5), (2, 1, 1))
    builder.conv(3, (1, 1))
    graph = builder.build()
    first, last = graph.layers
    values = _copies(graph, first.weight, last.weight)
    values[first.weight][2] = 0  # a constant, folded behind the slice
    values[last.weight][..., 2] = 0  # channel 3 of the first layer; 0 and 5 are cut off
    altered = _with(graph, values)
    smaller = remove_dead_channels(altered)
    assert [smaller.tensors[layer.weight].shape for layer in smaller.layers] == [(2, 1, 1, 3), (3, 1, 1, 2)]
    x = random_inputs(altered, np.random.default_rng(0), 4)
    assert np.allclose(run_graph(smaller, x), run_graph(altered, x), atol=1e-5)


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches])
def test_a_network_of_zeros_keeps_one_channel_and_can_be_written(make: object) -> None:
    rng = np.random.default_rng(4)
    graph = make(rng)  # type: ignore[operator]
    zeros = _with(graph, {layer.weight: np.zeros_like(graph.tensors[layer.weight].values()) for layer in graph.layers})
    int8 = quantized(zeros, rng)
    smaller = remove_dead_channels(int8)
    x = random_inputs(int8, rng, 4)
    assert np.array_equal(run_graph(smaller, x), run_graph(int8, x))
    assert min(smaller.tensors[layer.weight].shape[0] for layer in smaller.layers) == 1
    assert render_tflite(smaller, "zeros")


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-9])
def test_a_softmax_of_almost_nothing_is_quantised_so_that_it_runs(size: float) -> None:
    rng = np.random.default_rng(5)
    graph = random_mlp(rng)
    last = graph.layers[-1]
    names = (last.weight, last.bias)
    faint = _with(graph, {name: np.float32(size) * graph.tensors[name].values() for name in names})
    int8 = quantized(faint, rng)
    outputs = int8.quantization(int8.outputs[0]).dequantize(run_graph(int8, random_inputs(int8, rng, 4)))
    assert np.allclose(outputs, 0.2, atol=1 / 256)


def _with_dead_parts(graph: Graph, rng: np.random.Generator, *, in_columns: bool) -> Graph:
    """Zero some rows of some layers, and with ``in_columns`` what reads some channels."""
    changed: dict[str, Array] = {}
    for layer in graph.layers:
        values = graph.tensors[layer.weight].values().copy()
        values[rng.random(len(values)) < 0.4] = 0
        if in_columns:
            values[..., rng.random(values.shape[-1]) < 0.3] = 0
        changed[layer.weight] = values
        bias = graph.tensors[layer.bias].values().copy()
        bias[rng.random(len(bias)) < 0.5] = 0
        changed[layer.bias] = bias
    return _with(graph, changed)


def _copies(graph: Graph, *names: str) -> dict[str, Array]:
    return {name: graph.tensors[name].values().copy() for name in names}


def _with(graph: Graph, values: dict[str, Array]) -> Graph:
    return graph.with_tensors(replace(graph.tensors[name], data=array) for name, array in values.items())


def _weights(graph: Graph) -> int:
    return sum(graph.tensors[layer.weight].size for layer in graph.layers)
