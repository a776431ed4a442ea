"""Kernels against naive loops written from the operators' definitions."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nettrim_runtime import linear
from nettrim_runtime.csr import csr_fault, csr_from_dense
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.errors import DataError, GraphError
from nettrim_runtime.fixed_point import (
    exact_multiplier,
    multiply_by_quantized_multiplier,
    multiply_rounding_once,
    multiply_wide,
    quantize_multiplier,
)
from nettrim_runtime.graph import Graph
from nettrim_runtime.linear import Step, csr_dense_step, dense_step
from nettrim_runtime.ops import Conv2d, Dense, Padding, Size2d
from nettrim_runtime.softmax import softmax_exponentials
from tests.graphs import (
    RELU,
    GraphBuilder,
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
)

Array = npt.NDArray[Any]


def naive_conv(image: Array, weight: Array, bias: Array, op: Conv2d) -> Array:
    """One image (height, width, channels), float64, by the definition."""
    pad = op.padding
    padded = np.pad(image.astype(np.float64), ((pad.top, pad.bottom), (pad.left, pad.right), (0, 0)))
    n_outputs, height, width, n_group = weight.shape
    rows = (padded.shape[0] - (height - 1) * op.dilation.height - 1) // op.stride.height + 1
    columns = (padded.shape[1] - (width - 1) * op.dilation.width - 1) // op.stride.width + 1
    result = np.zeros((rows, columns, n_outputs))
    for row, column, output in np.ndindex(result.shape):
        first = output // (n_outputs // op.groups) * n_group
        total = float(bias[output])
        for ky, kx, channel in np.ndindex(height, width, n_group):
            y = row * op.stride.height + ky * op.dilation.height
            x = column * op.stride.width + kx * op.dilation.width
            total += padded[y, x, first + channel] * weight[output, ky, kx, channel]
        result[row, column, output] = total
    return result


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": (3, 3)},
        {"kernel": (3, 2), "padding": Padding(1, 0, 0, 2), "stride": Size2d(2, 1)},
        {"kernel": (2, 2), "dilation": Size2d(2, 3), "padding": Padding(1, 1, 1, 1)},
        {"kernel": (3, 3), "groups": 2},
        {"kernel": (3, 3), "groups": 4, "padding": Padding(1, 1, 1, 1)},
        {"kernel": (1, 1)},
    ],
)
def test_a_convolution_equals_the_naive_sum(options: dict[str, Any], rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (7, 6, 4))
    builder.conv(8, **options)
    graph = builder.build()
    op = graph.layers[0]
    assert isinstance(op, Conv2d)
    samples = random_inputs(graph, rng, 2)
    weight, bias = graph.tensors[op.weight].values(), graph.tensors[op.bias].values()
    expected = [naive_conv(sample, weight, bias, op) for sample in samples]
    np.testing.assert_allclose(run_graph(graph, samples), expected, atol=1e-5)  # float32 sums of 36 terms


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_a_quantised_graph_stays_close_to_its_float_graph(make: Any, rng: np.random.Generator) -> None:
    graph = make(rng)
    integer = quantized(graph, rng)
    samples = random_inputs(graph, rng, 32)
    integers = run_graph(integer, integer.quantization("input").quantize(samples))
    probabilities = integer.quantization(integer.outputs[0]).dequantize(integers)
    error = np.abs(probabilities - run_graph(graph, samples)).mean()
    assert error < 0.02  # random samples outside the 32 that set the ranges saturate now and then


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_results_do_not_depend_on_the_batch_size(make: Any, rng: np.random.Generator) -> None:
    graph = quantized(make(rng), rng)
    samples = random_inputs(graph, rng, 13)
    expected = run_graph(graph, samples, batch_size=13)
    for batch_size in (1, 4):
        np.testing.assert_array_equal(run_graph(graph, samples, batch_size), expected)


def test_an_input_of_another_shape_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(DataError, match=r"shape \(1, 19\) and type float32, expected \(1, 20\) and float32"):
        prepare(random_mlp(rng)).run(np.zeros((1, 19), np.float32))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 300), st.floats(0, 1))
def test_the_csr_kernel_equals_the_dense_one(seed: int, rows: int, columns: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((rows, columns)) < density, rng.integers(-127, 128, (rows, columns)), 0)
    matrix = csr_from_dense(weight.astype(np.int8))
    assert csr_fault(matrix) is None
    np.testing.assert_array_equal(matrix.to_dense(), weight)
    inputs = rng.integers(-255, 256, (3, columns)).astype(np.float64)
    dense, sparse = np.empty((3, rows)), np.empty((3, rows))
    dense_step(inputs, weight, dense)()
    csr_dense_step(inputs, matrix, sparse)()
    np.testing.assert_array_equal(dense, sparse)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_sparse_convolution_takes_the_faster_kernel_and_has_the_same_bits(
    batch: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = quantized(random_cnn(rng, density=0.1), rng)
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    stored = graph.with_tensors(
        replace(weight, data=csr_from_dense(weight.values().reshape(weight.shape[0], -1))) for weight in weights
    )
    x = random_inputs(graph, rng, batch)
    expected = prepare(graph, batch).run(x)[0]
    for preferred in ("csr_dense_step", "dense_step"):
        kernels = []

        def seconds(step: Step, preferred: str = preferred, kernels: list[str] = kernels) -> float:
            kernels.append(step.__qualname__.split(".")[0])
            return float(kernels[-1] != preferred)

        monkeypatch.setattr(linear, "_shortest_seconds", seconds)
        np.testing.assert_array_equal(prepare(stored, batch).run(x)[0], expected)
        n_plain = sum(isinstance(op, Dense) or op.groups == 1 for op in graph.layers)
        assert sorted(kernels) == sorted(["csr_dense_step", "dense_step"] * n_plain)


def gemmlowp_multiply(value: int, multiplier: int, shift: int) -> int:
    """Round twice as gemmlowp words it: a truncating division with a nudge, then a remainder test."""
    product = (value << max(shift, 0)) * multiplier
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    total = product + nudge
    high = abs(total) // (1 << 31) * (1 if total >= 0 else -1)
    right = max(-shift, 0)
    remainder = high & ((1 << right) - 1)
    threshold = (((1 << right) - 1) >> 1) + (1 if high < 0 else 0)
    return (high >> right) + (1 if remainder > threshold else 0)


@given(st.integers(-(2**24), 2**24), st.floats(1e-8, 16, allow_subnormal=False))
def test_scaling_rounds_as_gemmlowp_does(value: int, real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    scaled = multiply_by_quantized_multiplier(np.array([value], np.int64), multiplier, shift)
    assert int(scaled[0]) == gemmlowp_multiply(value, multiplier, shift)
    assert abs(multiplier * 2.0 ** (shift - 31) - real) <= real * 2**-31


def test_a_multiplier_too_small_for_the_shift_is_zero() -> None:
    assert quantize_multiplier(2.0**-40) == (0, 0)
    assert quantize_multiplier(0.0) == (0, 0)


@pytest.mark.parametrize("real", [2.0**30, math.inf, math.nan])
def test_a_multiplier_too_large_for_the_shift_is_an_error(real: float) -> None:
    with pytest.raises(GraphError, match="its scales make a factor of"):
        quantize_multiplier(real)


@given(st.floats(1e-5, 0.9), st.integers(0, 2**32 - 1))
def test_a_dense_layers_single_rounding_equals_the_double_for_every_accumulator(real: float, seed: int) -> None:
    limit = min(int(256 / real), 2**20)
    pair = exact_multiplier(real, limit)
    assume(pair is not None)
    accumulators = np.random.default_rng(seed).integers(-limit, limit + 1, 2000)
    products = accumulators.astype(np.float64) * real
    expected = np.copysign(np.floor(np.abs(products) + 0.5), products)
    np.testing.assert_array_equal(multiply_rounding_once(accumulators.copy(), *pair), expected)


def test_a_scale_without_an_exact_multiplier_is_known_as_such() -> None:
    assert exact_multiplier(5.808883188552403e-06, 2**31) is None
    assert exact_multiplier(5.808883188552403e-06, 2**22) is not None


def test_softmax_exponentials_fall_from_one_and_end_at_zero() -> None:
    table = softmax_exponentials(0.1) / 2**31
    np.testing.assert_allclose(table, np.exp(-0.1 * np.arange(256)), atol=2e-7)  # the polynomial's own error
    assert softmax_exponentials(0.3)[255] == 0  # beyond exp(-32) a value is not counted


def test_a_graph_that_breaks_an_invariant_is_refused_when_built(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    with pytest.raises(GraphError, match="are not all computed"):
        Graph(graph.name, graph.inputs, graph.outputs, graph.ops[:-1], graph.tensors)
    with pytest.raises(GraphError, match="no earlier operator writes"):
        Graph(graph.name, graph.inputs, graph.outputs, graph.ops[::-1], graph.tensors)


@pytest.mark.parametrize(
    ("add", "finding"),
    [
        (lambda net: net.pad((1, 0), (0, 0)), r"Pad 'pad0': \(1, 0\), \(0, 0\) around \(4, 3, 2\)"),
        (lambda net: net.pad((1, 0, -1), (0, 0, 0)), "expected zero or more"),
        (lambda net: net.slice((0, 0, 0), (4, 3, 3), (1, 1, 1)), r"leave \(4, 3, 2\) or nothing of it"),
        (lambda net: net.slice((0, 0, 0), (4, 3, 2), (1, 1, 0)), r"leave \(4, 3, 2\) or nothing of it"),
        (lambda net: net.transpose(0, 1, 1), r"permutation \(0, 1, 1\) of \(4, 3, 2\)"),
        (lambda net: net.resize(0, 3), "expected at least one pixel"),
        (lambda net: net.mean(1, 0), "expected some in increasing order"),
        (lambda net: net.mean(0, 1, 2, keep_dims=False), "all of them with keep_dims"),
    ],
)
def test_moves_and_means_that_do_not_fit_are_refused(add: Any, finding: str, rng: np.random.Generator) -> None:
    with pytest.raises(GraphError, match=finding):
        add(GraphBuilder(rng, (4, 3, 2)))


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)])
def test_a_concatenation_puts_channels_side_by_side(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, shape)
    clamped = builder.activation(RELU)
    builder.output = "input"
    builder.concat(clamped, "input")
    for graph in (builder.build(), quantized(builder.build(), rng)):
        samples = random_inputs(graph, rng, 3)
        zero = graph.quantization("input").zero_point if graph.is_quantized else 0
        expected = np.concatenate([samples, np.maximum(samples, zero), samples], axis=-1)
        np.testing.assert_array_equal(run_graph(graph, samples), expected)


def test_a_concatenation_of_images_of_two_sizes_is_refused(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 3))
    builder.max_pool()
    with pytest.raises(GraphError, match=r"\(2, 2, 3\), \(4, 4, 3\).* differ beside their channels"):
        builder.concat("input")


def test_a_concatenation_of_one_input_is_refused(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4,))
    with pytest.raises(GraphError, match="expected two or more"):
        builder.concat()


def test_a_concatenation_of_two_quantisations_is_refused(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4,))
    hidden = builder.dense(3)
    builder.concat("input")
    graph = quantized(builder.build(), rng)
    found = graph.quantization(hidden)
    other = replace(graph.tensors[hidden], quantization=replace(found, zero_point=found.zero_point + 1))
    with pytest.raises(GraphError, match="Concat 'concat1': inputs and output must share one quantization"):
        graph.with_tensors([other])


def test_fully_pruned_rows_give_their_bias(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6,))
    builder.dense(4, RELU, density=0.0)
    graph = builder.build()
    integer = quantized(graph, rng)
    outputs = run_graph(integer, random_inputs(integer, rng, 3))
    bias = graph.tensors["dense0.bias"].values()
    step = float(integer.quantization(integer.outputs[0]).scale[0])
    real = integer.quantization(integer.outputs[0]).dequantize(outputs)
    np.testing.assert_allclose(real, np.tile(np.maximum(bias, 0), (3, 1)), atol=step / 2 + 1e-6)


@given(st.integers(-(1 << 46), 1 << 46), st.integers(1 << 14, (1 << 15) - 1), st.integers(-30, 8))
def test_wide_sums_round_half_up(accumulator: int, multiplier: int, shift: int) -> None:
    exact = Fraction(accumulator * multiplier) * Fraction(2) ** (shift - 15)
    found = multiply_wide(np.array([accumulator], np.int64), multiplier, shift)
    assert found[0] == math.floor(exact + Fraction(1, 2))
