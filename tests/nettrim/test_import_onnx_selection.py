"""ONNX Slice, Split, Gather and Pad, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nettrim.importers import load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Conv2d, Pad, Padding, Slice
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


def test_sliced_and_padded_shortcut_only_moves_values(tmp_path: Path) -> None:
    nodes = [
        node("Slice", "x zero end rows two", "r"),
        node("Slice", "r zero end columns two", "c"),
        node("Pad", "c pads - ", "p"),
        node("Conv", "x w", "b", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Add", "b p", "y"),
    ]
    constants = {**CONSTANTS, "w": random_floats(6, 3, 3, 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 7], constants))
    assert op_names(model) == ["Slice", "Pad", "Conv2d", "Add"]
    kept, padded, *_ = model.graph.ops
    assert isinstance(kept, Slice)
    assert isinstance(padded, Pad)
    assert (kept.name, kept.end, kept.stride) == ("Slice_c", (7, 7, 3), (2, 2, 1))
    assert (padded.before, padded.after) == ((0, 0, 2), (0, 0, 1))
    assert "transposes left: 0" in model.notes


def test_quantised_pad_copies_its_input_and_adds_exact_zeros(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_onnx(tmp_path / "m.onnx", [IMAGE, node("Pad", "image pads", "y")], ["N", 3, 4, 4], CONSTANTS)
    graph = assert_runs_as_in_onnx_runtime(path).graph
    integers = quantized(graph, rng)
    samples = random_inputs(integers, rng, 5)
    outputs = run_graph(integers, samples)
    assert (outputs[..., [0, 1, 5]] == integers.quantization(graph.outputs[0]).zero_point).all()
    np.testing.assert_array_equal(outputs[..., 2:5], samples)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([0, 0], [8, 7], [2, 3], [2, 2]),
        ([0], [END], [-1], [3]),
        ([-8], [1000], [2], [20]),
        ([0, 1, 0, 0], [END, END, 8, 7], [0, 1, 2, 3], [1, 1, 3, 2]),
        ([1], [-1], [2], [2]),
        ([0], [END], [1], [2]),
        ([0], [END], [2], [1 << 40]),
    ],
)
@pytest.mark.parametrize("source", ["image", "x"])
def test_slices_are_carried_over(
    tmp_path: Path, starts: list[int], ends: list[int], axes: list[int], steps: list[int], source: str
) -> None:
    bounds = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: np.array(values) for name, values in bounds.items()}
    nodes = [*([IMAGE] if source == "image" else []), node("Slice", f"{source} starts ends axes steps", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 7], constants))
    assert op_names(model) == ["Slice"]
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize("opset", [9, 17])
def test_slice_of_everything_leaves_no_operator(tmp_path: Path, opset: int) -> None:
    full = {"starts": [0, 0], "ends": [END, 8], "axes": [1, 2]}
    part = node("Slice", "x", "s", **full) if opset < 10 else node("Slice", "x starts ends axes", "s")
    constants = {} if opset < 10 else {name: np.array(values) for name, values in full.items()}
    path = write_onnx(tmp_path / "m.onnx", [part, node("Relu", "s", "y")], ["N", 3, 8, 6], constants, opset)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Activation"]


def test_slice_that_two_nodes_read_stays_on_its_own(tmp_path: Path) -> None:
    nodes = [
        node("Slice", "x zero end rows two", "s"),
        node("Slice", "s one end columns", "t"),
        node("Conv", "s w", "c"),
        node("Flatten", "c", "d"),
        node("Flatten", "t", "u"),
        node("Concat", "d u", "j", axis=1),
        node("MatMul", "j m", "y"),
    ]
    constants = {**CONSTANTS, "w": random_floats(6, 3, 1, 1), "m": random_floats(6 * 4 * 6 + 3 * 4 * 5, 5)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants))
    assert op_names(model).count("Slice") == 2


def test_slice_of_a_slice_is_one(tmp_path: Path) -> None:
    nodes = [node("Slice", "x one end one two", "s"), node("Slice", "s one columns one two", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 9], CONSTANTS))
    (op,) = model.graph.ops
    assert isinstance(op, Slice)
    assert (op.begin, op.end, op.stride) == ((3,), (4,), (4,))


@pytest.mark.parametrize(("opset", "sizes"), [(11, [1, 2, 3]), (13, [1, 2, 3]), (13, None), (18, None)])
def test_split_of_channels_becomes_slices(tmp_path: Path, opset: int, sizes: list[int] | None) -> None:
    options = {"split": sizes} if opset < 13 and sizes else {"num_outputs": 3} if opset == 18 else {}
    constants = {"sizes": np.array(sizes)} if opset == 13 and sizes else {}
    parts = node("Split", "x sizes" if constants else "x", "a b c", axis=1, **options)
    nodes = [IMAGE, parts, node("Concat", "c a image", "y", axis=1)]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 6, 3, 4], constants, opset))
    assert op_names(model) == ["Slice", "Slice", "Concat"]


@pytest.mark.parametrize(
    ("indices", "kinds"),
    [
        (np.array(2), ["Slice"]),
        (np.array(-1), ["Slice"]),
        (np.array([1, 3, 5]), ["Slice"]),
        (np.array([4]), ["Slice"]),
        (np.array([0, 2, 4, 1, 3, 5]), ["Transpose"]),
    ],
)
def test_gather_of_constant_places_is_carried_over(tmp_path: Path, indices: Any, kinds: list[str]) -> None:
    nodes = [node("Gather", "x indices", "g", axis=1), node("Flatten", "g", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 6, 5], {"indices": indices})
    found = op_names(assert_runs_as_in_onnx_runtime(path))
    assert [kind for kind in found if kind != "Reshape"] == kinds


def test_gather_of_all_in_another_order_permutes_the_weights_behind_it(tmp_path: Path) -> None:
    constants = {"indices": np.array([3, 0, 4, 1, 2]), "w": random_floats(5, 3)}
    nodes = [node("Gather", "x indices", "g", axis=1), node("MatMul", "g w", "y")]
    assert op_names(assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 5], constants))) == [
        "Dense"
    ]


def test_embedding_of_constant_indices_is_a_constant(tmp_path: Path) -> None:
    constants = {"table": random_floats(7, 4), "indices": np.array(5)}
    nodes = [node("Gather", "table indices", "e", axis=0), node("MatMul", "x w", "h"), node("Add", "h e", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3], {**constants, "w": random_floats(3, 4)})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Dense"]


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "reason"),
    [
        ([-1], [-END], [2], [-1], "along axis 2, expected positive steps"),
        ([0], [2], [0], [1], "it takes 0:2:1 along axis 0, expected the whole batch"),
        ([1], [END], [0], [1], "along axis 0, expected positive steps after the batch axis"),
        ([5], [5], [2], [1], "which leaves nothing"),
    ],
)
def test_other_slices_are_refused(tmp_path: Path, starts: Any, ends: Any, axes: Any, steps: Any, reason: str) -> None:
    bounds = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: np.array(values) for name, values in bounds.items()}
    nodes = [IMAGE, node("Slice", "image starts ends axes steps", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants)
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


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (node("Gather", "x batch", "y", axis=0), r"axis 0 of \('batch', 6, 5\), expected one after the batch"),
        (node("Gather", "x uneven", "y", axis=1), r"places \[0, 1, 3\] along axis 1"),
        (node("Gather", "x outside", "y", axis=1), r"places \[6\] of 6 along axis 1"),
        (node("Split", "x uneven", "a y", axis=1), r"it splits 6 into \[0, 1, 3\]"),
    ],
)
def test_other_gathers_and_splits_are_refused(tmp_path: Path, part: Any, reason: str) -> None:
    constants = {"batch": np.array([0]), "uneven": np.array([0, 1, 3]), "outside": np.array([6])}
    path = write_onnx(tmp_path / "m.onnx", [node("Relu", "x", "r"), part], ["N", 6, 5], constants)
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(model.graph.input[0])  # no shape could be inferred
    model.graph.output[0].name = "y"
    onnx.save(model, path)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load_model(path)


@pytest.mark.parametrize(
    ("pads", "opset"),
    [([0, 1, 1, 0, 0, 1, 0, 0], 17), ([0, 0, 1, 1, 0, 0, 1, 1], 17), ([0, 0, 1, 0, 0, 0, 2, 1], 9)],
)
def test_padding_that_no_convolution_takes_in_is_an_operator_of_its_own(
    tmp_path: Path, pads: list[int], opset: int
) -> None:
    pad = node("Pad", "x pads", "p") if opset > 10 else node("Pad", "x", "p", pads=pads)
    constants = {"pads": np.array(pads)} if opset > 10 else {}
    nodes = [pad, node("MaxPool", "p", "y", kernel_shape=[2, 2])]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants, opset))
    assert op_names(model) == ["Pad", "MaxPool2d"]


@pytest.mark.parametrize(("shape", "pads"), [([2, 4, 5], [0, 0, 1, 0, 0, 0, 2, 1]), ([2, 5], [0, 0, 1, 0, 0, 3])])
def test_padding_at_the_end_is_an_operator_of_its_own(tmp_path: Path, shape: list[int], pads: list[int]) -> None:
    nodes = [node("Relu", "x", "r"), node("Pad", "r p", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", *shape], {"p": np.array(pads)})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Activation", "Pad"]


def test_padding_that_a_convolution_and_a_pool_read_is_written_once_and_taken_in_once(tmp_path: Path) -> None:
    nodes = [
        node("Pad", "x around", "p"),
        node("MaxPool", "p", "m", kernel_shape=[3, 3]),
        node("AveragePool", "p", "a", kernel_shape=[3, 3]),
        node("Conv", "p w", "c"),
        node("Concat", "m a c", "y", axis=1),
    ]
    constants = {"around": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": random_floats(4, 3, 3, 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants))
    assert sorted(op_names(model)) == ["AveragePool2d", "Concat", "Conv2d", "MaxPool2d", "Pad"]
    (conv,) = model.graph.layers
    assert isinstance(conv, Conv2d)
    assert conv.padding == Padding(1, 1, 1, 1)


@pytest.mark.parametrize(("axes", "pads"), [([1], [2, 1]), ([-1, 1], [0, 1, 3, 0])])
def test_pads_along_chosen_axes_are_carried_over(tmp_path: Path, axes: list[int], pads: list[int]) -> None:
    nodes = [node("Pad", "x pads - axes", "y")]
    constants = {"pads": np.array(pads), "axes": np.array(axes)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 4, 5], constants, opset=18)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Pad"]


@pytest.mark.parametrize(
    ("pad", "pads", "reason"),
    [
        (node("Pad", "x pads", "p"), [1, 0, 0, 0, 0, 0, 0, 0], "it pads the batch axis"),
        (node("Pad", "x pads", "p"), [0, 0, -1, 0, 0, 0, 0, 0], "cuts off or adds"),
        (node("Pad", "x pads", "p"), [0, 1 << 40, 0, 0, 0, 0, 0, 0], "cuts off or adds"),
        (node("Pad", "x pads", "p", mode="reflect"), [0, 0, 1, 1, 0, 0, 1, 1], "mode 'reflect'"),
        (node("Pad", "x pads one", "p"), [0, 0, 1, 1, 0, 0, 1, 1], r"pads with 1\.0"),
    ],
)
def test_other_padding_is_refused(tmp_path: Path, pad: Any, pads: list[int], reason: str) -> None:
    nodes = [pad, node("MaxPool", "p", "y", kernel_shape=[2, 2])]
    constants = {"pads": np.array(pads), "one": np.float32(1)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 8, 6], constants)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)
