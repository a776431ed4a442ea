"""Quantised .tflite files: their integers as they are, whose results are LiteRT's reference kernels' bit for bit."""

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
