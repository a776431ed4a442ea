"""Which activations share a quantisation, and which range it covers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.quantize import (
    SMALLEST_SOFTMAX_SPAN,
    check_quantize,
    quantization_families,
    quantization_of_range,
    quantize_graph,
)
from nettrim_runtime.engine import prepare
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.fixed_output import PROBABILITY
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Carrier, op_inputs
from tests.graphs import RELU, GraphBuilder, random_inputs

Range = tuple[float, float]

STEPS = st.lists(st.sampled_from(["conv", "add", "concat", "max", "mean", "clamp", "reshape"]), max_size=9)


def random_graph(steps: list[str], seed: int) -> Graph:
    """Return a network of these operators on 4 x 4 images; concatenations and additions reach back to earlier ones."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder(rng, (4, 4, 2))
    images = ["input"]
    for step in steps:
        shape = builder.tensors[builder.output].shape
        match step:
            case "conv":
                builder.conv(2, (1, 1))
            case "add":
                builder.add(str(rng.choice([name for name in images if builder.tensors[name].shape == shape])))
            case "concat":
                builder.concat(*map(str, rng.choice(images, size=rng.integers(1, 3))))
            case "max":
                builder.max_pool(1, 1)
            case "mean":
                builder.average_pool((1, 1))
            case "clamp":
                builder.activation(RELU)
            case _:
                builder.reshape(*shape)
        images.append(builder.output)
    return builder.build()


def observed(graph: Graph, seed: int) -> dict[str, Range]:
    program = prepare(graph, 8)
    program.run(random_inputs(graph, np.random.default_rng(seed), 8))
    return {name: (float(values.min()), float(values.max())) for name, values in program.buffers.items()}


@settings(deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_all_that_a_carrier_touches_has_one_quantisation_and_nothing_else_does(steps: list[str], seed: int) -> None:
    graph = random_graph(steps, seed)
    family = quantization_families(graph)
    carriers = [{*op_inputs(op), op.output} for op in graph.ops if isinstance(op, Carrier)]
    for name in family:
        reached = {name}
        while any(reached & touched and not touched <= reached for touched in carriers):
            reached = reached.union(*(touched for touched in carriers if reached & touched))
        assert {other for other in family if family[other] == family[name]} == reached


@settings(deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_a_quantisation_covers_the_ranges_of_all_that_share_it_and_no_more(steps: list[str], seed: int) -> None:
    graph = random_graph(steps, seed)
    ranges, family = observed(graph, seed), quantization_families(graph)
    int8 = quantize_graph(graph, ranges)
    for name in family:
        shared = [ranges[other] for other in family if family[other] == family[name]]
        covering = quantization_of_range(min(low for low, _ in shared), max(high for _, high in shared))
        assert int8.quantization(name).same_as(covering)


def test_ranges_before_and_behind_nested_concatenations_become_one() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    first = builder.activation(RELU)
    second = builder.dense(4)
    inner = builder.concat(first)
    third = builder.dense(4)
    outer = builder.concat(inner)
    ranges = {"input": (-1.0, 2.0), second: (-3.0, 0.0), third: (0.0, 6.0)}
    graph = quantize_graph(builder.build(), ranges)
    for name in ("input", first, second, inner, third, outer):
        assert graph.quantization(name).same_as(quantization_of_range(-3.0, 6.0))


def test_what_is_joined_for_a_softmax_keeps_a_span_that_the_softmax_takes() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    hidden = builder.dense(4)
    builder.concat("input")
    builder.softmax()
    graph = quantize_graph(builder.build(), {"input": (0.0, 1e-9), hidden: (0.0, 1e-9)})
    assert graph.quantization(hidden).same_as(quantization_of_range(0.0, 1e-9, SMALLEST_SOFTMAX_SPAN))


def test_joined_softmaxes_keep_the_scale_of_a_softmax() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    first = builder.softmax()
    builder.output = "input"
    builder.softmax()
    joined = builder.concat(first)
    graph = quantize_graph(builder.build(), {"input": (-1.0, 1.0)})
    assert graph.quantization(joined).same_as(PROBABILITY)


def test_a_softmax_joined_with_something_else_is_refused() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    builder.softmax()
    builder.reshape(4)
    builder.concat("input")
    with pytest.raises(UnsupportedOperatorError, match=r"Softmax 'softmax0'.* with 'input', expected outputs"):
        check_quantize(builder.build())


@pytest.mark.parametrize(("gates", "values"), [(5.0, 9.0), (0.0, 9.0), (0.0, 1e15)])
def test_products_of_a_gate_that_never_opened_keep_room_for_their_int32_sums(gates: float, values: float) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    gate = builder.dense(4, RELU)
    product = builder.mul("input")
    graph = quantize_graph(builder.build(), {"input": (-values, values), gate: (0.0, gates), product: (0.0, 0.0)})
    first, second, output = (float(graph.quantization(name).scale[0]) for name in (gate, "input", product))
    assert first * second / output < 2**16  # beyond, 255 * 255 shifted left would leave int32


def test_slopes_become_int8_with_one_scale() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (3,))
    output = builder.prelu()
    graph = builder.build()
    slope = quantize_graph(graph, {"input": (-1.0, 1.0), output: (-1.0, 1.0)}).tensors["prelu0.slope"]
    assert slope.quantization is not None
    assert (slope.dtype, slope.quantization.zero_point) == ("int8", 0)
    real, step = slope.quantization.dequantize(slope.values()), float(slope.quantization.scale[0])
    np.testing.assert_allclose(real, graph.tensors["prelu0.slope"].values(), atol=step / 2 + 1e-7)  # float32 rounding
