"""PAD and PADV2 of .tflite files: LiteRT on the same file gives the same results, other values are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert
from tests.nettrim.test_import_tflite_int8 import assert_bits_of_litert
from tests.nettrim.tflite_models import FileWriter, write_file

LOWEST = np.finfo(np.float32).min
INT8 = {"dtype": "int8", "scale": 0.05, "zero": 30}
SIDES = np.array([[0, 0], [1, 1], [0, 1], [0, 0]], np.int32)
SAME, VALID = published.Padding.SAME, published.Padding.VALID


def padded(file: FileWriter, value: Any, sides: Any = SIDES, shape: tuple[int, ...] = (1, 8, 7, 2)) -> tuple[int, int]:
    """Append PADV2 of the network's input; return the input and what is padded."""
    kind = INT8 if value.dtype == np.int8 else {}
    quantization = {"scale": 0.05, "zero": 30} if kind else {}
    entry = file.activation(shape, **kind)
    output = file.activation(tuple(size + sum(ends) for size, ends in zip(shape, sides, strict=True)), **kind)
    places = (entry, file.constant(sides), file.constant(value, **quantization))
    return entry, file.add("PADV2", places, output, published.PadV2OptionsT, version=2)


def pooled(file: FileWriter, source: int, padding: int = VALID, code: str = "MAX_POOL_2D") -> int:
    shape = file.tensors[source].shape
    sizes = [-(-size // 2) if padding == SAME else (size - 3) // 2 + 1 for size in shape[1:3]]
    kind = INT8 if file.tensors[source].type == published.TensorType.INT8 else {}
    output = file.activation((1, *sizes, shape[3]), **kind)
    options = {"strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3, "padding": padding}
    return file.add(code, (source,), output, published.Pool2DOptionsT, version=2, **options)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize("value", [LOWEST, np.float32(-np.inf), np.int8(-128)])
def test_the_lowest_value_around_an_image_is_the_padding_of_a_max_pool(
    tmp_path: Path, value: Any, padding: int
) -> None:
    file = FileWriter()
    entry, source = padded(file, np.array([value]))
    path = write_file(tmp_path, file.content((entry,), (pooled(file, source, padding),)))
    model = assert_bits_of_litert(path) if isinstance(value, np.int8) else assert_runs_as_in_litert(path)
    assert [type(op).__name__ for op in model.graph.ops] == ["MaxPool2d"]


@pytest.mark.parametrize("value", [np.float32(0), np.int8(30)])
def test_zero_is_padded_as_by_pad(tmp_path: Path, value: Any) -> None:
    file = FileWriter()
    entry, source = padded(file, np.array(value))
    path = write_file(tmp_path, file.content((entry,), (pooled(file, source),)))
    model = assert_bits_of_litert(path) if isinstance(value, np.int8) else assert_runs_as_in_litert(path)
    assert [type(op).__name__ for op in model.graph.ops] == ["Pad", "MaxPool2d"]


def test_the_lowest_value_around_zeros_around_an_image(tmp_path: Path) -> None:
    file = FileWriter()
    entry, zeros = padded(file, np.float32([0]))
    _, source = padded(file, np.float32([LOWEST]), shape=tuple(file.tensors[zeros].shape))
    file.operators[-1].inputs[0] = zeros
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (pooled(file, source),))))
    assert [type(op).__name__ for op in model.graph.ops] == ["Pad", "MaxPool2d"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.float32(1.5), "1.5"), (np.float32(np.nan), "nan"), (np.int8(0), "0"), (np.int8(-127), "-127")],
)
def test_other_values_are_refused(tmp_path: Path, value: Any, shown: str) -> None:
    file = FileWriter()
    entry, source = padded(file, np.array([value]))
    with pytest.raises(UnsupportedOperatorError, match=rf"PADV2 .*it pads with {shown}, expected zero, or the lowest"):
        load_model(write_file(tmp_path, file.content((entry,), (pooled(file, source),))))


@pytest.mark.parametrize("reader", ["AVERAGE_POOL_2D", "nothing"])
def test_the_lowest_value_is_refused_where_no_max_pool_takes_it_in(tmp_path: Path, reader: str) -> None:
    file = FileWriter()
    entry, source = padded(file, np.float32([LOWEST]))
    output = source if reader == "nothing" else pooled(file, source, code=reader)
    with pytest.raises(UnsupportedOperatorError, match=r"PADV2 .*the lowest value, for more than MAX_POOL_2D"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def test_the_lowest_value_among_channels_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, source = padded(file, np.float32([LOWEST]), np.array([[0, 0], [0, 0], [0, 0], [1, 1]], np.int32))
    with pytest.raises(UnsupportedOperatorError, match=r"PADV2 .*expected only the height and width of an image"):
        load_model(write_file(tmp_path, file.content((entry,), (pooled(file, source),))))


@pytest.mark.parametrize("rows", [[3, 0], [0, 4]])
def test_a_window_on_padding_alone_is_refused(tmp_path: Path, rows: list[int]) -> None:
    file = FileWriter()
    entry, source = padded(file, np.float32([LOWEST]), np.array([[0, 0], rows, [0, 0], [0, 0]], np.int32))
    with pytest.raises(UnsupportedOperatorError, match="around 8 x 7 pixels, expected a pixel in every window"):
        load_model(write_file(tmp_path, file.content((entry,), (pooled(file, source),))))


def test_reflected_padding_is_refused(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 8, 7, 2)), file.activation((1, 10, 8, 2))
    file.add("MIRROR_PAD", (entry, file.constant(SIDES)), output, published.MirrorPadOptionsT)
    with pytest.raises(UnsupportedOperatorError, match=r"MIRROR_PAD \('t1'\)"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))
