"""Transposes move behind what computes value by value; the outputs stay as they are."""

import numpy as np
import pytest

from nettrim.passes import simplify, sink_transposes
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction, Function
from tests.graphs import GraphBuilder, quantized, random_branches, random_functions, random_inputs, random_moves

THERE, BACK = (2, 0, 1), (1, 2, 0)


def net() -> GraphBuilder:
    builder = GraphBuilder(np.random.default_rng(7), (4, 5, 3))
    builder.conv(6, (1, 1))
    return builder


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


def sunk(graph: Graph) -> Graph:
    """Return the graph with its transposes sunk, as floats and as integers with the same outputs as before."""
    samples = random_inputs(graph, np.random.default_rng(0), 8)
    after = simplify(sink_transposes(graph))
    np.testing.assert_array_equal(run_graph(graph, samples), run_graph(after, samples))
    whole = quantized(graph, np.random.default_rng(1))
    integers = random_inputs(whole, np.random.default_rng(2), 50)
    np.testing.assert_array_equal(run_graph(whole, integers), run_graph(simplify(sink_transposes(whole)), integers))
    return after


def test_clamps_and_functions_between_transposes_need_none() -> None:
    builder = net()
    builder.transpose(*THERE)
    builder.function(Function.TANH)
    builder.activation(ActivationFunction.RELU)
    builder.transpose(*BACK)
    builder.conv(2, (1, 1))
    assert kinds(sunk(builder.build())) == ["Conv2d", "UnaryFunction", "Activation", "Conv2d"]


def test_a_sum_of_two_transposed_tensors_is_transposed_once() -> None:
    builder = net()
    first = builder.transpose(*THERE)
    builder.output = "input"
    builder.conv(6, (1, 1))
    builder.transpose(*THERE)
    builder.add(first, ActivationFunction.RELU)
    builder.transpose(*BACK)
    builder.conv(2, (1, 1))
    assert kinds(sunk(builder.build())) == ["Conv2d", "Conv2d", "Add", "Conv2d"]


def test_a_square_of_a_transposed_tensor_is_transposed_after() -> None:
    builder = net()
    builder.mul(builder.transpose(*THERE))
    builder.transpose(*BACK)
    assert kinds(sunk(builder.build())) == ["Conv2d", "Mul"]


@pytest.mark.parametrize("order", [THERE, (1, 0, 2)])
def test_two_transposes_in_a_row_are_one(order: tuple[int, ...]) -> None:
    builder = net()
    builder.transpose(*THERE)
    builder.function(Function.SIGMOID)
    builder.transpose(*order)
    builder.conv(2, (1, 1))
    assert kinds(sunk(builder.build())) == ["Conv2d", "UnaryFunction", "Transpose", "Conv2d"]


def test_what_others_read_as_well_stays_transposed() -> None:
    builder = net()
    turned = builder.transpose(*THERE)
    builder.function(Function.SIGMOID)
    builder.mul(turned)
    builder.transpose(*BACK)
    assert kinds(sunk(builder.build())) == ["Conv2d", "Transpose", "UnaryFunction", "Mul", "Transpose"]


def test_sums_of_tensors_in_other_orders_stay() -> None:
    builder = GraphBuilder(np.random.default_rng(7), (4, 4, 4))
    first = builder.transpose(*THERE)
    builder.output = "input"
    builder.transpose(*BACK)
    builder.add(first)
    assert kinds(sunk(builder.build())) == ["Transpose", "Transpose", "Add"]


@pytest.mark.parametrize("make", [random_branches, random_functions, random_moves])
@pytest.mark.parametrize("seed", range(3))
def test_whole_networks_keep_their_outputs(make: type, seed: int) -> None:
    sunk(make(np.random.default_rng(seed)))
