"""The .tflite file against LiteRT: reference kernels give the engine's bits, default ones come within a step."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph, Quantization, Tensor
from nettrim_runtime.ops import ActivationFunction, Dense, Function, NearestRule, Padding, Size2d
from tests.graphs import (
    EVERYWHERE,
    OTHER_SCALES,
    GraphBuilder,
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
    rescaled,
    widened,
)

Array = npt.NDArray[Any]
Build = Callable[[GraphBuilder], object]

NONE, RELU, RELU6, RELU_N1_TO_1 = ActivationFunction
REFERENCE, DEFAULT = OpResolverType.BUILTIN_REF, OpResolverType.AUTO
IMAGE = (9, 7, 4)
N_SAMPLES = 100


def run_litert(content: bytes, samples: Array, resolver: OpResolverType = REFERENCE) -> Array:
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, samples.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, samples)
    interpreter.invoke()
    result: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


def read_back(content: bytes) -> Any:
    return published.ModelT.InitFromPackedBuf(content, 0)


def operator_codes(content: bytes) -> list[tuple[int, int]]:
    model = read_back(content)
    codes = model.operatorCodes
    return [(codes[op.opcodeIndex].builtinCode, codes[op.opcodeIndex].version) for op in model.subgraphs[0].operators]


def build(operators: Build, seed: int = 0, shape: tuple[int, ...] = IMAGE) -> Graph:
    builder = GraphBuilder(np.random.default_rng(seed), shape)
    operators(builder)
    return builder.build()


def steps_apart(first: Array, second: Array) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


SAME = Padding(1, 1, 1, 1)
ON_IMAGES: dict[str, Build] = {
    "convolution": lambda net: net.conv(5),
    "convolution SAME": lambda net: net.conv(5, activation=RELU, padding=SAME),
    "convolution with stride 2": lambda net: net.conv(6, stride=Size2d(2, 2)),
    "convolution with stride 2, SAME": lambda net: net.conv(6, stride=Size2d(2, 2), padding=SAME),
    "convolution, asymmetric padding": lambda net: net.conv(6, (3, 2), RELU6, padding=Padding(0, 2, 1, 0)),
    "dilated convolution": lambda net: net.conv(6, (2, 3), dilation=Size2d(3, 2)),
    "dilated convolution, padded": lambda net: net.conv(6, dilation=Size2d(2, 2), padding=Padding(2, 2, 2, 2)),
    "convolution in groups": lambda net: net.conv(6, groups=2, activation=RELU_N1_TO_1, padding=SAME),
    "convolution to one channel": lambda net: net.conv(1, (1, 1)),
    "depthwise convolution": lambda net: net.conv(4, groups=4, activation=RELU, padding=SAME),
    "depthwise convolution, multiplier 2": lambda net: net.conv(8, groups=4, stride=Size2d(2, 2)),
    "depthwise convolution, dilated": lambda net: net.conv(4, groups=4, dilation=Size2d(2, 1)),
    "depthwise convolution, asymmetric padding": lambda net: net.conv(4, groups=4, padding=Padding(2, 0, 0, 1)),
    "pruned convolution": lambda net: net.conv(8, density=0.1),
    "max pool": lambda net: net.max_pool(),
    "max pool SAME": lambda net: net.max_pool(3, 2, SAME),
    "max pool, asymmetric padding": lambda net: net.max_pool(3, 2, Padding(2, 0, 0, 1)),
    "average pool": lambda net: net.average_pool((2, 3), 2),
    "average pool SAME": lambda net: net.average_pool((3, 3), 2, SAME),
    "global average pool": lambda net: net.average_pool(IMAGE[:2]),
    "addition": lambda net: (net.conv(4, (1, 1)), net.add("input")),
    "addition with relu": lambda net: (net.conv(4, (1, 1)), net.add("input", RELU)),
    "difference": lambda net: (net.conv(4, (1, 1)), net.sub("input")),
    "difference with relu6": lambda net: (net.conv(4, (1, 1)), net.sub("input", RELU6)),
    "product": lambda net: (net.function(Function.SIGMOID), net.mul("input")),
    "product with relu": lambda net: (net.function(Function.SIGMOID), net.mul("input", RELU)),
    "gated channels": lambda net: (net.average_pool(IMAGE[:2]), net.function(Function.SIGMOID), net.mul("input")),
    "gated pixels": lambda net: (net.conv(1, (1, 1)), net.function(Function.SIGMOID), net.mul("input")),
    "sum with a vector": lambda net: (net.average_pool(IMAGE[:2]), net.add("input", RELU)),
    "difference from a column": lambda net: (net.average_pool((9, 1)), net.sub("input")),
    "product of a row and a column": lambda net: (
        row := net.average_pool((9, 1)),
        setattr(net, "output", "input"),
        net.average_pool((1, 7)),
        net.mul(row),
    ),
    "concatenation": lambda net: (net.conv(5, (1, 1)), net.concat("input")),
    "concatenation of three": lambda net: (net.conv(3, (1, 1)), net.concat("input", "input")),
    "concatenation behind a pool": lambda net: (net.conv(2, (1, 1), RELU), net.max_pool(1, 1), net.concat("input")),
    "average of a concatenation": lambda net: (net.conv(2, (1, 1)), net.concat("input"), net.average_pool((2, 2), 2)),
    "relu": lambda net: net.activation(RELU),
    "relu6": lambda net: net.activation(RELU6),
    "relu from -1 to 1": lambda net: net.activation(RELU_N1_TO_1),
    **{function.value: partial(GraphBuilder.function, function=function) for function in EVERYWHERE},
    "leaky ReLU": lambda net: net.function(Function.LEAKY_RELU, 0.3),
    "hard swish of a layer": lambda net: (net.conv(5), net.function(Function.HARD_SWISH), net.conv(3)),
    "sigmoid behind a pool": lambda net: (net.function(Function.SIGMOID), net.max_pool(), net.conv(3)),
    "one over a root": lambda net: net.inverse_root(),
    "PReLU": lambda net: net.prelu(),
    "reshape": lambda net: net.reshape(7, 36),
    "log-softmax of every pixel": lambda net: net.log_softmax(),
    "softmax of every pixel": lambda net: net.softmax(),
    "zeros around": lambda net: net.pad((1, 0, 2), (0, 2, 1)),
    "slice": lambda net: net.slice((2, 0, 1), (8, 7, 3), (1, 3, 1)),
    "slice of every second channel": lambda net: net.slice((0, 0, 0), (9, 7, 4), (1, 1, 2)),
    "transpose": lambda net: net.transpose(2, 0, 1),
    "transpose of rows and columns": lambda net: net.transpose(1, 0, 2),
    "transpose of five axes": lambda net: (net.reshape(3, 3, 7, 2, 2), net.transpose(2, 0, 3, 1, 4)),
    "image twice as large": lambda net: net.resize(18, 14),
    "image resized by half pixels": lambda net: net.resize(11, 5, NearestRule.HALF_PIXEL_CENTERS),
    "image resized with its corners": lambda net: net.resize(20, 3, NearestRule.ALIGN_CORNERS),
    "mean over channels": lambda net: net.mean(2),
    "mean over rows": lambda net: net.mean(0, keep_dims=False),
    "mean over rows and channels": lambda net: net.mean(0, 2),
    "mean over the image": lambda net: net.mean(0, 1),
    "mean over everything": lambda net: net.mean(0, 1, 2),
}
ON_VECTORS: dict[str, Build] = {
    "PReLU of a vector": lambda net: net.prelu(),
    "dense": lambda net: net.dense(12),
    "dense with relu6": lambda net: net.dense(12, RELU6),
    "dense with one output": lambda net: net.dense(1),
    "pruned dense": lambda net: net.dense(40, RELU, density=0.05),
    "fully pruned dense": lambda net: net.dense(7, density=0.0),
    "softmax": lambda net: net.softmax(),
    "log-softmax": lambda net: net.log_softmax(),
    "concatenation of vectors": lambda net: (net.dense(7), net.concat("input")),
    "slice of a vector": lambda net: net.slice((3,), (28,), (4,)),
    "mean of a vector": lambda net: net.mean(0),
    "slice of a softmax": lambda net: (net.softmax(), net.slice((3,), (9,), (1,))),
    "concatenation of softmaxes": lambda net: (net.softmax(), net.concat(net.output)),
}
SINGLE = [pytest.param(operators, IMAGE, id=name) for name, operators in ON_IMAGES.items()] + [
    pytest.param(operators, (30,), id=name) for name, operators in ON_VECTORS.items()
]


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_reference_kernels_give_the_bits_of_the_engine(operators: Build, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    graph = quantized(build(operators, shape=shape), rng)
    samples = random_inputs(graph, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_reference_kernels_on_int16_give_the_bits_of_the_engine(operators: Build, shape: tuple[int, ...]) -> None:
    def inside(net: GraphBuilder) -> None:
        net.activation(RELU6)
        operators(net)
        net.activation(RELU6)
        net.flatten()
        net.dense(9)

    rng = np.random.default_rng(5)
    graph = widened(build(inside, shape=shape), rng)
    samples = random_inputs(graph, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_functions, random_moves])
def test_networks_of_int8_and_int16_give_the_bits_of_the_engine(make: Callable[..., Graph], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = widened(make(rng, density=rng.uniform(0.1, 1.0)), rng, share=rng.uniform(0.2, 1.0))
    samples = random_inputs(graph, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_default_kernels_come_within_one_step(operators: Build, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    graph = quantized(build(operators, shape=shape), rng)
    content, samples = render_tflite(graph), random_inputs(graph, rng, N_SAMPLES)
    allowed = len(graph.ops)
    assert steps_apart(run_litert(content, samples, DEFAULT), run_litert(content, samples)) <= allowed


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_float_file_gives_the_results_of_the_engine(operators: Build, shape: tuple[int, ...]) -> None:
    graph = build(operators, shape=shape)
    content, samples = render_tflite(graph), random_inputs(graph, np.random.default_rng(3), N_SAMPLES)
    expected = run_graph(graph, samples)
    for resolver in (REFERENCE, DEFAULT):
        np.testing.assert_allclose(run_litert(content, samples, resolver), expected, atol=1e-5)  # float32 sums


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_random_networks_give_the_bits_of_the_engine(make: Callable[..., Graph], seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = quantized(make(rng, density=rng.uniform(0.1, 1.0)), rng)
    samples = random_inputs(graph, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize("scale", OTHER_SCALES)
def test_int8_of_another_scale_gives_the_bits_of_the_engine(scale: tuple[float, int]) -> None:
    graph = rescaled(*scale)
    samples = random_inputs(graph, np.random.default_rng(0), N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_extreme_inputs_give_the_bits_of_the_engine(make: Callable[..., Graph], value: int) -> None:
    rng = np.random.default_rng(4)
    graph = quantized(make(rng), rng)
    samples = np.full_like(random_inputs(graph, rng, 2), value)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


def extreme_dense(input_zero_point: int, output_zero_point: int, weight: int) -> Graph:
    def activation(name: str, size: int, zero_point: int) -> Tensor:
        return Tensor(name, (size,), "int8", Quantization(np.array([0.5], np.float32), zero_point))

    scale = np.array([0.25, 0.01, 1e-4], np.float32)
    values = np.full((3, 50), weight, np.int8)
    tensors = {
        "x": activation("x", 50, input_zero_point),
        "w": Tensor("w", (3, 50), "int8", Quantization(scale, axis=0), values),
        "b": Tensor("b", (3,), "int32", Quantization(scale / 2, axis=0), np.array([1, -3, 1 << 24], np.int32)),
        "y": activation("y", 3, output_zero_point),
    }
    return Graph("extreme", ("x",), ("y",), (Dense("dense", "x", "w", "b", "y"),), tensors)


@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("zero_points", [(-128, 127), (127, -128), (0, 0)])
def test_extreme_zero_points_and_weights_give_the_bits_of_the_engine(zero_points: tuple[int, int], weight: int) -> None:
    graph = extreme_dense(*zero_points, weight)
    samples = random_inputs(graph, np.random.default_rng(5), N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize(("scale", "row"), [(0.3, [-2, -11, 6, 8, 2]), (0.15, [-5, -18, -13, 11, 0])])
def test_softmax_next_to_a_rounding_border_gives_the_bits_of_the_engine(scale: float, row: list[int]) -> None:
    graph = quantized(build(lambda net: net.softmax(), shape=(5,)), np.random.default_rng(0))
    scaled = replace(graph.tensors["input"], quantization=Quantization(np.array([scale], np.float32), 3))
    graph, samples = graph.with_tensors([scaled]), np.array([row], np.int8)
    assert np.array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


@pytest.mark.parametrize("depth", [1, 2, 10, 700])
def test_log_softmax_of_any_scale_gives_the_bits_of_the_engine(depth: int) -> None:
    graph = quantized(build(lambda net: net.log_softmax(), shape=(depth,)), np.random.default_rng(0))
    rng = np.random.default_rng(depth)
    for scale in np.exp(rng.uniform(np.log(1e-7), np.log(20), 20)).astype(np.float32):
        entry = replace(graph.tensors["input"], quantization=Quantization(np.array([scale], np.float32), 5))
        scaled, samples = graph.with_tensors([entry]), random_inputs(graph, rng, 20)
        expected = run_graph(scaled, samples)
        assert np.array_equal(run_litert(render_tflite(scaled), samples), expected)
        assert steps_apart(run_litert(render_tflite(scaled), samples, DEFAULT), expected) <= 1


def test_rows_that_are_next_to_nothing_give_the_bits_of_the_engine_on_int16() -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (16,))
    for size in (12, 8, 4):
        builder.dense(size, RELU)
    graph = builder.build()
    layer = graph.layers[1]
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    weights, biases = weight.values().copy(), bias.values().copy()
    weights[3], biases[3] = 0, 1e-6  # fully pruned
    weights[4], biases[4] = weights[4] * 1e-9, 1e-7
    graph = graph.with_tensors([replace(weight, data=weights), replace(bias, data=biases)])
    wide = widened(graph, rng)
    samples = random_inputs(wide, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(wide), samples), run_graph(wide, samples))


def test_a_row_of_nothing_at_all_gives_the_bits_of_the_engine_on_int16() -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (9, 9, 2))
    for channels in (4, 4, 3):
        builder.conv(channels)
    graph = builder.build()
    layer = graph.layers[1]
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    weights, biases = weight.values() * 1e-4, bias.values() * 1e-4  # a scale of one would be far off
    weights[2], biases[2] = 0, 0
    wide = widened(graph.with_tensors([replace(weight, data=weights), replace(bias, data=biases)]), rng)
    samples = random_inputs(wide, rng, N_SAMPLES)
    assert np.array_equal(run_litert(render_tflite(wide), samples), run_graph(wide, samples))
