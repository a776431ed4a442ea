"""ONNX nodes with weights, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from nettrim_runtime.ops import ActivationFunction, Conv2d, Dense
from tests.nettrim.onnx_models import (
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)

BATCH_NORM = {
    "scale": np.array([1.5, -0.5, 0.2, 2.0], np.float32),
    "shift": np.array([0.1, 0.2, -0.3, 0.0], np.float32),
    "mean": np.array([0.3, -0.2, 0.1, 0.5], np.float32),
    "variance": np.array([1.0, 0.5, 0.0, 2.0], np.float32),
}


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), None])
def test_gemm_with_its_factors_becomes_dense(tmp_path: Path, trans_b: int, bias: tuple[int, ...] | None) -> None:
    constants = {"w": random_floats(5, 7) if trans_b else random_floats(7, 5)}
    inputs = "x w"
    if bias is not None:
        constants["b"], inputs = random_floats(*bias), "x w b"
    gemm = node("Gemm", inputs, "y", transB=trans_b, alpha=0.5, beta=2.0)
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", [gemm], ["N", 7], constants))
    assert op_names(model) == ["Dense"]


def test_bias_added_after_mat_mul_is_folded(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "t"), node("Add", "b t", "u"), node("Relu", "u", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, [1, 7], {"w": random_floats(7, 5), "b": random_floats(1, 5)})
    model = assert_runs_as_in_onnx_runtime(path)
    (layer,) = model.graph.layers
    assert isinstance(layer, Dense)
    assert (layer.activation, layer.output) == (ActivationFunction.RELU, "y")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 0, 2, 1]},
        {"strides": [2, 1], "pads": [1, 1, 1, 1]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
    ],
)
def test_convolution_becomes_channels_last(tmp_path: Path, attributes: dict[str, Any]) -> None:
    constants = {"w": random_floats(4, 3, 3, 2), "b": random_floats(4)}
    path = write_onnx(tmp_path / "m.onnx", [node("Conv", "x w b", "y", **attributes)], ["N", 3, 7, 6], constants)
    model = assert_runs_as_in_onnx_runtime(path)
    assert model.input_layout == "NCHW"
    assert model.graph.tensors["x"].shape == (7, 6, 3)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_and_depthwise_are_kept(tmp_path: Path, groups: int) -> None:
    constants = {"w": random_floats(8, 4 // groups, 3, 3)}
    path = write_onnx(tmp_path / "m.onnx", [node("Conv", "x w", "y", group=groups)], ["N", 4, 5, 5], constants)
    (layer,) = assert_runs_as_in_onnx_runtime(path).graph.layers
    assert isinstance(layer, Conv2d)
    assert layer.groups == groups


def test_zero_pad_before_a_convolution_is_merged(tmp_path: Path) -> None:
    nodes = [
        node("Pad", "x pads", "p", mode="constant"),
        node("Conv", "p w", "y", pads=[1, 0, 0, 0], strides=[2, 2]),
    ]
    constants = {"w": random_floats(4, 2, 3, 3), "pads": np.array([0, 0, 0, 1, 0, 0, 2, 1])}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 6, 6], constants))
    (op,) = model.graph.ops
    assert isinstance(op, Conv2d)
    assert op.padding == (1, 2, 1, 1)


def test_pad_of_opset_8_is_merged(tmp_path: Path) -> None:
    nodes = [node("Pad", "x", "p", pads=[0, 0, 1, 1, 0, 0, 1, 1]), node("Conv", "p w", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 6, 6], {"w": random_floats(4, 2, 3, 3)}, opset=8)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d"]


def test_batch_normalization_is_folded_into_the_convolution(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w b", "c"),
        node("Add", "c offset", "d"),
        node("BatchNormalization", "d scale shift mean variance", "n", epsilon=0.01),
        node("Relu", "n", "y"),
    ]
    constants = {"w": random_floats(4, 3, 3, 3), "b": random_floats(4), "offset": random_floats(4, 1, 1), **BATCH_NORM}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 6, 5], constants))
    assert op_names(model) == ["Conv2d"]
    assert "batch normalisations folded into the layer before them: 1" in model.notes


def test_batch_normalization_is_folded_into_the_dense_layer(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w b", "c"), node("BatchNormalization", "c scale shift mean variance", "y")]
    constants = {"w": random_floats(6, 4), "b": random_floats(4), **BATCH_NORM}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 6], constants, opset=9)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Dense"]


def test_batch_normalization_after_a_shared_convolution_stays_a_depthwise_one(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c scale shift mean variance", "n"),
        node("Add", "n c", "y"),
    ]
    constants = {"w": random_floats(4, 3, 3, 3), **BATCH_NORM}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 6, 5], constants))
    assert op_names(model) == ["Conv2d", "Conv2d", "Add"]
    assert "batch normalisations kept as depthwise 1x1 convolutions: 1" in model.notes


def test_batch_normalization_of_the_input_becomes_a_depthwise_convolution(tmp_path: Path) -> None:
    nodes = [node("BatchNormalization", "x scale shift mean variance", "n"), node("Conv", "n w", "y")]
    constants = {"w": random_floats(2, 4, 3, 3), **BATCH_NORM}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 4, 6, 5], constants))
    assert op_names(model) == ["Conv2d", "Conv2d"]


def test_layers_carry_the_names_that_pytorch_gave_their_weights(tmp_path: Path) -> None:
    gemm = node("Gemm", "x net.fc1.weight", "y", name="/net/fc1/Gemm", transB=1)
    path = write_onnx(tmp_path / "m.onnx", [gemm], ["N", 3], {"net.fc1.weight": random_floats(2, 3)})
    assert assert_runs_as_in_onnx_runtime(path).graph.layers[0].name == "net.fc1"


def test_one_weight_used_by_two_layers_becomes_two(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x fc.weight", "t"), node("Relu", "t", "u"), node("MatMul", "u fc.weight", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3], {"fc.weight": random_floats(3, 3)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert [layer.name for layer in model.graph.layers] == ["fc", "fc_2"]


def test_bias_of_a_matrix_product_that_is_read_twice_becomes_a_depthwise_convolution(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "t"), node("Add", "t b", "u"), node("Add", "u t", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3], {"w": random_floats(3, 3), "b": random_floats(3)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Dense", "Reshape", "Conv2d", "Reshape", "Add"]
    assert "constant operands kept as depthwise 1x1 convolutions: 1" in model.notes


def test_bias_that_differs_from_pixel_to_pixel_becomes_a_convolution_of_as_many_channels(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "t"), node("Add", "t b", "y")]
    constants = {"w": random_floats(4, 3, 1, 1), "b": random_floats(4, 5, 5)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 5], constants))
    last = model.graph.layers[-1]
    assert isinstance(last, Conv2d)
    assert last.groups == 100


def test_batch_normalization_of_features_becomes_a_depthwise_convolution(tmp_path: Path) -> None:
    nodes = [node("BatchNormalization", "x scale shift mean variance", "n"), node("Relu", "n", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 4], BATCH_NORM))
    assert op_names(model) == ["Conv2d", "Reshape"]


@pytest.mark.parametrize("shape", [[6, 4], [5, 6, 4], [2, 3, 2, 4]])
def test_a_matrix_on_the_features_of_every_step_is_a_convolution(tmp_path: Path, shape: list[int]) -> None:
    nodes = [
        node("MatMul", "x w", "t"),
        node("Add", "t b", "u"),
        node("Relu", "u", "v"),
        node("Flatten", "v", "r"),
        node("MatMul", "r m", "y"),
    ]
    n_values = int(np.prod(shape[:-1])) * 3
    constants = {"w": random_floats(4, 3), "b": random_floats(3), "m": random_floats(n_values, 2)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", *shape], constants))
    assert [name for name in op_names(model) if name != "Reshape"] == ["Conv2d", "Dense"]
    assert "transposes left: 0" in model.notes


def test_a_matrix_on_the_rows_of_an_image(tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "c"), node("MatMul", "c w", "t"), node("Conv", "t l", "y")]
    constants = {"k": random_floats(4, 3, 2, 2), "w": random_floats(5, 7), "l": random_floats(2, 4, 3, 3)}
    assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 6, 6], constants))


@pytest.mark.parametrize(
    ("nodes", "constants", "shape", "reason"),
    [
        ([node("Conv", "x w", "y")], {"w": random_floats(2, 3, 2, 2, 2)}, ["N", 3, 4, 4, 4], "two dimensions"),
        ([node("MatMul", "x x", "y")], {}, ["N", 3], "second factor is computed by the network"),
        ([node("Gemm", "x w", "y", transA=1)], {"w": random_floats(1, 3)}, ["N", 3], "transA"),
        (
            [node("MatMul", "x w", "y")],
            {"w": random_floats(4, 2)},
            ["N", 3, 5],
            r"takes 4 .* input \(3, 5\) has 5",
        ),
    ],
)
def test_forms_that_cannot_be_carried_over_are_refused(
    tmp_path: Path, nodes: list[Any], constants: dict[str, Any], shape: list[int | str], reason: str
) -> None:
    path = write_onnx(tmp_path / "m.onnx", nodes, shape, constants)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


def test_weights_that_do_not_fit_their_input_are_a_fault_of_the_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("Conv", "x w", "y")], ["N", 3, 5, 5], {"w": random_floats(2, 4, 3, 3)})
    with pytest.raises(ModelFileError, match=r"node 'Conv_y' does not fit: .*3 channels"):
        assert_runs_as_in_onnx_runtime(path)


def test_weights_that_overflow_are_a_fault_of_the_file(tmp_path: Path) -> None:
    gemm = node("Gemm", "x w", "y", alpha=3e38)
    path = write_onnx(tmp_path / "m.onnx", [gemm], ["N", 1], {"w": np.float32([[5.0]])})
    with pytest.raises(ModelFileError, match="holds NaN or infinity"):
        assert_runs_as_in_onnx_runtime(path)


def test_weights_that_are_not_finite_are_a_fault_of_the_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("MatMul", "x w", "y")], ["N", 1], {"w": np.float32([[np.nan]])})
    with pytest.raises(ModelFileError, match=r"m\.onnx: constant 'MatMul_y\.weight' holds NaN"):
        assert_runs_as_in_onnx_runtime(path)
