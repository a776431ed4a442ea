"""Tables of functions on int8 against LiteRT's reference kernels, over all inputs; derivatives and slopes."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import OpResolverType

from nettrim.operator_norm import STEEPEST
from nettrim.quantize import quantize_graph
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import GraphError
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import Function, UnaryFunction
from nettrim_runtime.unary import evaluate, lookup_table
from tests.exporters.test_tflite import run_litert
from tests.graphs import EVERYWHERE, GraphBuilder

Array = npt.NDArray[Any]

ALL_INPUTS = np.arange(-128, 128, dtype=np.int8)[np.newaxis]


def quantized_function(function: Function, rng: np.random.Generator) -> Graph:
    """Return one function on int8 of a random range, from 0.1 to 100 wide."""
    builder = GraphBuilder(rng, (256,))
    builder.function(function, float(rng.uniform(0, 1.5)) if function is Function.LEAKY_RELU else 0.0)
    (op,) = builder.ops
    assert isinstance(op, UnaryFunction)
    low, high = np.exp(rng.uniform(np.log(0.1), np.log(100), 2)) * rng.choice([(-1, 1), (-1, 0), (0, 1)])
    outputs = evaluate(op, np.linspace(low, high, 1000))
    return quantize_graph(builder.build(), {"input": (low, high), op.output: (outputs.min(), outputs.max())})


@pytest.mark.parametrize("function", EVERYWHERE)
def test_tables_are_those_of_the_reference_kernels_for_many_scales(function: Function) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        graph = quantized_function(function, rng)
        reference = run_litert(render_tflite(graph), ALL_INPUTS)
        np.testing.assert_array_equal(run_graph(graph, ALL_INPUTS), reference)


@pytest.mark.parametrize("function", EVERYWHERE)
def test_default_kernels_come_within_one_step_of_the_tables(function: Function) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        graph = quantized_function(function, rng)
        default = run_litert(render_tflite(graph), ALL_INPUTS, OpResolverType.AUTO)
        assert np.abs(run_graph(graph, ALL_INPUTS).astype(int) - default).max() <= 1


@pytest.mark.parametrize("function", EVERYWHERE)
def test_no_slope_is_steeper_than_its_bound_and_one_almost_is(function: Function) -> None:
    x = np.linspace(-8, 8, 160_001)
    steepest = np.abs(np.diff(evaluate(UnaryFunction("f", "x", "y", function, 0.3), x)) / 1e-4).max()
    assert 0.999 * STEEPEST[function] <= steepest <= STEEPEST[function] * (1 + 1e-6)  # rounding of the differences


def test_a_hard_swish_of_negative_values_only_is_quantised_so_that_it_runs() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (256,))
    output = builder.function(Function.HARD_SWISH)
    graph = quantize_graph(builder.build(), {"input": (-200.0, 0.0), output: (-0.375, 0.0)})
    np.testing.assert_array_equal(run_litert(render_tflite(graph), ALL_INPUTS), run_graph(graph, ALL_INPUTS))


@pytest.mark.parametrize(("function", "alpha"), [(Function.LEAKY_RELU, -0.1), (Function.TANH, 0.5)])
def test_an_alpha_that_means_nothing_is_refused(function: Function, alpha: float) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    builder.function(function, alpha)
    with pytest.raises(GraphError, match=rf"alpha {alpha}, expected zero or more of a leaky ReLU"):
        builder.build()


def test_a_hard_swish_to_a_scale_too_small_for_its_arithmetic_is_refused() -> None:
    scales = (Quantization(np.array([scale], np.float32)) for scale in (1.0, 0.001))
    with pytest.raises(GraphError, match=r"from scale 1\.0 to 0\.001\d*, expected 1/128"):
        lookup_table(UnaryFunction("f", "x", "y", Function.HARD_SWISH), *scales)


def test_roots_are_those_of_the_reference_kernel_for_many_scales() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        builder = GraphBuilder(rng, (256,))
        output = builder.function(Function.RSQRT)
        largest = np.exp(rng.uniform(-8, 6))
        smallest = largest * rng.uniform(0.001, 0.2)
        graph = quantize_graph(builder.build(), {"input": (0.0, largest), output: (0.0, smallest**-0.5)})
        np.testing.assert_array_equal(run_litert(render_tflite(graph), ALL_INPUTS), run_graph(graph, ALL_INPUTS))


def test_slopes_with_a_zero_point_are_refused() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4,))
    output = builder.prelu()
    graph = quantize_graph(builder.build(), {"input": (-1.0, 1.0), output: (-1.0, 1.0)})
    moved = replace(graph.tensors["prelu0.slope"], quantization=Quantization(np.array([0.01], np.float32), 3))
    with pytest.raises(GraphError, match="slopes with a zero point or several scales, expected one scale"):
        graph.with_tensors([moved])
