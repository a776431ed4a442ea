"""Sums, differences, products and quotients of .tflite files: LiteRT on the same file gives the same results."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert, random_floats
from tests.nettrim.tflite_models import RELU, FileWriter, write_file


@pytest.mark.parametrize("constant_first", [False, True])
@pytest.mark.parametrize(("code", "options"), [("ADD", "AddOptionsT"), ("SUB", "SubOptionsT"), ("MUL", "MulOptionsT")])
@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 1, 3)])
def test_a_constant_operand_scales_and_shifts_channels(
    tmp_path: Path, code: str, options: str, constant_first: bool, shape: tuple[int, ...]
) -> None:
    file = FileWriter()
    entry, output, constant = (
        file.activation((1, 4, 5, 3)),
        file.activation((1, 4, 5, 3)),
        file.constant(random_floats(*shape)),
    )
    places = (constant, entry) if constant_first else (entry, constant)
    file.add(code, places, output, getattr(published, options), fusedActivationFunction=RELU)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("shape", [(4, 3), (1, 4, 3), (4, 1)])
def test_a_constant_that_differs_within_a_channel_is_one_for_each_value(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    file.add("ADD", (entry, file.constant(random_floats(*shape))), output, published.AddOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
def test_a_constant_a_channel_makes_channels_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 1)), file.activation((1, 4, 3))
    file.add("MUL", (entry, file.constant(random_floats(*shape))), output, published.MulOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("shape", [(2, 4, 3), (5, 3), (1, 1, 1, 1)])
def test_a_constant_that_does_not_fit_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    file.add("ADD", (entry, file.constant(random_floats(*shape))), output, published.AddOptionsT)
    with pytest.raises(UnsupportedOperatorError, match=r"a constant of shape .*expected one that fits into it"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_constant_that_is_no_number_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    signalling = np.array([0x7FA00000], np.uint32).view(np.float32)
    file.add("ADD", (entry, file.constant(signalling)), output, published.AddOptionsT)
    with pytest.raises(ModelFileError, match="holds NaN or infinity"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_quotient_by_a_constant(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    file.add("DIV", (entry, file.constant(random_floats(3))), output, published.DivOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("divisor", ["zero", "input"])
def test_quotients_by_zero_and_by_activations_are_refused(tmp_path: Path, divisor: str) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    second = entry if divisor == "input" else file.constant(np.float32([1, 0, 2]))
    file.add("DIV", (entry, second), output, published.DivOptionsT)
    with pytest.raises(UnsupportedOperatorError, match="by what the network computes, expected one by a constant"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_power_of_two_is_a_product(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    file.add("POW", (entry, file.constant(np.array(2, np.float32))), output, published.PowOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Mul"]


def test_another_power_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3)), file.activation((1, 4, 3))
    file.add("POW", (entry, file.constant(np.array(3, np.float32))), output, published.PowOptionsT)
    with pytest.raises(UnsupportedOperatorError, match=r"POW .*a power of \[3.0\], expected 2"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize(("axes", "shape"), [((1, 2), (1, 3)), ((3,), (1, 4, 5)), ((1,), (1, 5, 3))])
def test_a_sum_is_a_mean_times_a_number(tmp_path: Path, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 5, 3)), file.activation(shape)
    file.add("SUM", (entry, file.constant(np.array(axes, np.int32))), output, published.ReducerOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_constant_beside_an_image_takes_no_reshape(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 5, 3)), file.activation((1, 4, 5, 3))
    file.add("MUL", (entry, file.constant(random_floats(3))), output, published.MulOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Conv2d"]


def test_squares_of_differences(tmp_path: Path) -> None:
    file = FileWriter()
    entry, row, output = file.activation((1, 4, 5, 3)), file.activation((1, 3)), file.activation((1, 4, 5, 3))
    square = file.activation((1, 4, 5, 3))
    file.add("MEAN", (entry, file.constant(np.array([1, 2], np.int32))), row, published.ReducerOptionsT)
    file.add("SQUARED_DIFFERENCE", (row, entry), square, published.SquaredDifferenceOptionsT)
    file.add("SQUARE", (square,), output, published.SquareOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_vector_is_broadcast_along_an_image(tmp_path: Path) -> None:
    file = FileWriter()
    image, vector = file.activation((1, 4, 5, 3)), file.activation((1, 3))
    axes = file.constant(np.array([1, 2], np.int32))
    file.add("MEAN", (image, axes), vector, published.ReducerOptionsT)
    output = file.activation((1, 4, 5, 3))
    file.add("MUL", (vector, image), output, published.MulOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((image,), (output,))))


@pytest.mark.parametrize("dtype", ["int32", "int8"])
def test_integers_that_stand_for_no_values_are_refused(tmp_path: Path, dtype: str) -> None:
    file = FileWriter()
    entry, middle, output = file.activation((1, 6)), file.activation((1, 6), dtype), file.activation((1, 6))
    file.add("MUL", (entry, entry), middle, published.MulOptionsT)
    file.add("RELU", (middle,), output)
    with pytest.raises(UnsupportedOperatorError, match=rf"MUL .*its result is {dtype.upper()}, expected"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))
