import numpy as np

from nettrim.layer_rows import draw_positions, graph_until, layer_inputs, layer_responses
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import layer_macs
from nettrim_runtime.ops import Conv2d
from tests.graphs import random_cnn, random_inputs, random_mlp


def test_the_drawn_columns_reproduce_the_layers_responses(rng: np.random.Generator) -> None:
    for graph in (random_mlp(rng), random_cnn(rng)):
        samples = random_inputs(graph, rng, 70)
        for layer in graph.layers:
            if isinstance(layer, Conv2d) and layer.groups > 1:
                continue
            positions = draw_positions(graph, layer, 70, 300, rng)
            X = layer_inputs(graph, layer, samples, positions)
            Y = layer_responses(graph, layer, samples, positions)
            weight = graph.tensors[layer.weight].values().reshape(Y.shape[0], -1)
            Z = weight @ X + graph.tensors[layer.bias].values()[:, None]
            expected = np.clip(Z, layer.activation.lower, layer.activation.upper)
            np.testing.assert_allclose(Y, expected, atol=1e-5)  # float32 sums of at most 72 terms


def test_positions_are_distinct_and_bounded(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    positions = draw_positions(graph, graph.layers[0], 50, 200, rng)
    assert positions.shape == (50, 4)
    assert all(len(set(row)) == 4 for row in positions.tolist())
    assert draw_positions(graph, graph.layers[-1], 50, 20, rng).shape == (20, 1)


def test_a_part_of_the_graph_computes_the_same_tensor(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    part = graph_until(graph, graph.layers[-1].output)
    assert len(part.ops) == len(graph.ops) - 1
    logits = run_graph(part, random_inputs(graph, rng, 3))
    assert logits.shape == (3, 5)


def test_macs_count_every_position(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    assert layer_macs(graph.layers[0], graph.tensors) == 10 * 8 * 3 * 3 * 3 * 8
