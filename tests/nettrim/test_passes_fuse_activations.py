"""Clamps move into the operator before them, and nothing else changes."""

import numpy as np
import pytest

from nettrim.passes import fuse_activations
from nettrim.passes.fuse_activations import compose_clamps
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Activation, ActivationFunction, MaxPool2d, Padding, Size2d
from tests.graphs import GraphBuilder, random_inputs

NONE, RELU, RELU6 = ActivationFunction.NONE, ActivationFunction.RELU, ActivationFunction.RELU6
RELU_N1_TO_1 = ActivationFunction.RELU_N1_TO_1


def assert_same_outputs(before: Graph, after: Graph) -> None:
    samples = random_inputs(before, np.random.default_rng(0), 8)
    np.testing.assert_array_equal(run_graph(before, samples), run_graph(after, samples))
    assert before.outputs == after.outputs


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


def builder(*shape: int) -> GraphBuilder:
    return GraphBuilder(np.random.default_rng(7), shape or (6, 6, 3))


@pytest.mark.parametrize("function", [RELU, RELU6, RELU_N1_TO_1])
def test_clamp_is_fused_into_a_dense_layer(function: ActivationFunction) -> None:
    net = builder(5)
    net.dense(4)
    net.activation(function)
    before = net.build()
    after = fuse_activations(before)
    assert kinds(after) == ["Dense"]
    assert after.layers[0].activation is function
    assert_same_outputs(before, after)


def test_clamp_is_fused_into_a_convolution_and_an_add() -> None:
    net = builder()
    first = net.conv(4, (1, 1))
    first = net.activation(RELU)
    net.conv(4, (1, 1))
    net.add(first)
    net.activation(RELU6)
    before = net.build()
    after = fuse_activations(before)
    assert kinds(after) == ["Conv2d", "Conv2d", "Add"]
    assert_same_outputs(before, after)


def test_clamp_moves_before_a_pad_a_slice_a_transpose_and_a_resize() -> None:
    net = builder()
    net.conv(4, (3, 3))
    net.pad((1, 0, 1), (0, 2, 0))
    net.slice((0, 1, 0), (5, 6, 5), (2, 1, 2))
    net.transpose(1, 0, 2)
    net.resize(4, 9)
    net.activation(RELU_N1_TO_1)
    before = net.build()
    after = fuse_activations(before)
    assert kinds(after) == ["Conv2d", "Pad", "Slice", "Transpose", "ResizeNearest"]
    assert_same_outputs(before, after)


def test_clamp_moves_before_a_padded_max_pool_and_a_reshape() -> None:
    net = builder()
    net.conv(4, (3, 3))
    net.max_pool(3, 2, Padding(1, 1, 1, 1))
    net.flatten()
    net.activation(RELU)
    net.dense(3)
    before = net.build()
    after = fuse_activations(before)
    assert kinds(after) == ["Conv2d", "MaxPool2d", "Reshape", "Dense"]
    assert after.layers[0].activation is RELU
    assert_same_outputs(before, after)


def test_clamp_moves_before_a_max_pool_that_gives_the_output() -> None:
    net = builder()
    net.conv(4, (3, 3))
    net.max_pool()
    net.activation(RELU6)
    before = net.build()
    assert_same_outputs(before, fuse_activations(before))
    assert kinds(fuse_activations(before)) == ["Conv2d", "MaxPool2d"]


def test_clamp_does_not_move_before_an_average() -> None:
    net = builder()
    net.conv(4, (3, 3))
    net.average_pool((2, 2))
    net.activation(RELU)
    before = net.build()
    assert fuse_activations(before) is before


def test_clamp_of_a_tensor_that_others_read_stays() -> None:
    net = builder(4)
    shared = net.dense(4)
    net.activation(RELU)
    net.add(shared)
    before = net.build()
    assert fuse_activations(before) is before


def test_clamp_after_a_pool_of_a_shared_tensor_stays() -> None:
    net = builder()
    shared = net.conv(3, (1, 1))
    net.max_pool(1, 1)
    net.activation(RELU)
    net.add(shared)
    before = net.build()
    assert fuse_activations(before) is before


def test_clamp_of_a_tensor_that_is_also_an_output_stays() -> None:
    net = builder(4)
    shared = net.dense(4)
    net.activation(RELU)
    graph = Graph("net", ("input",), (shared, net.output), tuple(net.ops), net.tensors)
    assert fuse_activations(graph) is graph


def test_clamp_of_the_input_stays() -> None:
    net = builder()
    net.activation(RELU)
    net.ops.append(MaxPool2d("pool", net.output, "pool.out", Size2d(1, 1), Size2d(1, 1)))
    net.tensors["pool.out"] = type(net.tensors["input"])("pool.out", (6, 6, 3))
    net.output = "pool.out"
    before = net.build()
    assert fuse_activations(before) is before


def test_clamps_in_a_row_become_one() -> None:
    net = builder(5)
    net.activation(RELU)
    net.activation(RELU6)
    before = net.build()
    after = fuse_activations(before)
    (op,) = after.ops
    assert isinstance(op, Activation)
    assert op.activation is RELU6
    assert_same_outputs(before, after)


@pytest.mark.parametrize("first", list(ActivationFunction))
@pytest.mark.parametrize("second", list(ActivationFunction))
def test_composed_clamp_equals_one_after_the_other(first: ActivationFunction, second: ActivationFunction) -> None:
    x = np.linspace(-10, 10, 201)
    composed = compose_clamps(first, second)
    one_after_the_other = np.clip(np.clip(x, first.lower, first.upper), second.lower, second.upper)
    if composed is None:
        assert {first, second} in ({RELU, RELU_N1_TO_1}, {RELU6, RELU_N1_TO_1})
    else:
        np.testing.assert_array_equal(np.clip(x, composed.lower, composed.upper), one_after_the_other)
