"""ONNX pooling and means, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nettrim.importers import load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.onnx_models import (
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ],
)
def test_max_pool_is_carried_over(tmp_path: Path, attributes: dict[str, Any]) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("MaxPool", "x", "y", **attributes)], ["N", 3, 8, 6], {})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["MaxPool2d"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    ],
)
def test_average_pool_is_carried_over(tmp_path: Path, attributes: dict[str, Any]) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("AveragePool", "x", "y", **attributes)], ["N", 3, 8, 6], {})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["AveragePool2d"]


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pool_before_a_layer_is_carried_over(tmp_path: Path, op_type: str) -> None:
    nodes = [node(op_type, "x", "g"), node("Flatten", "g", "f"), node("Gemm", "f w", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 4, 5], {"w": random_floats(3, 2)})
    assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_mean_over_height_and_width_becomes_a_pool(tmp_path: Path, keepdims: int, axes: list[int]) -> None:
    nodes = [node("ReduceMean", "x", "g", axes=axes, keepdims=keepdims), node("Flatten", "g", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 4, 5], {})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["AveragePool2d", "Reshape"]


def test_mean_over_flattened_pixels_becomes_a_pool(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c shape", "r"),
        node("ReduceMean", "r axes", "y", keepdims=0),
    ]
    constants = {"w": random_floats(4, 3, 1, 1), "shape": np.array([0, 4, -1]), "axes": np.array([2])}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 4, 5], constants, opset=18)
    assert "AveragePool2d" in op_names(assert_runs_as_in_onnx_runtime(path))


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (node("MaxPool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), "ceil_mode"),
        (node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2]), "dilations"),
        (node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), "include_pad"),
        (node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), "SAME"),
        (node("ReduceMean", "x", "y", axes=[1]), r"a mean over the axes \[1\]"),
        (node("ReduceMean", "x", "y"), "a mean over all axes"),
    ],
)
def test_pools_that_boards_cannot_run_are_refused(tmp_path: Path, pool: Any, reason: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", [pool], ["N", 3, 8, 6], {})
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


def test_pool_of_one_dimension_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("MaxPool", "x", "y", kernel_shape=[2])], ["N", 3, 8], {})
    with pytest.raises(UnsupportedOperatorError, match="kernel_shape has 1 entries, expected 2"):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_zeros_between_a_relu_and_a_max_pool_become_its_padding(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    nodes = [node("Relu", "x", "r"), pad(sizes), node("MaxPool", "p", "y", kernel_shape=[3, 3], strides=[2, 2])]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 7, 8], {}, opset=10))
    assert op_names(model) == ["Activation", "MaxPool2d"]


@pytest.mark.parametrize(
    ("before", "sizes", "attributes", "reason"),
    [
        ("Identity", (1, 1, 1, 1), {}, "no ReLU before that"),
        ("Relu", (3, 0, 0, 0), {}, "expected less than a window"),
        ("Relu", (0, 0, 0, 3), {}, "expected less than a window"),
        ("Relu", (1, 1, 1, 1), {"pads": [1, 1, 1, 1]}, "no padding of its own"),
    ],
)
def test_other_zeros_before_a_max_pool_are_refused(
    tmp_path: Path, before: str, sizes: tuple[int, ...], attributes: dict[str, Any], reason: str
) -> None:
    nodes = [node(before, "x", "r"), pad(sizes), node("MaxPool", "p", "y", kernel_shape=[3, 3], **attributes)]
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load_model(write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 7, 8], {}, opset=10))


def pad(sizes: tuple[int, ...]) -> onnx.NodeProto:
    top, left, bottom, right = sizes
    return node("Pad", "r", "p", pads=[0, 0, top, left, 0, 0, bottom, right])
