"""Which response a layer's program holds: the furthest that nothing else reads and nothing later changes."""

import numpy as np

from nettrim.layer_targets import LayerTarget, find_target, plain_target
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction, MaxPool2d, Padding
from tests.graphs import NONE, RELU, RELU6, GraphBuilder, random_cnn, random_mlp

SAME = Padding(1, 1, 1, 1)


def _found(graph: Graph, number: int, unsettled: tuple[str, ...] | None = None) -> LayerTarget:
    later = [layer.name for layer in graph.layers[number + 1 :]]
    return find_target(graph, graph.layers[number], later if unsettled is None else unsettled)


def test_a_plain_chain_holds_each_layers_own_output(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    for number, layer in enumerate(graph.layers):
        assert _found(graph, number) == plain_target(layer)
        assert plain_target(layer).tensor == layer.output


def test_pooling_that_partitions_the_output_is_followed(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    target = _found(graph, 0)
    assert isinstance(target.pool, MaxPool2d)
    assert (target.tensor, target.window, target.activation) == (target.pool.output, 4, RELU)
    assert target.response == graph.layers[0].output


def test_overlapping_or_padded_pooling_is_not_followed(rng: np.random.Generator) -> None:
    for options in ({"size": 3, "stride": 2}, {"padding": Padding(1, 1, 1, 1)}):
        builder = GraphBuilder(rng, (8, 8, 2))
        builder.conv(3, (1, 1), RELU)
        builder.max_pool(**options)
        graph = builder.build()
        assert _found(graph, 0) == plain_target(graph.layers[0])


def test_pooling_beside_another_reader_is_not_followed(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 2))
    convolved = builder.conv(2, (1, 1), RELU)
    builder.max_pool(size=1, stride=1)
    builder.add(convolved)
    graph = builder.build()
    assert _found(graph, 0) == plain_target(graph.layers[0])


def test_a_layer_that_a_concatenation_reads_holds_its_own_output(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 2))
    builder.conv(2, (1, 1))
    builder.concat("input")
    builder.activation(RELU)
    graph = builder.build()
    assert _found(graph, 0) == plain_target(graph.layers[0])


def test_the_sum_with_a_shortcut_is_followed_through_clamp_and_pooling(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (8, 8, 2))
    shortcut = builder.conv(2, (3, 3), RELU, padding=SAME)
    builder.conv(2, (3, 3), NONE, padding=SAME)
    total = builder.add(shortcut, RELU6)
    pooled = builder.max_pool()
    graph = builder.build()
    target = _found(graph, 1)
    assert (target.response, target.addend, target.activation) == (total, shortcut, RELU6)
    assert target.tensor == pooled


def test_a_clamp_that_stands_alone_is_followed(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    builder.dense(4)
    clamped = builder.activation(RELU)
    graph = builder.build()
    assert _found(graph, 0) == LayerTarget(clamped, RELU)


def test_a_clamp_before_the_add_ends_the_way(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    builder.dense(6, RELU)
    builder.add("input", RELU)
    graph = builder.build()
    assert _found(graph, 0) == plain_target(graph.layers[0])


def test_only_the_last_of_two_branches_holds_their_sum(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 2))
    trunk = builder.conv(3, (1, 1), RELU)
    branch = builder.conv(3, (3, 3), NONE, padding=SAME)
    builder.output = trunk
    builder.conv(3, (1, 1), NONE)  # a projection as shortcut
    total = builder.add(branch, RELU)
    graph = builder.build()
    assert _found(graph, 1) == plain_target(graph.layers[1])
    assert (_found(graph, 2).response, _found(graph, 2).addend) == (total, branch)
    assert _found(graph, 1, unsettled=()).addend == graph.layers[2].output  # the projection stays dense


def test_twice_the_same_summand_is_not_followed(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4,))
    builder.add(builder.dense(4))
    graph = builder.build()
    assert _found(graph, 0) == plain_target(graph.layers[0])


def test_an_output_of_the_network_is_where_the_way_ends(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    first = builder.dense(4, ActivationFunction.NONE)
    last = builder.activation(RELU)
    graph = Graph("net", ("input",), (first, last), tuple(builder.ops), builder.tensors)
    assert _found(graph, 0) == plain_target(graph.layers[0])
