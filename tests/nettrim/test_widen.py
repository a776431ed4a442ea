"""Activations that are int16 instead of int8."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.widen import quantization_classes, widenable, with_requantizations
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Add, Dense, Requantize, Softmax, op_inputs
from tests.graphs import RELU, GraphBuilder, quantized, random_cnn, random_inputs, random_mlp, widened

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 1))
def test_every_operator_has_one_type_and_requantisations_change_it(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    graph = widened(random_cnn(rng), rng, share)
    for op in graph.ops:
        types = {graph.tensors[name].dtype for name in (*op_inputs(op), op.output)}
        assert types == {"int8", "int16"} if isinstance(op, Requantize) else len(types) == 1


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0, 1))
def test_requantisations_leave_a_float_network_as_it_is(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    graph = random_cnn(rng)
    wide = [name for found in widenable(graph) if rng.random() < share for name in found]
    rewritten, bases, types = with_requantizations(graph, wide)
    samples = random_inputs(graph, rng, 5)
    np.testing.assert_array_equal(run_graph(rewritten, samples), run_graph(graph, samples))
    assert set(wide) <= {name for name in types if name not in bases}
    outputs = [op.output for op in rewritten.ops]
    assert len(outputs) == len(set(outputs))


def test_tensors_that_share_a_quantisation_are_one_class() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (6, 6, 2))
    first = builder.conv(3)
    pooled = builder.max_pool()
    flat = builder.flatten()
    dense = builder.dense(4, RELU)
    graph = builder.build()
    assert quantization_classes(graph) == (
        frozenset({"input"}),
        frozenset({first, pooled, flat}),
        frozenset({dense}),
    )
    assert widenable(graph) == (frozenset({first, pooled, flat}),)


def test_a_tensor_that_two_operators_read_is_requantised_once() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (6,))
    first = builder.dense(5)
    second = builder.dense(5)
    third = builder.add(first)
    builder.dense(3)
    rewritten, _, _ = with_requantizations(builder.build(), {second, third})
    names = [op.output for op in rewritten.ops if isinstance(op, Requantize)]
    assert names == [f"{first}/int16", "dense3.out"]
    add = next(op for op in rewritten.ops if isinstance(op, Add))
    assert (add.first, add.second) == (second, f"{first}/int16")


@pytest.mark.parametrize("make", [random_mlp, random_cnn])
def test_int16_errs_less_than_int8(make: type[Graph]) -> None:
    rng = np.random.default_rng(3)
    graph = make(rng)
    graph = _without_softmax(graph)
    samples = random_inputs(graph, rng, 200)
    exact = run_graph(graph, samples)
    errors = []
    for wide in (frozenset[str](), frozenset[str]().union(*widenable(graph))):
        other = quantized(graph, np.random.default_rng(4), wide)
        integers = run_graph(other, other.quantization("input").quantize(samples))
        errors.append(np.linalg.norm(other.quantization(other.outputs[0]).dequantize(integers) - exact))
    assert errors[1] < errors[0]  # inputs, outputs and weights stay int8


def _without_softmax(graph: Graph) -> Graph:
    last = graph.ops[-1]
    assert isinstance(last, Softmax)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != last.output}
    return Graph(graph.name, graph.inputs, (last.input,), graph.ops[:-1], tensors)


def test_dense_layers_on_int16_scale_exactly() -> None:
    rng = np.random.default_rng(5)
    graph = widened(random_mlp(rng), rng)
    for op in graph.ops:
        if isinstance(op, Dense):
            scales = [graph.quantization(name).scale.astype(np.float64) for name in (op.input, op.output)]
            fractions = [np.frexp(scale)[0] for scale in scales]
            assert all(np.all(fraction == 0.5) for fraction in fractions)
            fraction = np.frexp(graph.quantization(op.weight).scale.astype(np.float64))[0]
            np.testing.assert_array_equal(np.ldexp(fraction, 14), np.rint(np.ldexp(fraction, 14)))
