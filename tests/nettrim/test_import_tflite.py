""".tflite files to float graphs: LiteRT on the same file gives the same results, and everything else is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import ImportedModel, load_model
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.exporters.test_tflite import SINGLE
from tests.graphs import GraphBuilder, random_branches, random_cnn, random_inputs, random_mlp
from tests.nettrim.tflite_models import NONE, RELU, FileWriter, run_litert, write_file
from tests.shared_data import shared_data

Array = npt.NDArray[Any]

N_SAMPLES = 20
VALID = published.Padding.VALID


def assert_runs_as_in_litert(path: Path, seed: int = 0, spread: float = 1.0) -> ImportedModel:
    model = load_model(path)
    samples = np.random.default_rng(seed).normal(size=(N_SAMPLES, *model.source_shape)).astype(np.float32) * spread
    expected = run_litert(path.read_bytes(), samples)
    found = run_graph(model.graph, samples).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())  # float32 sums
    return model


@pytest.mark.parametrize(
    ("name", "source_shape", "n_ops"),
    [
        ("hello_world_float.tflite", (1,), 3),
        ("mlperf_ad_float32.tflite", (640,), 10),
        ("mlperf_ic_float32.tflite", (32, 32, 3), 16),
        ("tinymaix_mnist_dw_f.tflite", (28, 28, 1), 8),
        ("tinymaix_mnist_resnet_f.tflite", (28, 28, 1), 8),
        ("tinymaix_mnist_valid_f.tflite", (28, 28, 1), 7),
    ],
)
def test_real_models_run_as_in_litert(name: str, source_shape: tuple[int, ...], n_ops: int) -> None:
    model = assert_runs_as_in_litert(shared_data(f"models/{name}"))
    assert (model.source_shape, model.format, model.quantized) == (source_shape, "TensorFlow Lite", None)
    assert len(model.graph.ops) == n_ops


def dequantized(content: bytes) -> bytes:
    """Return a file whose int8 weights beside float activations are floats, made with the schema's own classes."""
    import flatbuffers

    model = published.ModelT.InitFromPackedBuf(content, 0)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == published.TensorType.INT8 and data is not None:
            (scale,) = tensor.quantization.scale
            values = data.view(np.int8).astype(np.float32) * scale
            model.buffers[tensor.buffer].data = values.view(np.uint8)
            tensor.type, tensor.quantization = published.TensorType.FLOAT32, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_int8_weights_beside_float_activations_are_what_they_stand_for() -> None:
    path = shared_data("models/mlperf_kws_float32.tflite")
    model = load_model(path)
    samples = np.random.default_rng(0).normal(size=(N_SAMPLES, *model.source_shape)).astype(np.float32)
    expected = run_litert(dequantized(path.read_bytes()), samples)
    np.testing.assert_allclose(run_graph(model.graph, samples), expected, atol=1e-5)  # float32 sums
    assert model.quantized is None


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_what_nettrim_writes_it_reads(
    tmp_path: Path, operators: Callable[[GraphBuilder], object], shape: tuple[int, ...]
) -> None:
    builder = GraphBuilder(np.random.default_rng(0), shape)
    operators(builder)
    graph = builder.build()
    model = load_model(write_file(tmp_path, render_tflite(graph)))
    samples = random_inputs(graph, np.random.default_rng(1), N_SAMPLES)
    np.testing.assert_allclose(run_graph(model.graph, samples), run_graph(graph, samples), atol=1e-6)  # float32 sums
    assert len(model.graph.ops) <= len(graph.ops)


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches])
def test_whole_networks_are_read_as_they_were_written(tmp_path: Path, make: Callable[..., Any]) -> None:
    graph = make(np.random.default_rng(0))
    model = load_model(write_file(tmp_path, render_tflite(graph)))
    samples = random_inputs(graph, np.random.default_rng(1), N_SAMPLES)
    np.testing.assert_allclose(run_graph(model.graph, samples), run_graph(graph, samples), atol=1e-6)  # float32 sums


def random_floats(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense_file(weight: Array, *, bias: Array | None, **options: Any) -> tuple[FileWriter, int, int]:
    file = FileWriter()
    entry = file.activation(options.pop("input_shape", (1, weight.shape[1])))
    output = file.activation(options.pop("output_shape", (1, weight.shape[0])))
    places = (entry, file.constant(weight), -1 if bias is None else file.constant(bias))
    file.add("FULLY_CONNECTED", places, output, published.FullyConnectedOptionsT, **options)
    return file, entry, output


def test_a_dense_layer_without_bias(tmp_path: Path) -> None:
    file, entry, output = dense_file(random_floats(3, 5), bias=None, fusedActivationFunction=RELU)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_dense_layer_on_several_rows_that_keeps_its_axes(tmp_path: Path) -> None:
    shapes = {"input_shape": (1, 4, 2, 5), "output_shape": (1, 4, 2, 3)}
    file, entry, output = dense_file(random_floats(3, 5), bias=random_floats(3), keepNumDims=True, **shapes)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert model.graph.tensors[model.graph.outputs[0]].shape == (4, 2, 3)


def test_a_dense_layer_on_an_image_flattens_it(tmp_path: Path) -> None:
    file, entry, output = dense_file(random_floats(3, 24), bias=random_floats(3), input_shape=(1, 2, 3, 4))
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_float16_weights_behind_a_dequantize(tmp_path: Path) -> None:
    file = FileWriter()
    entry, weight, output = file.activation((1, 6)), file.activation((4, 6)), file.activation((1, 4))
    file.add("DEQUANTIZE", (file.constant(random_floats(4, 6).astype(np.float16)),), weight, version=3)
    file.add("FULLY_CONNECTED", (entry, weight, -1), output, published.FullyConnectedOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Dense"]


@pytest.mark.parametrize("padding", [published.Padding.SAME, VALID])
def test_padding_before_a_convolution_is_taken_in(tmp_path: Path, padding: int) -> None:
    file = FileWriter()
    size = 11 if padding == published.Padding.SAME else 9
    entry, padded, output = (file.activation((1, *shape)) for shape in ((8, 7, 2), (11, 9, 2), (size, size - 2, 3)))
    sides = file.constant(np.array([[0, 0], [1, 2], [0, 2], [0, 0]], np.int32))
    file.add("PAD", (entry, sides), padded, published.PadOptionsT)
    places = (padded, file.constant(random_floats(3, 3, 3, 2)), file.constant(random_floats(3)))
    file.add("CONV_2D", places, output, published.Conv2DOptionsT, padding=padding, strideW=1, strideH=1)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Conv2d"]


def test_padding_before_a_pool_is_an_operator_of_its_own(tmp_path: Path) -> None:
    file = FileWriter()
    entry, padded, output = (file.activation((1, *shape)) for shape in ((8, 8, 2), (10, 10, 2), (5, 5, 2)))
    sides = file.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    file.add("PAD", (entry, sides), padded, published.PadOptionsT)
    sizes = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": VALID}
    file.add("MAX_POOL_2D", (padded,), output, published.Pool2DOptionsT, **sizes)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Pad", "MaxPool2d"]


@pytest.mark.parametrize("code", ["RELU", "none"])
def test_padding_at_the_end_is_an_operator_of_its_own(tmp_path: Path, code: str) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 5, 2)), file.activation((1, 5, 9, 2))
    source = entry if code == "none" else file.add(code, (entry,), file.activation((1, 4, 5, 2)))
    sides = file.constant(np.array([[0, 0], [1, 0], [1, 3], [0, 0]], np.int32))
    file.add("PAD", (source, sides), output, published.PadOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert type(model.graph.ops[-1]).__name__ == "Pad"


@pytest.mark.parametrize("masks", [{}, {"beginMask": 2, "endMask": 4}, {"shrinkAxisMask": 2}, {"shrinkAxisMask": 12}])
def test_a_strided_slice_may_leave_bounds_open_and_drop_axes(tmp_path: Path, masks: dict[str, int]) -> None:
    file = FileWriter()
    shrunk = masks.get("shrinkAxisMask", 0)
    begin, end, stride = [0, 2, 1, -2], [1, 7, 5, 4], [1, 2, 3, 1]
    shape = [3, 2, 2]
    if masks.get("beginMask"):
        shape = [4, 2, 2]
    output = file.activation((1, *(size for axis, size in enumerate(shape, start=1) if not shrunk >> axis & 1)))
    entry = file.activation((1, 8, 5, 4))
    bounds = [file.constant(np.array(part, np.int32)) for part in (begin, end, stride)]
    file.add("STRIDED_SLICE", (entry, *bounds), output, published.StridedSliceOptionsT, **masks)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_plain_slice(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 8, 5, 4)), file.activation((1, 3, 4, 4))
    bounds = [file.constant(np.array(part, np.int32)) for part in ([0, 2, 1, 0], [1, 3, -1, 4])]
    file.add("SLICE", (entry, *bounds), output, published.SliceOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Slice"]


@pytest.mark.parametrize("keeps_axes", [False, True])
@pytest.mark.parametrize("axes", [[1, 2], [-2, -3]])
def test_a_mean_over_height_and_width_is_an_average_pool(tmp_path: Path, axes: list[int], keeps_axes: bool) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3, 5)), file.activation((1, 1, 1, 5) if keeps_axes else (1, 5))
    axis = file.constant(np.array(axes, np.int32))
    file.add("MEAN", (entry, axis), output, published.ReducerOptionsT, keepDims=keeps_axes)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert type(model.graph.ops[0]).__name__ == "AveragePool2d"


@pytest.mark.parametrize(("axes", "shape"), [([3], (1, 4, 3)), ([1, 3], (1, 3)), ([-1, 2], (1, 4))])
def test_a_mean_over_other_axes(tmp_path: Path, axes: list[int], shape: tuple[int, ...]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3, 5)), file.activation(shape)
    file.add("MEAN", (entry, file.constant(np.array(axes, np.int32))), output, published.ReducerOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_mean_over_the_batch_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((4, 3))
    file.add("MEAN", (entry, file.constant(np.array([0], np.int32))), output, published.ReducerOptionsT)
    with pytest.raises(UnsupportedOperatorError, match=r"the axes \[0\] of \(1, 4, 3\), expected some behind"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_split_and_a_concatenation_of_its_parts(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 3, 2, 6)), file.activation((1, 3, 2, 6))
    parts = [file.activation((1, 3, 2, 2)) for _ in range(3)]
    file.add("SPLIT", (file.constant(np.array(3, np.int32)), entry), parts[0], published.SplitOptionsT, numSplits=3)
    file.operators[0].outputs = parts
    file.add("CONCATENATION", tuple(parts[::-1]), output, published.ConcatenationOptionsT, axis=3)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_pool_with_a_fused_activation(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 6, 6, 3)), file.activation((1, 3, 3, 3))
    sizes = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, "padding": VALID}
    file.add("MAX_POOL_2D", (entry,), output, published.Pool2DOptionsT, fusedActivationFunction=RELU, **sizes)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_shape_that_is_computed_from_the_batch_size(tmp_path: Path) -> None:
    file = FileWriter()
    entry, shape = file.activation((1, 2, 3, 4)), file.activation((4,), "int32")
    batch, wanted = file.activation((), "int32"), file.activation((2,), "int32")
    output = file.activation((1, 24))
    file.add("SHAPE", (entry,), shape, published.ShapeOptionsT, outType=published.TensorType.INT32)
    first, last = file.constant(np.array([0], np.int32)), file.constant(np.array([1], np.int32))
    options = {"shrinkAxisMask": 1}
    file.add("STRIDED_SLICE", (shape, first, last, last), batch, published.StridedSliceOptionsT, **options)
    rest = file.constant(np.array(24, np.int32))
    file.add("PACK", (batch, rest), wanted, published.PackOptionsT, valuesCount=2)
    file.add("RESHAPE", (entry, wanted), output)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("size", [24, -1])
def test_a_shape_among_the_options(tmp_path: Path, size: int) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 2, 3, 4)), file.activation((1, 24))
    file.add("RESHAPE", (entry,), output, published.ReshapeOptionsT, newShape=[1, size])
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_axes_of_length_one_come_and_go(tmp_path: Path) -> None:
    file = FileWriter()
    entry, taller, flat = file.activation((1, 4, 3)), file.activation((1, 4, 1, 3)), file.activation((1, 4, 3))
    file.add("EXPAND_DIMS", (entry, file.constant(np.array(2, np.int32))), taller, published.ExpandDimsOptionsT)
    output = file.activation((1, 4, 3))
    file.add("RELU", (taller,), flat)
    file.add("SQUEEZE", (flat,), output, published.SqueezeOptionsT, squeezeDims=[2])
    file.tensors[flat].shape = [1, 4, 1, 3]
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_reshape_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((4, 3))
    file.add("RESHAPE", (entry, file.constant(np.array([4, 3], np.int32))), output)
    with pytest.raises(UnsupportedOperatorError, match=r"RESHAPE .*\(1, 4, 3\) into \(4, 3\), expected the batch"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_shape_of_floats_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 12))
    file.add("RESHAPE", (entry, file.constant(np.array([1, np.nan], np.float32))), output)
    with pytest.raises(UnsupportedOperatorError, match=r"RESHAPE .*its shape are float32, expected integers"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_every_unsupported_operator_is_in_the_one_message(tmp_path: Path) -> None:
    file = FileWriter()
    tensors = [file.activation((1, 6)) for _ in range(6)]
    file.add("SIN", (tensors[0],), tensors[1])
    file.add("COS", (tensors[1],), tensors[2])
    file.add("SIN", (tensors[0],), tensors[3])
    file.add("SOFTMAX", (tensors[0],), tensors[4], published.SoftmaxOptionsT, beta=2.0)
    file.add("ADD_N", (tensors[2], tensors[3], tensors[4]), tensors[5])
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(write_file(tmp_path, file.content((tensors[0],), (tensors[5],))))
    for part in ("SIN ('t1', 't3')", "COS ('t2')", "SOFTMAX ('t4'): beta 2.0, expected 1", "ADD_N ('t5')"):
        assert part in str(caught.value)
    assert "Supported: ADD, AVERAGE_POOL_2D" in str(caught.value)
    assert caught.value.exit_code == 3


def test_operators_that_nothing_needs_are_left_out(tmp_path: Path) -> None:
    file = FileWriter()
    entry, unused, output = (file.activation((1, 6)) for _ in range(3))
    file.add("SIN", (entry,), unused)
    file.add("RELU", (entry,), output)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"), [((0, 1), (2,), "2 inputs"), ((0,), (2, 3), "2 outputs"), ((), (2,), "0 inputs")]
)
def test_one_input_and_one_output_are_expected(
    tmp_path: Path, inputs: tuple[int, ...], outputs: tuple[int, ...], expected: str
) -> None:
    file = FileWriter()
    first, second, third, fourth = (file.activation((1, 6)) for _ in range(4))
    file.add("ADD", (first, second), third, published.AddOptionsT, fusedActivationFunction=NONE)
    file.add("RELU", (third,), fourth)
    with pytest.raises(UnsupportedOperatorError, match=expected):
        load_model(write_file(tmp_path, file.content(inputs, outputs)))


def open_file(shape: tuple[int, ...], signature: tuple[int, ...]) -> bytes:
    file = FileWriter()
    entry, output = file.activation(shape), file.activation(shape)
    file.tensors[entry].shapeSignature = list(signature)
    file.add("RELU", (entry,), output)
    return file.content((entry,), (output,))


def test_open_sizes_are_completed_by_the_input_shape(tmp_path: Path) -> None:
    path = write_file(tmp_path, open_file((1, 1, 1, 3), (-1, -1, -1, 3)))
    with pytest.raises(ModelFileError, match=r"open sizes .*--input-shape, such as 28,28,3"):
        load_model(path)
    assert load_model(path, input_shape=(8, 6, 3)).source_shape == (8, 6, 3)
    with pytest.raises(ModelFileError, match=r"--input-shape \(8, 6, 4\), but input 't0' takes"):
        load_model(path, input_shape=(8, 6, 4))


def test_a_batch_of_several_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="expected a batch of one"):
        load_model(write_file(tmp_path, open_file((8, 6), (8, 6))))


def test_an_architecture_file_does_not_belong_to_a_tflite_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="--arch belongs to files that hold weights alone"):
        load_model(write_file(tmp_path, open_file((1, 6), (-1, 6))), arch="net.py:make")


def test_weights_with_infinity_are_refused(tmp_path: Path) -> None:
    weight = random_floats(3, 5)
    weight[1, 1] = np.inf
    file, entry, output = dense_file(weight, bias=None)
    with pytest.raises(ModelFileError, match="holds NaN or infinity"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))
