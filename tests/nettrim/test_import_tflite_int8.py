"""Quantised .tflite files: their integers as they are, whose results are LiteRT's reference kernels' bit for bit."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import ImportedModel, load_model
from nettrim_exporters.c_header import render_c_header
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.fixed_point import exact_multiplier
from nettrim_runtime.graph import Graph
from tests.c_model import compile_c, run_c, write_sources
from tests.exporters.test_tflite import SINGLE
from tests.graphs import (
    GraphBuilder,
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
    widened,
)
from tests.nettrim.tflite_models import RELU, FileWriter, rescaled_file, run_litert, write_file
from tests.shared_data import shared_data

Array = npt.NDArray[Any]

REAL_MODELS = ("hello_world_int8.tflite", "mlperf_ad_int8.tflite", "mlperf_ic_int8.tflite", "mlperf_kws_int8.tflite")
N_SAMPLES = 200
TANH_BORDER_SCALE = float(np.arctanh(10.5 / 128) / 7)  # the seventh input becomes 10.5 steps of 1/128


def integers(model: ImportedModel) -> Graph:
    assert model.quantized is not None, model.notes
    return model.quantized


def assert_bits_of_litert(path: Path, n_samples: int = N_SAMPLES) -> ImportedModel:
    model = load_model(path)
    shape = (n_samples, *model.source_shape)
    samples = np.random.default_rng(0).integers(-128, 128, size=shape, dtype=np.int8)
    expected = run_litert(path.read_bytes(), samples)
    np.testing.assert_array_equal(run_graph(integers(model), samples).reshape(expected.shape), expected)
    return model


@pytest.mark.parametrize("name", REAL_MODELS)
def test_real_models_give_the_bits_of_the_reference_kernels(name: str) -> None:
    model = assert_bits_of_litert(shared_data(f"models/{name}"), 100)
    assert [op.name for op in model.graph.layers] == [op.name for op in integers(model).layers]
    assert "the file's own integers" in model.notes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "right"),
    [
        ("mlperf_kws_int8.tflite", "kws01_test.npz", 901),  # of 1000; LiteRT's default kernels: 902
        ("mlperf_ic_int8.tflite", "ic01_test.npz", 441),  # of 500; LiteRT's default kernels: 440
    ],
)
def test_real_models_keep_every_answer_on_real_samples(name: str, data: str, right: int) -> None:
    path = shared_data(f"models/{name}")
    graph = integers(load_model(path))
    with np.load(shared_data(data)) as arrays:
        x, y = arrays["x"], arrays["y"]
    samples = x if x.dtype == np.int8 else graph.quantization(graph.inputs[0]).quantize(x.astype(np.float32))
    outputs = run_graph(graph, samples)
    np.testing.assert_array_equal(outputs, run_litert(path.read_bytes(), samples))
    assert (outputs.argmax(axis=1) == y).sum() == right


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_MODELS)
def test_real_models_of_other_scales_give_the_bits_of_the_reference_kernels(tmp_path: Path, name: str) -> None:
    rng, content = np.random.default_rng(11), shared_data(f"models/{name}").read_bytes()
    for _ in range(8):
        assert_bits_of_litert(write_file(tmp_path, rescaled_file(content, rng)), 8)


@pytest.mark.slow
def test_real_models_in_c_give_the_bits_of_the_reference_kernels(tmp_path: Path) -> None:
    paths = {Path(name).stem: shared_data(f"models/{name}") for name in REAL_MODELS}
    graphs = {name: integers(load_model(path)) for name, path in paths.items()}
    source = write_sources({name: render_c_header(graph, name) for name, graph in graphs.items()}, tmp_path)
    binary = compile_c(source, tmp_path / "models")
    for index, (name, graph) in enumerate(graphs.items()):
        samples = random_inputs(graph, np.random.default_rng(10), 50)
        expected = run_litert(paths[name].read_bytes(), samples).reshape(50, -1)
        np.testing.assert_array_equal(run_c(binary, index, samples, expected.shape[1]), expected, err_msg=name)


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_what_nettrim_writes_it_reads_with_every_bit(
    tmp_path: Path, operators: Callable[[GraphBuilder], object], shape: tuple[int, ...]
) -> None:
    builder = GraphBuilder(np.random.default_rng(0), shape)
    operators(builder)
    graph = quantized(builder.build(), np.random.default_rng(1))
    model = load_model(write_file(tmp_path, render_tflite(graph)))
    samples = random_inputs(graph, np.random.default_rng(2), N_SAMPLES)
    np.testing.assert_array_equal(run_graph(integers(model), samples), run_graph(graph, samples))


@pytest.mark.parametrize("prepare", [quantized, widened])
@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_whole_networks_keep_every_bit(
    tmp_path: Path, make: Callable[..., Graph], prepare: Callable[..., Graph]
) -> None:
    rng = np.random.default_rng(3)
    graph = prepare(make(rng), rng)
    model = load_model(write_file(tmp_path, render_tflite(graph)))
    samples = random_inputs(graph, rng, N_SAMPLES)
    np.testing.assert_array_equal(run_graph(integers(model), samples), run_graph(graph, samples))


def test_the_float_graph_is_what_the_integers_stand_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    graph = quantized(random_mlp(rng), rng)
    model = load_model(write_file(tmp_path, render_tflite(graph)))
    for layer, original in zip(model.graph.layers, graph.layers, strict=True):
        scale = graph.quantization(original.weight).scale
        expected = graph.tensors[original.weight].values() * scale[:, None]
        np.testing.assert_array_equal(model.graph.tensors[layer.weight].values(), expected)
        bias = graph.tensors[original.bias].values() * (graph.quantization(original.input).scale * scale)
        np.testing.assert_allclose(model.graph.tensors[layer.bias].values(), bias, rtol=1e-6)  # float32


def int8(scale: float, zero: int = 0) -> dict[str, Any]:
    return {"dtype": "int8", "scale": scale, "zero": zero}


@pytest.mark.parametrize("code", ["RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize(("scale", "zero"), [(0.05, 3), (0.03, -128), (0.2, 5)])
def test_a_clamp_between_two_scales_rescales(tmp_path: Path, code: str, scale: float, zero: int) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 40), **int8(0.05, 3)), file.activation((1, 40), **int8(scale, zero))
    file.add(code, (entry,), output)
    model = assert_bits_of_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Activation"]


def test_a_quantize_between_two_scales_rescales(tmp_path: Path) -> None:
    file = FileWriter()
    entry, middle, output = (file.activation((1, 40), **int8(*q)) for q in ((0.05, 3), (0.031, -7), (0.031, -7)))
    file.add("QUANTIZE", (entry,), middle, version=2)
    file.add("RELU", (middle,), output)
    assert_bits_of_litert(write_file(tmp_path, file.content((entry,), (output,))))


def dense(file: FileWriter, entry: int, scale: float = 0.02, *, zero: int = 4, bias: bool = True) -> int:
    rng = np.random.default_rng(6)
    weight = file.constant(rng.integers(-127, 128, (5, 8)).astype(np.int8), scale=0.01)
    places = (entry, weight, file.constant(rng.integers(-900, 900, 5).astype(np.int32), scale=0.0005) if bias else -1)
    output = file.activation((1, 5), **int8(scale, zero))
    options = published.FullyConnectedOptionsT
    return file.add("FULLY_CONNECTED", places, output, options, version=4, fusedActivationFunction=RELU)


def test_weights_with_one_scale_and_no_bias(tmp_path: Path) -> None:
    file = FileWriter()
    entry = file.activation((1, 8), **int8(0.05, 3))
    output = dense(file, entry, bias=False)
    assert_bits_of_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_weights_in_blocks_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    builder = GraphBuilder(rng, (256,))
    builder.dense(10, density=0.02)
    graph = quantized(builder.build(), rng)
    content = render_tflite(graph, blocked=[graph.layers[0].name])
    model = load_model(write_file(tmp_path, content))
    samples = random_inputs(graph, rng, N_SAMPLES)
    np.testing.assert_array_equal(run_graph(integers(model), samples), run_graph(graph, samples))
    assert len(content) < len(render_tflite(graph))


def test_a_network_that_ends_in_floats_keeps_every_answer() -> None:
    path = shared_data("models/tinyengine_lenet-300-100_q.tflite")
    graph = integers(load_model(path))
    with np.load(shared_data("mnist.npz")) as arrays:
        samples, labels = arrays["x_test"][:1000, ..., None].astype(np.float32) / 255, arrays["y_test"][:1000]
    found = run_graph(graph, graph.quantization(graph.inputs[0]).quantize(samples)).argmax(axis=1)
    np.testing.assert_array_equal(found, run_litert(path.read_bytes(), samples).argmax(axis=1))
    assert (found == labels).sum() == 978


def float_ended() -> bytes:
    file = FileWriter()
    entry, start = file.activation((1, 8)), file.activation((1, 8), **int8(0.05, 3))
    file.add("QUANTIZE", (entry,), start)
    end, output = dense(file, start), file.activation((1, 5))
    file.add("DEQUANTIZE", (end,), output, version=2)
    return file.content((entry,), (output,))


def test_floats_at_both_ends_are_the_integers_they_become(tmp_path: Path) -> None:
    path = write_file(tmp_path, float_ended())
    model = load_model(path)
    graph = integers(model)
    samples = np.random.default_rng(0).integers(-128, 128, size=(N_SAMPLES, 8), dtype=np.int8)
    expected = run_litert(path.read_bytes(), graph.quantization(graph.inputs[0]).dequantize(samples))
    found = graph.quantization(graph.outputs[0]).dequantize(run_graph(graph, samples))
    np.testing.assert_array_equal(found, expected)


def test_uint8_at_both_ends_is_int8_shifted(tmp_path: Path) -> None:
    file = FileWriter()
    entry = file.activation((1, 8), "uint8", scale=0.05, zero=131)
    start = file.activation((1, 8), **int8(0.05, 3))
    file.add("QUANTIZE", (entry,), start, version=2)
    end, output = dense(file, start), file.activation((1, 5), "uint8", scale=0.02, zero=132)
    file.add("QUANTIZE", (end,), output, version=2)
    path = write_file(tmp_path, file.content((entry,), (output,)))
    model = load_model(path)
    graph, taken = integers(model), model.input_integers
    samples = np.random.default_rng(0).integers(0, 256, size=(N_SAMPLES, 8), dtype=np.uint8)
    assert taken is not None
    assert taken.dtype == "uint8"
    shifted = graph.quantization(graph.inputs[0]).dequantize(samples.astype(np.int16) - 128)
    np.testing.assert_array_equal(taken.quantization.dequantize(samples), shifted)
    expected = run_litert(path.read_bytes(), samples)
    found = run_graph(graph, (samples.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(found.astype(np.int16) + 128, expected)


@pytest.mark.parametrize("code", ["SOFTMAX", "LOG_SOFTMAX"])
def test_a_softmax_in_floats_behind_the_integers_is_left_out_and_named(tmp_path: Path, code: str) -> None:
    file = FileWriter()
    entry = file.activation((1, 8), **int8(0.05, 3))
    end, logits, output = dense(file, entry), file.activation((1, 5)), file.activation((1, 5))
    file.add("DEQUANTIZE", (end,), logits, version=2)
    options = {"options": published.SoftmaxOptionsT, "beta": 1.0} if code == "SOFTMAX" else {}
    file.add(code, (logits,), output, **options)
    model = load_model(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Dense"]
    assert [type(op).__name__ for op in integers(model).ops] == ["Dense"]
    assert any(note.startswith(f"{code} in floats behind the integers is left out") for note in model.notes)


@pytest.mark.parametrize("keeps_axes", [False, True])
@pytest.mark.parametrize("quantization", [(0.05, 3), (0.05, 4), (0.021, -7)])
@pytest.mark.parametrize("axes", [(1, 2), (1,), (3,)])
def test_a_mean_rescales(
    tmp_path: Path, axes: tuple[int, ...], quantization: tuple[float, int], keeps_axes: bool
) -> None:
    file, shape = FileWriter(), (1, 7, 5, 6)
    entry = file.activation(shape, **int8(0.05, 3))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape) if keeps_axes or axis not in axes)
    output = file.activation(kept, **int8(*quantization))
    constant = file.constant(np.array(axes, np.int32))
    file.add("MEAN", (entry, constant), output, published.ReducerOptionsT, version=2, keepDims=keeps_axes)
    assert_bits_of_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("code", ["CONV_2D", "MAX_POOL_2D"])
def test_padding_is_the_zero_point(tmp_path: Path, code: str) -> None:
    file, rng = FileWriter(), np.random.default_rng(9)
    entry, padded = file.activation((1, 6, 6, 2), **int8(0.05, 30)), file.activation((1, 8, 8, 2), **int8(0.05, 30))
    file.add("PAD", (entry, file.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))), padded, version=2)
    if code == "CONV_2D":
        output = file.activation((1, 6, 6, 3), **int8(0.05, -3))
        weight = file.constant(rng.integers(-127, 128, (3, 3, 3, 2)).astype(np.int8), scale=0.01)
        options = {"padding": published.Padding.VALID, "strideW": 1, "strideH": 1}
        bias = file.constant(np.array([100, -50, 7], np.int32), scale=0.0005)
        file.add(code, (padded, weight, bias), output, published.Conv2DOptionsT, version=3, **options)
    else:
        output = file.activation((1, 4, 4, 2), **int8(0.05, 30))
        sizes = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": published.Padding.VALID}
        file.add(code, (padded,), output, published.Pool2DOptionsT, version=2, **sizes)
    assert_bits_of_litert(write_file(tmp_path, file.content((entry,), (output,))))


def reshaped_file() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3), **int8(0.05, 3)), file.activation((1, 12), **int8(0.05, 4))
    file.add("RESHAPE", (entry, file.constant(np.array([1, 12], np.int32))), output)
    return file.content((entry,), (output,))


def same_reshaped_file() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 12), **int8(0.05, 3)), file.activation((1, 12), **int8(0.05, 4))
    file.add("RESHAPE", (entry, file.constant(np.array([1, 12], np.int32))), output)
    last = file.activation((1, 12), **int8(0.05, 4))
    file.add("RELU", (output,), last)
    return file.content((entry,), (last,))


def asymmetric_weights() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 5), **int8(0.02, 4))
    weight = file.constant(np.ones((5, 8), np.int8), scale=0.01, zero=7)
    file.add("FULLY_CONNECTED", (entry, weight, -1), output, published.FullyConnectedOptionsT, version=4)
    return file.content((entry,), (output,))


def uint8_file() -> bytes:
    file = FileWriter()
    entry, output = (file.activation((1, 8), "uint8", scale=0.05, zero=131) for _ in range(2))
    file.add("RELU", (entry,), output)
    return file.content((entry,), (output,))


def other_sigmoid() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 8), **int8(1 / 128, -128))
    file.add("LOGISTIC", (entry,), output, version=2)
    return file.content((entry,), (output,))


def tanh_at_a_border() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(TANH_BORDER_SCALE)), file.activation((1, 8), **int8(1 / 128))
    file.add("TANH", (entry,), output, version=2)
    return file.content((entry,), (output,))


def constant_operand() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 8), **int8(0.05, 3))
    constant = file.constant(np.array([5], np.int8), scale=0.05)
    file.add("ADD", (entry, constant), output, published.AddOptionsT, version=2)
    return file.content((entry,), (output,))


def floats_between() -> bytes:
    file = FileWriter()
    entry, start, end = file.activation((1, 8), **int8(0.031, 3)), file.activation((1, 8)), file.activation((1, 8))
    file.add("DEQUANTIZE", (entry,), start, version=2)
    file.add("LEAKY_RELU", (start,), end, published.LeakyReluOptionsT, alpha=0.3)
    output = file.add("QUANTIZE", (end,), file.activation((1, 8), **int8(0.02, -60)))
    return file.content((entry,), (output,))


def scaled_file(code: str, scale: float, output_quantization: tuple[float, int], **options: Any) -> bytes:
    file, n_inputs = FileWriter(), 2 if code in {"ADD", "MUL"} else 1
    entry, output = file.activation((1, 8), **int8(scale)), file.activation((1, 8), **int8(*output_quantization))
    file.add(code, (entry,) * n_inputs, output, version=2, **options)
    return file.content((entry,), (output,))


SOFTMAX = {"options": published.SoftmaxOptionsT, "beta": 1.0}
LEAKY_RELU = {"options": published.LeakyReluOptionsT, "alpha": 0.1}


@pytest.mark.parametrize(
    ("code", "scale", "output", "options", "reason"),
    [
        ("SOFTMAX", 1e-9, (1 / 256, -128), SOFTMAX, r"scale 1e-09, expected more than 2\^-26"),
        ("LOG_SOFTMAX", 1e-9, (1 / 16, 127), {}, r"scale 1e-09, expected more than 2\^-26"),
        ("MUL", 1.0, (1e-12, 0), {"options": published.MulOptionsT}, r"factor of 1e\+12, expected less than 2\^30"),
        ("MUL", 1e30, (1.0, 0), {"options": published.MulOptionsT}, "overflow"),
        ("ADD", 1.0, (1e-38, 0), {"options": published.AddOptionsT}, r"expected less than 2\^30"),
        ("LEAKY_RELU", 1e15, (1e-3, 0), LEAKY_RELU, r"expected less than 2\^30"),
        ("HARD_SWISH", 1.0, (0.001, 0), {}, "expected 1/128 of it at least"),
        ("HARD_SWISH", 1e30, (1e30, 0), {}, r"expected less than 2\^15"),
        ("RSQRT", 1e-38, (1e-38, 0), {}, "division by zero"),
        ("RSQRT", 1e-20, (1e-20, 0), {}, r"expected less than 2\^50"),
        ("TANH", 1e30, (1 / 128, 0), {}, None),
    ],
)
def test_scales_beyond_the_integer_arithmetic_are_not_kept(
    tmp_path: Path, code: str, scale: float, output: tuple[float, int], options: dict[str, Any], reason: str | None
) -> None:
    model = load_model(write_file(tmp_path, scaled_file(code, scale, output, **options)))
    assert (model.quantized is None) == (reason is not None)
    assert reason is None or any("cannot be kept" in note and re.search(reason, note) for note in model.notes)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (floats_between, "LEAKY_RELU 't2' computes in floats"),
        (reshaped_file, "RESHAPE 't1' reads and writes different scales"),
        (same_reshaped_file, "RESHAPE 't1' reads and writes different scales"),
        (asymmetric_weights, "Dense .* is not int8 throughout"),
        (other_sigmoid, r"writes scale 0\.0078125, not 0\.00390625"),
        (tanh_at_a_border, "rounds at a border, where C libraries differ"),
        (constant_operand, "ADD 't1' has a constant operand"),
        (uint8_file, "Activation .* is not int8 throughout"),
    ],
)
def test_integers_that_cannot_be_kept_become_the_values_they_stand_for(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    model = load_model(write_file(tmp_path, make()))
    assert model.quantized is None
    (note,) = (note for note in model.notes if "cannot be kept" in note)
    assert re.search(reason, note)


def test_a_dense_layer_that_no_multiplier_rounds_like_is_not_kept(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(7), FileWriter()
    entry_scale, output_scale = 0.05, 0.5
    weight = rng.integers(-127, 128, (1, 60_000)).astype(np.int8)
    limit = int(np.abs(weight.astype(int)).sum() * 255)
    scales = (np.float32(scale) for scale in rng.uniform(1e-5, 2e-5, 2000))
    products = (
        (scale, float(np.float32(entry_scale)) * float(scale) / float(np.float32(output_scale))) for scale in scales
    )
    scale = next(scale for scale, real in products if exact_multiplier(real, limit) is None)
    entry, output = file.activation((1, 60_000), **int8(entry_scale)), file.activation((1, 1), **int8(output_scale))
    places = (entry, file.constant(weight, scale=scale), -1)
    file.add("FULLY_CONNECTED", places, output, published.FullyConnectedOptionsT, version=4)
    model = load_model(write_file(tmp_path, file.content((entry,), (output,))))
    assert model.quantized is None
    assert any("no 31-bit multiplier rounds as" in note for note in model.notes)
