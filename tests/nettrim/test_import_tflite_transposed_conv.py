"""TRANSPOSE_CONV of .tflite files: the results of LiteRT, in int8 bit for bit, by a convolution and moves."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert, random_floats
from tests.nettrim.test_import_tflite_int8 import assert_bits_of_litert, integers
from tests.nettrim.tflite_models import NONE, RELU, FileWriter, run_litert, write_file

Array = npt.NDArray[Any]

SIZE, N_CHANNELS, N_OUTPUTS = (5, 4), 3, 6
SAME, VALID = published.Padding.SAME, published.Padding.VALID
ENTRY, OUTPUT = {"scale": 0.05, "zero": 7}, {"scale": 0.11, "zero": -3}
GEOMETRIES = [  # kernel, stride, padding, size of the output
    pytest.param((3, 3), (2, 2), SAME, (10, 8), id="3x3, stride 2, SAME"),
    pytest.param((3, 3), (2, 2), SAME, (9, 7), id="3x3, stride 2, SAME, an odd image"),
    pytest.param((3, 3), (2, 2), VALID, (11, 9), id="3x3, stride 2, VALID"),
    pytest.param((4, 2), (1, 3), VALID, (8, 12), id="4x2, stride 1x3, VALID"),
    pytest.param((1, 2), (3, 2), VALID, (15, 8), id="1x2, stride 3x2: pixels that no input reaches"),
    pytest.param((2, 2), (1, 1), SAME, (5, 4), id="2x2, stride 1, SAME"),
]


def transposed_conv_file(
    geometry: tuple[tuple[int, int], tuple[int, int], int, tuple[int, int]],
    dtype: str,
    activation: int = NONE,
    *,
    n_scales: int = N_OUTPUTS,
    bias: bool = True,
    shape: tuple[int, ...] | None = None,
) -> bytes:
    kernel, stride, padding, size = geometry
    file, rng, is_float = FileWriter(), np.random.default_rng(3), dtype == "float32"
    wanted = file.constant(np.array(shape or (1, *size, N_OUTPUTS), np.int32))
    if is_float:
        weight = file.constant(random_floats(N_OUTPUTS, *kernel, N_CHANNELS))
        offset = file.constant(random_floats(N_OUTPUTS))
    else:
        scale = rng.uniform(0.001, 0.02, n_scales).astype(np.float32)
        numbers = rng.integers(-127, 128, (N_OUTPUTS, *kernel, N_CHANNELS)).astype(np.int8)
        weight = file.constant(numbers, scale=scale)
        numbers = rng.integers(-3000, 3000, N_OUTPUTS).astype(np.int64 if dtype == "int16" else np.int32)
        offset = file.constant(numbers, scale=scale * np.float32(ENTRY["scale"]))
    centred = {"zero": 0} if dtype == "int16" else {}
    entry = file.activation((1, *SIZE, N_CHANNELS), dtype, **({} if is_float else {**ENTRY, **centred}))
    output = file.activation((1, *size, N_OUTPUTS), dtype, **({} if is_float else {**OUTPUT, **centred}))
    options = {"strideH": stride[0], "strideW": stride[1], "padding": padding, "fusedActivationFunction": activation}
    places = (wanted, weight, entry, *((offset,) if bias else ()))
    if dtype != "int16":
        file.add("TRANSPOSE_CONV", places, output, published.TransposeConvOptionsT, version=4, **options)
        return file.content((entry,), (output,))
    start = file.activation((1, *SIZE, N_CHANNELS), "int8", **ENTRY)
    end = file.activation((1, *size, N_OUTPUTS), "int8", **OUTPUT)
    file.add("QUANTIZE", (start,), entry, version=2)
    file.add("TRANSPOSE_CONV", places, output, published.TransposeConvOptionsT, version=4, **options)
    file.add("QUANTIZE", (output,), end, version=2)
    return file.content((start,), (end,))


@pytest.mark.parametrize("activation", [NONE, RELU])
@pytest.mark.parametrize("geometry", [case.values for case in GEOMETRIES], ids=[case.id for case in GEOMETRIES])
def test_floats_run_as_in_litert(tmp_path: Path, geometry: Any, activation: int) -> None:
    model = assert_runs_as_in_litert(write_file(tmp_path, transposed_conv_file(geometry, "float32", activation)))
    assert len(model.graph.layers) == 1


@pytest.mark.parametrize("activation", [NONE, RELU])
@pytest.mark.parametrize("geometry", [case.values for case in GEOMETRIES], ids=[case.id for case in GEOMETRIES])
def test_integers_have_the_bits_of_litert(tmp_path: Path, geometry: Any, activation: int) -> None:
    assert_bits_of_litert(write_file(tmp_path, transposed_conv_file(geometry, "int8", activation)))


@pytest.mark.parametrize("geometry", [case.values for case in GEOMETRIES], ids=[case.id for case in GEOMETRIES])
def test_int16_has_the_bits_of_litert(tmp_path: Path, geometry: Any) -> None:
    assert_bits_of_litert(write_file(tmp_path, transposed_conv_file(geometry, "int16")))


@pytest.mark.parametrize("options", [{"n_scales": 1}, {"bias": False}])
def test_one_scale_for_all_outputs_and_no_bias(tmp_path: Path, options: dict[str, Any]) -> None:
    content = transposed_conv_file(GEOMETRIES[0].values, "int8", **options)
    assert_bits_of_litert(write_file(tmp_path, content))


def test_what_it_becomes_is_written_and_has_the_same_bits(tmp_path: Path) -> None:
    graph = integers(load_model(write_file(tmp_path, transposed_conv_file(GEOMETRIES[1].values, "int8"))))
    samples = np.random.default_rng(0).integers(-128, 128, (50, *SIZE, N_CHANNELS), dtype=np.int8)
    np.testing.assert_array_equal(run_litert(render_tflite(graph), samples), run_graph(graph, samples))


def test_a_size_that_is_computed_from_the_batch_is_the_converters(tmp_path: Path) -> None:
    file = FileWriter()
    entry, shape = file.activation((1, *SIZE, N_CHANNELS)), file.activation((4,), "int32")
    batch, wanted = file.activation((), "int32"), file.activation((4,), "int32")
    output = file.activation((1, 10, 8, N_OUTPUTS))
    file.tensors[output].shapeSignature = [-1, 10, 8, N_OUTPUTS]
    file.add("SHAPE", (entry,), shape, published.ShapeOptionsT, outType=published.TensorType.INT32)
    first, last = file.constant(np.array([0], np.int32)), file.constant(np.array([1], np.int32))
    options = {"shrinkAxisMask": 1}
    file.add("STRIDED_SLICE", (shape, first, last, last), batch, published.StridedSliceOptionsT, **options)
    sizes = [file.constant(np.array(size, np.int32)) for size in (10, 8, N_OUTPUTS)]
    file.add("PACK", (batch, *sizes), wanted, published.PackOptionsT, valuesCount=4)
    places = (wanted, file.constant(random_floats(N_OUTPUTS, 3, 3, N_CHANNELS)), entry)
    steps = {"strideH": 2, "strideW": 2, "padding": SAME}
    file.add("TRANSPOSE_CONV", places, output, published.TransposeConvOptionsT, version=3, **steps)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize(
    ("geometry", "shape", "reason"),
    [
        (((3, 3), (2, 2), SAME, (10, 8)), (1, 10, 8, 5), r"shape \[1, 10, 8, 5\], expected \[1, height, width, 6\]"),
        (((3, 3), (2, 2), SAME, (10, 8)), (2, 10, 8, 6), r"shape \[2, 10, 8, 6\], expected \[1, height"),
        (((3, 3), (2, 2), SAME, (10, 8)), (1, 0, 8, 6), r"shape \[1, 0, 8, 6\], expected \[1, height"),
        (((3, 3), (2, 2), VALID, (11, 5000)), None, r"\(11, 5000\) from 5 x 4 pixels, expected what they reach"),
        (((3, 3), (2, 2), VALID, (30000, 30000)), None, "more than 16777216 values of its filters or of its output"),
        (((3, 3), (32768, 32768), VALID, (9, 9)), None, "more than 16777216 values of its filters or of its output"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    tmp_path: Path, geometry: Any, shape: tuple[int, ...] | None, reason: str
) -> None:
    content = transposed_conv_file(geometry, "float32", shape=shape)
    with pytest.raises(UnsupportedOperatorError, match=f"TRANSPOSE_CONV .*{reason}"):
        load_model(write_file(tmp_path, content))
