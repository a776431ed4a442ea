"""The drawn columns are what a layer sees and answers."""

import numpy as np

from nettrim.frontier import Frontier
from nettrim.layer_rows import draw_positions, layer_groups, layer_inputs, layer_responses
from nettrim_runtime.graph import Array, Graph, layer_macs
from nettrim_runtime.ops import ActivationFunction, Dense, MaxPool2d, Padding, Size2d
from tests.graphs import GraphBuilder, random_cnn, random_inputs, random_mlp


def _grouped_cnn(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (9, 7, 6))
    builder.conv(4, (3, 2), ActivationFunction.RELU, groups=2, stride=Size2d(2, 1), padding=Padding(1, 0, 0, 2))
    builder.conv(8, (3, 3), ActivationFunction.RELU6, groups=4, dilation=Size2d(1, 2))
    return builder.build()


def _values(graph: Graph, samples: Array, tensor: str) -> Array:
    return Frontier(graph, samples, 1 << 20).value(graph, tensor)


def test_the_drawn_columns_reproduce_the_layers_responses(rng: np.random.Generator) -> None:
    for graph in (random_mlp(rng), random_cnn(rng), _grouped_cnn(rng)):
        samples = random_inputs(graph, rng, 70)
        for layer in graph.layers:
            positions = draw_positions(graph, layer, 70, 300, rng)
            X = layer_inputs(graph, layer, _values(graph, samples, layer.input), positions)
            Y = layer_responses(_values(graph, samples, layer.output), positions)
            assert X.shape == (*layer_groups(graph, layer), positions.size)
            weight = graph.tensors[layer.weight].values().reshape(len(X), -1, X.shape[1])
            Z = (weight @ X).reshape(Y.shape) + graph.tensors[layer.bias].values()[:, None]
            expected = np.clip(Z, layer.activation.lower, layer.activation.upper)
            np.testing.assert_allclose(Y, expected, atol=1e-5)  # float32 sums of at most 72 terms


def test_positions_are_distinct_and_bounded(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    positions = draw_positions(graph, graph.layers[0], 50, 200, rng)
    assert positions.shape == (50, 4)
    assert all(len(set(row)) == 4 for row in positions.tolist())
    assert draw_positions(graph, graph.layers[-1], 50, 20, rng).shape == (20, 1)
    assert draw_positions(graph, graph.layers[0], 2, 10_000, rng).shape == (2, 80)  # all pixels


def test_windows_are_drawn_whole_and_side_by_side(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    layer, pool = graph.layers[0], graph.ops[1]
    assert isinstance(pool, MaxPool2d)
    samples = random_inputs(graph, rng, 30)
    positions = draw_positions(graph, layer, 30, 250, rng, pool=pool)
    assert positions.shape == (30, 8)
    rows, columns = np.divmod(positions.reshape(30, 2, 4), 8)
    np.testing.assert_array_equal(rows - rows[..., :1], np.broadcast_to([0, 0, 1, 1], rows.shape))
    np.testing.assert_array_equal(columns - columns[..., :1], np.broadcast_to([0, 1, 0, 1], rows.shape))
    Y = layer_responses(_values(graph, samples, layer.output), positions)
    pooled = _values(graph, samples, pool.output).reshape(30, -1, 8)
    window = rows[..., 0] // 2 * 4 + columns[..., 0] // 2
    expected = pooled[np.arange(30)[:, None], window].reshape(-1, 8).T
    np.testing.assert_array_equal(Y.reshape(8, -1, 4).max(axis=2), expected)


def test_pixels_that_no_window_holds_are_not_drawn(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (7, 7, 1))
    builder.conv(2, (1, 1))
    builder.max_pool(size=2, stride=3)
    graph = builder.build()
    pool = graph.ops[1]
    assert isinstance(pool, MaxPool2d)
    positions = draw_positions(graph, graph.layers[0], 1, 1000, rng, pool=pool)
    expected = {row * 7 + column for row in (0, 1, 3, 4) for column in (0, 1, 3, 4)}
    assert sorted(positions[0].tolist()) == sorted(expected)


def test_fewer_rows_than_a_window_still_give_one_window(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    pool = graph.ops[1]
    assert isinstance(pool, MaxPool2d)
    assert draw_positions(graph, graph.layers[0], 30, 3, rng, pool=pool).shape == (1, 4)


def test_a_dense_layers_columns_are_its_samples(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    layer, values = graph.layers[0], random_inputs(graph, rng, 100)
    assert isinstance(layer, Dense)
    positions = draw_positions(graph, layer, 100, 80, rng)
    np.testing.assert_array_equal(layer_inputs(graph, layer, values, positions)[0], values[:80].T)


def test_macs_count_every_position(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    assert layer_macs(graph, graph.layers[0]) == 10 * 8 * 3 * 3 * 3 * 8
