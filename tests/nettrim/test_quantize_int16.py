"""Functions, pairs and softmaxes on int16: the scales that their arithmetic asks for, and what stays in int8."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.calibrate import quantize_on
from nettrim.quantize import quantize_graph
from nettrim.widen import widenable
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.fixed_output import PROBABILITY, WIDE
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import INT8_FUNCTIONS, Function, Requantize
from tests.exporters.test_tflite import DEFAULT, run_litert, steps_apart
from tests.graphs import RELU6, GraphBuilder, random_functions, random_inputs, widened

Build = Callable[[GraphBuilder, str], object]
WIDTH = 12
seeds = st.integers(0, 2**32 - 1)
spans = st.floats(-9, 7)  # powers of ten

OPERATORS: dict[str, Build] = {
    "add": lambda net, other: net.add(other),
    "sub": lambda net, other: net.sub(other),
    "mul": lambda net, other: net.mul(other),
    "sigmoid": lambda net, _: net.function(Function.SIGMOID),
    "tanh": lambda net, _: net.function(Function.TANH),
    "leaky": lambda net, _: net.function(Function.LEAKY_RELU, 0.3),
    "softmax": lambda net, _: net.softmax(),
}


def behind_layers(build: Build, rng: np.random.Generator, factors: tuple[float, float]) -> Graph:
    """Return an operator on two dense layers whose weights have factors."""
    builder = GraphBuilder(rng, (WIDTH,))
    first = builder.dense(WIDTH)
    builder.output = "input"
    builder.dense(WIDTH)
    build(builder, first)
    graph = builder.build()
    constants = [
        replace(graph.tensors[name], data=graph.tensors[name].values() * np.float32(factor))
        for layer, factor in zip(graph.layers, factors, strict=True)
        for name in (layer.weight, layer.bias)
    ]
    return graph.with_tensors(constants)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(list(OPERATORS)), spans, spans, spans)
def test_any_ranges_are_quantised_so_that_the_reference_kernels_run(
    seed: int, kind: str, first: float, second: float, output: float
) -> None:
    rng = np.random.default_rng(seed)
    graph = behind_layers(OPERATORS[kind], rng, (10.0**first, 10.0**second))
    largest = [1.0, *(rng.uniform(0.2, 3) * 10.0**power for power in (first, second, output))]
    names = ("input", *(op.output for op in graph.ops))
    ranges = {name: (-span, rng.uniform(0.1, 1) * span) for name, span in zip(names, largest, strict=True)}
    quantized = quantize_graph(graph, ranges, frozenset().union(*widenable(graph)))
    samples = random_inputs(quantized, rng, 50)
    np.testing.assert_array_equal(run_graph(quantized, samples), run_litert(render_tflite(quantized), samples))


@pytest.mark.parametrize(("largest", "dtype"), [(1e8, "int16"), (1e13, "int8")])
def test_a_function_of_enormous_int8_values_stays_in_int8(largest: float, dtype: str) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (WIDTH,))
    layer = builder.dense(WIDTH)
    builder.function(Function.HARD_SWISH)
    builder.function(Function.TANH)
    gate = builder.output
    builder.mul(layer)
    builder.dense(3)
    graph = builder.build()
    ranges = dict.fromkeys(("input", *(op.output for op in graph.ops)), (-1.0, 1.0))
    ranges["hard_swish1.out"] = (-0.4, largest)
    quantized = quantize_graph(graph, ranges, frozenset({gate}))
    assert quantized.tensors[gate].dtype == dtype
    samples = random_inputs(quantized, np.random.default_rng(0), 50)
    np.testing.assert_array_equal(run_graph(quantized, samples), run_litert(render_tflite(quantized), samples))


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("span", [0.0, 1e-8])
def test_outputs_that_hardly_leave_zero_keep_their_clamp_in_int32(span: float, is_wide: bool) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (WIDTH,))
    layer = builder.dense(WIDTH)
    builder.sub(layer, RELU6)
    output = builder.output
    builder.dense(3)
    graph = builder.build()
    ranges = dict.fromkeys(("input", *(op.output for op in graph.ops)), (-1.0, 1.0)) | {output: (0.0, span)}
    quantized = quantize_graph(graph, ranges, {layer, output} if is_wide else set())
    samples = random_inputs(quantized, np.random.default_rng(0), 50)
    np.testing.assert_array_equal(run_graph(quantized, samples), run_litert(render_tflite(quantized), samples))


def test_what_a_softmax_on_int16_writes_is_requantised_to_its_scale_on_int8() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (8,))
    logits = builder.dense(6)
    probabilities = builder.softmax()
    graph = widened(builder.build(), np.random.default_rng(0))
    assert graph.tensors[logits].dtype == "int16"
    last = graph.ops[-1]
    assert isinstance(last, Requantize)
    assert graph.quantization(last.input).same_as(WIDE)
    assert graph.quantization(probabilities).same_as(PROBABILITY)


def test_what_a_sigmoid_on_int8_writes_is_requantised_to_its_scale_on_int16() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (8,))
    layer = builder.dense(8)
    builder.output = "input"
    gate = builder.function(Function.SIGMOID)
    builder.mul(layer)
    builder.dense(3)
    graph = quantize_on(builder.build(), np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32), {layer})
    assert graph.quantization(gate).same_as(PROBABILITY)
    assert graph.quantization(f"{gate}/int16").same_as(WIDE)


@pytest.mark.parametrize("stays", [*INT8_FUNCTIONS, "prelu", "log_softmax"])
def test_operators_that_stay_in_int8_are_never_widened(stays: Function | str) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (8,))
    before = builder.dense(6)
    output = builder.function(stays) if isinstance(stays, Function) else getattr(builder, stays)()
    behind = builder.dense(4)
    builder.dense(3)
    classes = widenable(builder.build())
    assert set(classes) == {frozenset({before}), frozenset({behind})}
    assert output not in frozenset().union(*classes)


@pytest.mark.parametrize("seed", range(4))
def test_default_kernels_come_within_one_step_of_the_reference_kernels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = widened(random_functions(rng), rng)
    content, samples = render_tflite(graph), random_inputs(graph, rng, 100)
    assert steps_apart(run_litert(content, samples, DEFAULT), run_litert(content, samples)) <= 1


def test_functions_and_pairs_err_less_on_int16() -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (40,))
    layer = builder.dense(32)
    builder.function(Function.TANH)
    first = builder.output
    builder.output = layer
    builder.function(Function.SIGMOID)
    builder.mul(first)
    builder.sub(layer)
    last = builder.function(Function.LEAKY_RELU, 0.1)
    graph = builder.build()
    samples = rng.normal(size=(300, 40)).astype(np.float32)
    exact = run_graph(graph, samples)
    errors = []
    for wide in (frozenset[str](), frozenset().union(*widenable(graph))):
        quantized = quantize_on(graph, samples, wide)
        outputs = run_graph(quantized, quantized.quantization("input").quantize(samples))
        errors.append(np.linalg.norm(quantized.quantization(last).dequantize(outputs) - exact))
    assert errors[1] < 0.9 * errors[0]
