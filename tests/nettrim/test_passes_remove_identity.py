"""Operators that change nothing are left out; names of outputs stay."""

import numpy as np
import pytest

from nettrim.passes import merge_reshapes, remove_identity
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction
from tests.graphs import GraphBuilder, random_inputs


def assert_same_outputs(before: Graph, after: Graph) -> None:
    samples = random_inputs(before, np.random.default_rng(0), 8)
    np.testing.assert_array_equal(run_graph(before, samples), run_graph(after, samples))
    assert before.outputs == after.outputs


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


def image_net() -> GraphBuilder:
    net = GraphBuilder(np.random.default_rng(7), (4, 4, 3))
    net.conv(3, (1, 1))
    return net


def add_identity(net: GraphBuilder, kind: str) -> None:
    match kind:
        case "max_pool":
            net.max_pool(1, 1)
        case "average_pool":
            net.average_pool((1, 1))
        case "reshape":
            net.reshape(*net.tensors[net.output].shape)
        case _:
            net.activation(ActivationFunction.NONE)


IDENTITIES = ["max_pool", "average_pool", "reshape", "activation"]


@pytest.mark.parametrize("kind", IDENTITIES)
def test_identity_between_layers_is_left_out(kind: str) -> None:
    net = image_net()
    add_identity(net, kind)
    net.conv(2, (2, 2))
    before = net.build()
    after = remove_identity(before)
    assert kinds(after) == ["Conv2d", "Conv2d"]
    assert_same_outputs(before, after)


@pytest.mark.parametrize("kind", IDENTITIES)
def test_identity_at_the_end_gives_its_name_to_the_layer_before(kind: str) -> None:
    net = image_net()
    add_identity(net, kind)
    before = net.build()
    after = remove_identity(before)
    assert kinds(after) == ["Conv2d"]
    assert_same_outputs(before, after)


def test_identity_of_a_shared_tensor_is_left_out() -> None:
    net = image_net()
    shared = net.output
    net.max_pool(1, 1)
    net.add(shared)
    before = net.build()
    assert kinds(remove_identity(before)) == ["Conv2d", "Add"]
    assert_same_outputs(before, remove_identity(before))


def test_identity_of_a_tensor_that_is_joined_is_left_out() -> None:
    net = image_net()
    shared = net.output
    net.max_pool(1, 1)
    net.concat(shared, net.output)
    before = net.build()
    assert kinds(remove_identity(before)) == ["Conv2d", "Concat"]
    assert_same_outputs(before, remove_identity(before))


def test_identity_between_input_and_output_stays() -> None:
    net = GraphBuilder(np.random.default_rng(7), (4, 4, 3))
    net.max_pool(1, 1)
    before = net.build()
    assert remove_identity(before) is before


def test_reader_after_an_identity_that_gives_the_output_reads_the_output() -> None:
    net = image_net()
    first = net.max_pool(1, 1)
    output = net.average_pool((1, 1))
    net.output = first
    last = net.conv(2, (1, 1))
    graph = Graph("net", ("input",), (output, last), tuple(net.ops), net.tensors)
    after = remove_identity(graph)
    assert kinds(after) == ["Conv2d", "Conv2d"]
    assert after.ops[1].input == output
    assert after.outputs == graph.outputs


def test_pool_with_stride_stays() -> None:
    net = image_net()
    net.max_pool(1, 2)
    before = net.build()
    assert remove_identity(before) is before


def test_pool_of_a_single_pixel_is_left_out_whatever_its_stride() -> None:
    net = GraphBuilder(np.random.default_rng(7), (1, 1, 3))
    net.conv(3, (1, 1))
    net.max_pool(1, 2)
    net.flatten()
    before = net.build()
    assert kinds(remove_identity(before)) == ["Conv2d", "Reshape"]
    assert_same_outputs(before, remove_identity(before))


def test_reshapes_in_a_row_become_one() -> None:
    net = image_net()
    net.reshape(16, 3)
    net.reshape(8, 6)
    net.flatten()
    before = net.build()
    after = merge_reshapes(before)
    assert kinds(after) == ["Conv2d", "Reshape"]
    assert_same_outputs(before, after)


def test_reshape_that_others_read_stays() -> None:
    net = GraphBuilder(np.random.default_rng(7), (12,))
    shared = net.reshape(3, 4)
    net.flatten()
    net.reshape(3, 4)
    net.add(shared)
    before = net.build()
    after = merge_reshapes(before)
    assert kinds(after) == ["Reshape", "Reshape", "Add"]
    assert_same_outputs(before, after)
