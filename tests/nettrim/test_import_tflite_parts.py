"""Operators of .tflite files that take tensors apart, join and move them: the results of LiteRT, in int8 its bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert
from tests.nettrim.test_import_tflite_int8 import assert_bits_of_litert
from tests.nettrim.tflite_models import FileWriter, write_file

INT8 = {"dtype": "int8", "scale": 0.05, "zero": 3}
KINDS = [pytest.param({}, id="float32"), pytest.param(INT8, id="int8")]


def ints(*values: Any) -> Any:
    return np.array(values[0] if len(values) == 1 else values, np.int32)


def assert_as_litert(path: Path, kind: dict[str, Any]) -> ImportedModel:
    return assert_bits_of_litert(path, 50) if kind else assert_runs_as_in_litert(path)


def split(file: FileWriter, code: str, places: tuple[int, ...], outputs: list[int], **options: Any) -> list[int]:
    """Append an operator of several outputs."""
    options_class = {"SPLIT_V": published.SplitVOptionsT, "UNPACK": published.UnpackOptionsT}[code]
    file.add(code, places, outputs[0], options_class, version=2, **options)
    file.operators[-1].outputs = outputs
    return outputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(1, 3, 2), (1, -1, 2)])
def test_parts_of_given_sizes_are_joined_in_another_order(
    tmp_path: Path, sizes: tuple[int, ...], kind: dict[str, Any]
) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 3, 2, 6), **kind), file.activation((1, 3, 2, 6), **kind)
    outputs = [file.activation((1, 3, 2, size), **kind) for size in (1, 3, 2)]
    parts = split(file, "SPLIT_V", (entry, file.constant(ints(sizes)), file.constant(ints(-1))), outputs, numSplits=3)
    file.add("CONCATENATION", tuple(parts[::-1]), output, published.ConcatenationOptionsT, version=2, axis=3)
    assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [1, 2, 3, -2])
def test_inputs_are_joined_along_any_axis(tmp_path: Path, axis: int, kind: dict[str, Any]) -> None:
    file, shape = FileWriter(), [1, 3, 2, 6]
    entry = file.activation(tuple(shape), **kind)
    clamped = file.add("RELU", (entry,), file.activation(tuple(shape), **kind), version=2)
    shape[axis] *= 3
    output = file.activation(tuple(shape), **kind)
    places = (clamped, entry, entry)
    file.add("CONCATENATION", places, output, published.ConcatenationOptionsT, version=2, axis=axis)
    assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [(1, 1), (2, 1), (3, 2), (-1, -1), (1, -2)])
def test_unpacked_tensors_are_packed_along_another_axis(
    tmp_path: Path, axes: tuple[int, int], kind: dict[str, Any]
) -> None:
    file, shape = FileWriter(), [1, 3, 2, 6]
    entry = file.activation(tuple(shape), **kind)
    count = shape.pop(axes[0])
    outputs = [file.activation(tuple(shape), **kind) for _ in range(count)]
    parts = split(file, "UNPACK", (entry,), outputs, num=count, axis=axes[0])
    shape.insert(axes[1] % 4, count)
    output = file.activation(tuple(shape), **kind)
    options = {"valuesCount": count, "axis": axes[1]}
    file.add("PACK", tuple(parts[::-1]), output, published.PackOptionsT, version=2, **options)
    assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_axis_of_length_one_comes_by_pack_and_goes_by_unpack(tmp_path: Path, kind: dict[str, Any]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3), **kind), file.activation((1, 4, 3), **kind)
    taller, clamped = file.activation((1, 4, 1, 3), **kind), file.activation((1, 4, 1, 3), **kind)
    file.add("PACK", (entry,), taller, published.PackOptionsT, version=2, valuesCount=1, axis=2)
    file.add("RELU", (taller,), clamped, version=2)
    split(file, "UNPACK", (clamped,), [output], num=1, axis=2)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)
    assert [type(op).__name__ for op in model.graph.ops if type(op).__name__ != "Reshape"] == ["Activation"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("axis", "places"), [(1, 2), (2, [0]), (3, [1, 3, 5]), (-1, 0), (3, [2, 3])])
def test_constant_places_are_slices(tmp_path: Path, axis: int, places: Any, kind: dict[str, Any]) -> None:
    file, shape = FileWriter(), (1, 3, 2, 6)
    entry = file.activation(shape, **kind)
    output = file.activation(np.take(np.empty(shape), places, axis=axis).shape, **kind)
    file.add("GATHER", (entry, file.constant(ints(places))), output, published.GatherOptionsT, version=2, axis=axis)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)
    assert type(model.graph.ops[0]).__name__ == "Slice"


@pytest.mark.parametrize(
    ("bounds", "masks", "shape"),
    [
        (([0, 2], [1, 3], [1, 1]), {"shrinkAxisMask": 2}, (1, 5, 4)),
        (([0, 2], [1, 7], [1, 2]), {}, (1, 3, 5, 4)),
        (([0, 1], [0, 3], [1, 1]), {"ellipsisMask": 1}, (1, 8, 5, 2)),
        (([0, 0, 2], [1, 0, 3], [1, 1, 1]), {"ellipsisMask": 2, "shrinkAxisMask": 4}, (1, 8, 5)),
        (([0, 1, 0, 1], [1, 4, 0, 3], [1, 1, 1, 1]), {"ellipsisMask": 4}, (1, 3, 5, 2)),
    ],
)
def test_axes_that_a_slice_does_not_name_are_whole(
    tmp_path: Path, bounds: tuple[list[int], ...], masks: dict[str, int], shape: tuple[int, ...]
) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 8, 5, 4)), file.activation(shape)
    places = (entry, *(file.constant(ints(part)) for part in bounds))
    file.add("STRIDED_SLICE", places, output, published.StridedSliceOptionsT, **masks)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ["DEPTH_TO_SPACE", "SPACE_TO_DEPTH"])
def test_blocks_of_pixels_and_channels(tmp_path: Path, code: str, kind: dict[str, Any]) -> None:
    file, options = FileWriter(), {"DEPTH_TO_SPACE": "DepthToSpaceOptionsT", "SPACE_TO_DEPTH": "SpaceToDepthOptionsT"}
    shapes = [(1, 2, 3, 12), (1, 4, 6, 3)]
    entry, output = (file.activation(shape, **kind) for shape in shapes[:: 1 if code == "DEPTH_TO_SPACE" else -1])
    file.add(code, (entry,), output, getattr(published, options[code]), blockSize=2)
    assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keeps_axes", [False, True])
def test_the_largest_value_of_an_image_is_a_max_pool(tmp_path: Path, keeps_axes: bool, kind: dict[str, Any]) -> None:
    file = FileWriter()
    entry, shape = file.activation((1, 4, 3, 5), **kind), (1, 1, 1, 5) if keeps_axes else (1, 5)
    output = file.activation(shape, **kind)
    options = {"keepDims": keeps_axes}
    file.add("REDUCE_MAX", (entry, file.constant(ints(1, 2))), output, published.ReducerOptionsT, version=2, **options)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)
    assert type(model.graph.ops[0]).__name__ == "MaxPool2d"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("orders", "left"),
    [
        (((0, 3, 1, 2), (0, 2, 3, 1)), []),
        (((0, 3, 1, 2), (0, 3, 1, 2)), ["Transpose"]),
        (((0, 1, 3, 2), (0, 2, 1, 3)), ["Transpose"]),
    ],
)
def test_transposes_in_a_row_are_one_or_none(
    tmp_path: Path, orders: tuple[tuple[int, ...], ...], left: list[str], kind: dict[str, Any]
) -> None:
    file, shape = FileWriter(), np.array((1, 4, 3, 5))
    entry = tensor = file.activation(tuple(shape), **kind)
    for order in orders:
        shape = shape[list(order)]
        output = file.activation(tuple(shape), **kind)
        file.add("TRANSPOSE", (tensor, file.constant(ints(order))), output, published.TransposeOptionsT, version=2)
        tensor = output
    last = file.add("RELU", (tensor,), file.activation(tuple(shape), **kind), version=2)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (last,))), kind)
    assert [type(op).__name__ for op in model.graph.ops] == ["Activation", *left]


@pytest.mark.parametrize("kind", KINDS)
def test_transposes_around_what_computes_value_by_value_are_none(tmp_path: Path, kind: dict[str, Any]) -> None:
    file, shapes = FileWriter(), ((1, 4, 3, 5), (1, 5, 4, 3))
    entry = file.activation(shapes[0], **kind)
    there, back = (file.constant(ints(order)) for order in ((0, 3, 1, 2), (0, 2, 3, 1)))
    turned = file.activation(shapes[1], **kind)
    file.add("TRANSPOSE", (entry, there), turned, published.TransposeOptionsT, version=2)
    clamped = file.add("RELU", (turned,), file.activation(shapes[1], **kind), version=2)
    options = {"options": published.LeakyReluOptionsT, "alpha": 0.25}
    bent = file.add("LEAKY_RELU", (clamped,), file.activation(shapes[1], **kind), version=2, **options)
    output = file.activation(shapes[0], **kind)
    file.add("TRANSPOSE", (bent, back), output, published.TransposeOptionsT, version=2)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (output,))), kind)
    assert [type(op).__name__ for op in model.graph.ops] == ["Activation", "UnaryFunction"]
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_transpose_of_axes_of_length_one_is_a_reshape(tmp_path: Path, kind: dict[str, Any]) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 1, 5), **kind), file.activation((1, 1, 4, 5), **kind)
    order = file.constant(ints(0, 2, 1, 3))
    file.add("TRANSPOSE", (entry, order), output, published.TransposeOptionsT, version=2)
    last = file.add("RELU", (output,), file.activation((1, 1, 4, 5), **kind), version=2)
    model = assert_as_litert(write_file(tmp_path, file.content((entry,), (last,))), kind)
    assert "Transpose" not in [type(op).__name__ for op in model.graph.ops]


def refused(code: str, options: Any, shapes: Any, constants: Any = (), **values: Any) -> bytes:
    """Return a file of one operator on an input, with constants behind it."""
    file = FileWriter()
    entry, *outputs = (file.activation(shape) for shape in shapes)
    file.add(code, (entry, *(file.constant(ints(part)) for part in constants)), outputs[0], options, **values)
    file.operators[0].outputs = outputs
    return file.content((entry,), (outputs[0],))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            refused("SPLIT_V", published.SplitVOptionsT, [(1, 6), (1, 2), (1, 3)], ([2, 3], 1)),
            r"it splits 6 into \[2, 3\], expected 2 parts",
        ),
        (
            refused("SPLIT_V", published.SplitVOptionsT, [(1, 6), (1, 2), (1, 3)], ([2, 4], 0)),
            r"axis \[0\] of \(1, 6\), expected one behind the batch",
        ),
        (
            refused("UNPACK", published.UnpackOptionsT, [(1, 6), (1,), (1,)], axis=1, num=2),
            "2 outputs of 6, expected as many",
        ),
        (
            refused("UNPACK", published.UnpackOptionsT, [(1, 6), (6,)], axis=0, num=1),
            r"axis \[0\] of \(1, 6\), expected one behind the batch",
        ),
        (
            refused("GATHER", published.GatherOptionsT, [(1, 6), (1, 2)], ([3, 1],), axis=1),
            r"places \[3, 1\] of 6 along axis 1, expected one or evenly spaced ones",
        ),
        (
            refused("GATHER", published.GatherOptionsT, [(1, 6), (1, 2)], ([4, 6],), axis=1),
            r"places \[4, 6\] of 6 along axis 1, expected",
        ),
        (
            refused("GATHER", published.GatherOptionsT, [(1, 6), (1, 3)], ([0, 1, 2**31 - 1],), axis=1),
            r"places \[0, 1, 2147483647\] of 6 along axis 1, expected",
        ),
        (
            refused("GATHER", published.GatherOptionsT, [(1, 6), (1,)], ([2],), axis=1, batchDims=1),
            "1 axes with places of their own, expected none",
        ),
        (
            refused("PACK", published.PackOptionsT, [(1, 6), (1, 1, 6)], axis=0, valuesCount=1),
            "axis 0 of 3, expected one behind the batch",
        ),
        (
            refused("DEPTH_TO_SPACE", published.DepthToSpaceOptionsT, [(1, 2, 2, 6), (1, 4, 4, 1)], blockSize=2),
            "blocks of 2 x 2 pixels from 6 channels, expected a multiple",
        ),
        (
            refused("SPACE_TO_DEPTH", published.SpaceToDepthOptionsT, [(1, 3, 2, 6), (1, 1, 1, 24)], blockSize=2),
            "blocks of 2 x 2 pixels of 3 x 2, expected whole ones",
        ),
        (
            refused("REDUCE_MAX", published.ReducerOptionsT, [(1, 3, 2, 6), (1, 3, 2)], ([3],)),
            r"the axes \[3\] of \(1, 3, 2, 6\), expected the height and width of images",
        ),
    ],
)
def test_what_leaves_the_batch_or_does_not_fit_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load_model(write_file(tmp_path, content))
