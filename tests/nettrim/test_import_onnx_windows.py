"""ONNX pooling and means, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
        (node("AveragePool", "x", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), "SAME"),
        (node("ReduceMean", "x", "y", axes=[0, 2]), r"a mean over the axes \[0, 2\], which takes in the batch"),
        (node("ReduceMean", "x", "y"), "a mean over all axes"),
    ],
)
def test_pools_that_boards_cannot_run_are_refused(tmp_path: Path, pool: Any, reason: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", [pool], ["N", 3, 8, 6], {})
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_zeros_between_a_relu_and_a_max_pool_become_its_padding(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    nodes = [node("Relu", "x", "r"), pad(sizes), node("MaxPool", "p", "y", kernel_shape=[3, 3], strides=[2, 2])]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 7, 8], {}, opset=10))
    assert op_names(model) == ["Activation", "MaxPool2d"]


@pytest.mark.parametrize(
    ("before", "sizes", "attributes"),
    [
        ("Identity", (1, 1, 1, 1), {}),
        ("Relu", (3, 0, 0, 0), {}),
        ("Relu", (0, 0, 0, 3), {}),
        ("Relu", (1, 1, 1, 1), {"pads": [1, 1, 1, 1]}),
    ],
)
def test_other_zeros_before_a_max_pool_are_written(
    tmp_path: Path, before: str, sizes: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    nodes = [node(before, "x", "r"), pad(sizes), node("MaxPool", "p", "y", kernel_shape=[3, 3], **attributes)]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 7, 8], {}, opset=10))
    assert op_names(model)[-2:] == ["Pad", "MaxPool2d"]


def pad(sizes: tuple[int, ...]) -> onnx.NodeProto:
    top, left, bottom, right = sizes
    return node("Pad", "r", "p", pads=[0, 0, top, left, 0, 0, bottom, right])


def test_average_pool_whose_padding_counts_is_padded_before_it(tmp_path: Path) -> None:
    pool = node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1)
    path = write_onnx(tmp_path / "m.onnx", [pool], ["N", 3, 8, 6], {})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Pad", "AveragePool2d"]


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [3], [1, 2], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("source", ["x", "image"])
def test_means_over_other_axes_are_carried_over(tmp_path: Path, source: str, axes: list[int], keepdims: int) -> None:
    image = [node("MaxPool", "x", "image", kernel_shape=[1, 1])] if source == "image" else []
    nodes = [*image, node("ReduceMean", f"{source} axes", "m", keepdims=keepdims), node("Flatten", "m", "f")]
    size = 3 * 4 * 5 // int(np.prod([(3, 4, 5)[axis - 1] for axis in axes]))
    constants = {"axes": np.array(axes), "w": random_floats(size, 2)}
    nodes = [*nodes, node("MatMul", "f w", "y")] if len(axes) < 3 or keepdims else [*nodes[:-2], nodes[-2]]
    if len(axes) == 3 and not keepdims:
        nodes[-1].output[0] = "y"
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 4, 5], constants, opset=18))
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize(
    "pool",
    [
        node("MaxPool", "c", "p", kernel_shape=[3], strides=[2], pads=[1, 1]),
        node("AveragePool", "c", "p", kernel_shape=[2], strides=[2]),
        node("AveragePool", "c", "p", kernel_shape=[3], strides=[2], pads=[1, 0], count_include_pad=1),
        node("GlobalAveragePool", "c", "p"),
        node("GlobalMaxPool", "c", "p"),
    ],
)
def test_sequences_are_images_of_height_one(tmp_path: Path, pool: Any) -> None:
    nodes = [node("Conv", "x w b", "c", strides=[2], pads=[1, 2], dilations=[2]), pool, node("Relu", "p", "y")]
    constants = {"w": random_floats(4, 3, 3), "b": random_floats(4)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 20], constants))
    assert "Conv2d" in op_names(model)


def test_a_network_of_one_dimensional_convolutions_needs_no_transpose_behind_its_input(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a", auto_pad="SAME_UPPER"),
        node("BatchNormalization", "a scale shift mean variance", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r d", "e", group=4),
        node("MaxPool", "e", "p", kernel_shape=[2], strides=[2]),
        node("Flatten", "p", "f"),
        node("MatMul", "f m", "y"),
    ]
    statistics = {name: np.abs(random_floats(4)) for name in ("scale", "shift", "mean", "variance")}
    weights = {"w": random_floats(4, 1, 5), "d": random_floats(4, 1, 3), "m": random_floats(4 * 9, 3)}
    model = assert_runs_as_in_onnx_runtime(
        write_onnx(tmp_path / "m.onnx", nodes, ["N", 1, 20], {**weights, **statistics})
    )
    assert [kind for kind in op_names(model) if kind != "Reshape"] == ["Conv2d", "Conv2d", "MaxPool2d", "Dense"]
    assert "transposes left: 0" in model.notes
