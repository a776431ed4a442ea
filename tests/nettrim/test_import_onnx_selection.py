"""ONNX Slice and Pad of images, against ONNX Runtime: padding, and 1x1 convolutions for shortcuts."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nettrim.importers import load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Conv2d
from tests.graphs import quantized, random_inputs
from tests.nettrim.onnx_models import (
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)

IMAGE = node("MaxPool", "x", "image", kernel_shape=[1, 1])  # tells that the input is an image; leaves no operator
END = np.iinfo(np.int64).max
BOUNDS = {
    "zero": [0],
    "end": [END],
    "rows": [2],
    "columns": [3],
    "one": [1],
    "two": [2],
    "pads": [0, 2, 0, 0, 0, 1, 0, 0],
}
CONSTANTS = {name: np.array(values) for name, values in BOUNDS.items()}


def test_sliced_and_padded_shortcut_becomes_one_convolution(tmp_path: Path) -> None:
    nodes = [
        node("Slice", "x zero end rows two", "r"),
        node("Slice", "r zero end columns two", "c"),
        node("Pad", "c pads - ", "p"),
        node("Conv", "x w", "b", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Add", "b p", "y"),
    ]
    constants = {**CONSTANTS, "w": random_floats(6, 3, 3, 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 7], constants))
    assert op_names(model) == ["Conv2d", "Conv2d", "Add"]
    shortcut = model.graph.ops[0]
    assert isinstance(shortcut, Conv2d)
    assert (shortcut.name, shortcut.stride) == ("Pad_p", (2, 2))
    assert model.graph.tensors[shortcut.weight].shape == (6, 1, 1, 3)
    assert model.graph.tensors[shortcut.weight].nnz == 3
    assert "Slice and Pad nodes carried over by 1x1 convolutions: 3" in model.notes


def test_quantised_shortcut_copies_its_input_and_adds_exact_zeros(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_onnx(tmp_path / "m.onnx", [IMAGE, node("Pad", "image pads", "y")], ["N", 3, 4, 4], CONSTANTS)
    graph = assert_runs_as_in_onnx_runtime(path).graph
    integers = quantized(graph, rng)
    samples = random_inputs(integers, rng, 5)
    outputs = run_graph(integers, samples)
    quantization = integers.tensors[graph.outputs[0]].quantization
    assert quantization is not None
    assert (outputs[..., [0, 1, 5]] == quantization.zero_point).all()
    np.testing.assert_allclose(outputs[..., 2:5], samples, atol=1)  # one scale on both sides, one rounding


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "stride"),
    [
        ([0, 0], [8, 7], [2, 3], [2, 2], (2, 2)),
        ([0], [END], [-1], [3], (1, 3)),
        ([-8], [1000], [2], [20], (20, 1)),
        ([0, 0, 0, 0], [END, END, 8, 7], [0, 1, 2, 3], [1, 1, 3, 2], (3, 2)),
    ],
)
def test_slice_of_every_nth_row_and_column_becomes_a_convolution(
    tmp_path: Path, starts: list[int], ends: list[int], axes: list[int], steps: list[int], stride: tuple[int, int]
) -> None:
    bounds = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: np.array(values) for name, values in bounds.items()}
    nodes = [IMAGE, node("Slice", "image starts ends axes steps", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 7], constants))
    (op,) = model.graph.ops
    assert isinstance(op, Conv2d)
    assert op.stride == stride


@pytest.mark.parametrize("opset", [9, 17])
def test_slice_of_everything_leaves_no_operator(tmp_path: Path, opset: int) -> None:
    full = {"starts": [0, 0], "ends": [END, 8], "axes": [1, 2]}
    part = node("Slice", "x", "s", **full) if opset < 10 else node("Slice", "x starts ends axes", "s")
    constants = {} if opset < 10 else {name: np.array(values) for name, values in full.items()}
    path = write_onnx(tmp_path / "m.onnx", [part, node("Relu", "s", "y")], ["N", 3, 8, 6], constants, opset)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Activation"]


def test_slice_that_two_nodes_read_stays_a_convolution_of_its_own(tmp_path: Path) -> None:
    nodes = [
        node("Slice", "x zero end rows two", "s"),
        node("Pad", "s pads", "p"),
        node("Conv", "s w", "c"),
        node("Add", "p c", "y"),
    ]
    constants = {**CONSTANTS, "w": random_floats(6, 3, 1, 1)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants))
    assert op_names(model) == ["Conv2d", "Conv2d", "Conv2d", "Add"]


def test_shortcut_right_after_a_layer_leaves_the_layer_alone(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("Slice", "c zero end rows two", "s"), node("Pad", "s pads", "y")]
    constants = {**CONSTANTS, "w": random_floats(4, 3, 1, 1)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants))
    assert [model.graph.tensors[layer.weight].nnz for layer in model.graph.layers] == [12, 4]


@pytest.mark.parametrize(
    ("shape", "starts", "ends", "axes", "steps", "reason"),
    [
        ([3, 8, 6], [1], [8], [2], [2], "it takes 1:8:2 along axis 2; supported: every row and column"),
        ([3, 8, 6], [0], [7], [2], [1], "it takes 0:7:1 along axis 2"),
        ([3, 8, 6], [-1], [-END], [2], [-1], "along axis 2"),
        ([3, 8, 6], [0], [END], [1], [2], r"it takes steps \[1, 2, 1, 1\]"),
        ([3, 8, 6], [0], [2], [0], [1], "it takes 0:2:1 along axis 0"),
        ([3, 8, 6], [0], [END], [2], [1 << 40], "steps .* are more than boards hold"),
        ([1 << 12, 2, 2], [0], [END], [2], [2], "4096 to 4096 channels .* are more than boards hold"),
    ],
)
def test_other_slices_are_refused(
    tmp_path: Path, shape: list[int], starts: Any, ends: Any, axes: Any, steps: Any, reason: str
) -> None:
    bounds = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: np.array(values) for name, values in bounds.items()}
    nodes = [IMAGE, node("Slice", "image starts ends axes steps", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", *shape], constants)
    with pytest.raises(UnsupportedOperatorError, match=reason) as caught:
        assert_runs_as_in_onnx_runtime(path)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "reason"),
    [
        ([0], [END], [4], r"axes \[4\] of an input with 4 axes"),
        ([0, 0], [END, END], [2, -2], r"axes \[2, -2\] of an input with 4 axes"),
        ([0, 0], [END], [2], "expected equally many of each"),
        ([], [END], [2], "expected equally many of each"),
        ([float("nan")], [END], [2], "bounds of type float64, expected integers"),
    ],
)
def test_slice_with_bounds_that_make_no_sense_is_refused(
    tmp_path: Path, starts: list[float], ends: list[int], axes: list[int], reason: str
) -> None:
    constants = {"starts": np.array(starts), "ends": np.array(ends), "axes": np.array(axes)}
    if not starts:
        constants["starts"] = constants["starts"].astype(np.int64)
    nodes = [IMAGE, node("Slice", "image starts ends axes", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants)
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(model.graph.input[0])  # no shape could be inferred
    model.graph.output[0].name = "y"
    onnx.save(model, path)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load_model(path)


def test_strided_slice_of_features_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("Slice", "x zero end one two", "y")], ["N", 9], CONSTANTS)
    with pytest.raises(UnsupportedOperatorError, match=r"it takes steps \[1, 2\] along the axes of"):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize(
    ("pad", "pads", "reason"),
    [
        (node("Pad", "x pads", "p"), [0, 1, 1, 0, 0, 1, 0, 0], "or before and after their channels"),
        (node("Pad", "x pads", "p"), [1, 0, 0, 0, 0, 0, 0, 0], "zeros around the height and width of images"),
        (node("Pad", "x pads", "p"), [0, 0, -1, 0, 0, 0, 0, 0], "cuts off or adds"),
        (node("Pad", "x pads", "p"), [0, 1 << 40, 0, 0, 0, 0, 0, 0], "cuts off or adds"),
        (node("Pad", "x pads", "p", mode="reflect"), [0, 0, 1, 1, 0, 0, 1, 1], "mode 'reflect'"),
        (node("Pad", "x pads one", "p"), [0, 0, 1, 1, 0, 0, 1, 1], r"pads with 1\.0"),
        (node("Pad", "x pads one", "p"), [0, 1, 0, 0, 0, 1, 0, 0], r"pads with 1\.0"),
        (node("Pad", "x pads", "p"), [0, 0, 1, 1, 0, 0, 1, 1], r"MaxPool .*a Pad node comes before it"),
    ],
)
def test_padding_that_no_convolution_can_take_in_is_refused(
    tmp_path: Path, pad: Any, pads: list[int], reason: str
) -> None:
    nodes = [pad, node("MaxPool", "p", "y", kernel_shape=[2, 2])]
    constants = {"pads": np.array(pads), "one": np.float32(1)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)
