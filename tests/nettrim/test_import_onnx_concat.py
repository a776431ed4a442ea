"""ONNX Concat, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Concat
from tests.nettrim.onnx_models import (
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)

INPUT = ["N", 3, 4, 5]
BRANCHES = [node("Conv", "x w", "a"), node("Conv", "x v", "b"), node("Relu", "b", "c")]  # (4, 4, 5) and (2, 4, 5)
WEIGHTS = {"w": random_floats(4, 3, 1, 1), "v": random_floats(2, 3, 1, 1)}


@pytest.mark.parametrize("axis", [1, -3])
def test_images_are_joined_by_their_channels(tmp_path: Path, axis: int) -> None:
    nodes = [*BRANCHES, node("Concat", "a x c", "j", axis=axis), node("Conv", "j u", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, "u": random_floats(5, 9, 2, 2)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Conv2d", "Conv2d", "Concat", "Conv2d"]
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize(
    "join",
    [
        [node("Concat", "a c", "j", axis=1), node("Flatten", "j", "f")],
        [node("Flatten", "a", "d"), node("Flatten", "c", "e"), node("Concat", "d e", "f", axis=1)],
        [node("Flatten", "a", "d"), node("Flatten", "c", "e"), node("Concat", "e d", "f", axis=-1)],
    ],
)
def test_flattened_images_permute_the_weights_behind_a_concat(tmp_path: Path, join: list[Any]) -> None:
    nodes = [*BRANCHES, *join, node("MatMul", "f m", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, "m": random_floats(6 * 4 * 5, 7)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert set(op_names(model)) == {"Conv2d", "Concat", "Reshape", "Dense"}


@pytest.mark.parametrize("axis", [1, -1])
def test_features_are_joined(tmp_path: Path, axis: int) -> None:
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("Concat", "r x h", "y", axis=axis)]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 6], {"w": random_floats(6, 4)}))
    assert op_names(model) == ["Dense", "Activation", "Concat"]
    assert model.graph.tensors["y"].shape == (14,)


def test_pooled_channels_are_joined_with_features(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("GlobalMaxPool", "x", "q"),
        node("Concat", "p q", "j", axis=1),
        node("Flatten", "j", "f"),
        node("MatMul", "f m", "y"),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, "m": random_floats(7, 2)})
    assert "Concat" in op_names(assert_runs_as_in_onnx_runtime(path))


def test_images_that_the_file_keeps_channels_last_are_joined_by_their_last_axis(tmp_path: Path) -> None:
    nodes = [
        *BRANCHES,
        node("Transpose", "a", "s", perm=[0, 2, 3, 1]),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Concat", "s t", "j", axis=3),
        node("Transpose", "j", "k", perm=[0, 3, 1, 2]),
        node("Conv", "k u", "y"),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, "u": random_floats(5, 6, 2, 2)})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", "Conv2d", "Concat", "Conv2d"]


def test_joined_images_are_an_output_that_comes_channels_last(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [*BRANCHES, node("Concat", "a c", "y", axis=1)], INPUT, WEIGHTS)
    model = assert_runs_as_in_onnx_runtime(path)
    assert model.graph.tensors["y"].shape == (4, 5, 6)


@pytest.mark.parametrize("axis", [2, 3, -1])
def test_images_are_joined_by_their_rows_and_columns(tmp_path: Path, axis: int) -> None:
    nodes = [BRANCHES[0], node("Relu", "a", "r"), node("Concat", "a r", "j", axis=axis), node("Conv", "j u", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {"w": WEIGHTS["w"], "u": random_floats(5, 4, 2, 2)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert [kind for kind in op_names(model) if kind != "Reshape"] == ["Conv2d", "Activation", "Concat", "Conv2d"]
    assert "transposes left: 0" in model.notes


def test_concat_of_one_input_leaves_no_operator(tmp_path: Path) -> None:
    nodes = [node("Concat", "x", "j", axis=1), node("Conv", "j w", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {"w": WEIGHTS["w"]})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d"]


def test_batch_normalization_behind_a_concat_becomes_a_depthwise_convolution(tmp_path: Path) -> None:
    statistics = {name: np.abs(random_floats(6)) for name in ("scale", "shift", "mean", "variance")}
    nodes = [
        *BRANCHES,
        node("Concat", "a c", "j", axis=1),
        node("BatchNormalization", "j scale shift mean variance", "n"),
        node("Relu", "n", "y"),
    ]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, **statistics}))
    assert op_names(model) == ["Conv2d", "Conv2d", "Concat", "Conv2d"]
    assert any(isinstance(op, Concat) and len(op.inputs) == 2 for op in model.graph.ops)


@pytest.mark.parametrize(
    ("join", "reason"),
    [
        ("Concat a a 0", "axis 0 of .* expected an axis other than the batch"),
        ("Concat a constant 1", "it works on a constant, expected an activation"),
    ],
)
def test_other_axes_and_constants_are_refused(tmp_path: Path, join: str, reason: str) -> None:
    op_type, first, second, axis = join.split()
    constants = {"w": WEIGHTS["w"], "constant": random_floats(1, 1, 4, 5)}
    nodes = [BRANCHES[0], node(op_type, f"{first} {second}", "y", axis=int(axis))]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, constants)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)
