"""ONNX pooling and means, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
