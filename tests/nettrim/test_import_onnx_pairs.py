"""ONNX Add, Sub, Mul and Div, against ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest

from nettrim.importers import load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

CONV = node("Conv", "x w", "c")
WEIGHT = {"w": random_floats(4, 3, 2, 2)}
IMAGE = ["N", 3, 6, 5]


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul"])
def test_two_images_are_combined(tmp_path: Path, op_type: str) -> None:
    nodes = [CONV, node("Conv", "x v", "d"), node(op_type, "c d", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, IMAGE, {**WEIGHT, "v": random_floats(4, 3, 2, 2)})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", "Conv2d", op_type]


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("inputs", ["c k", "k c"])
def test_a_constant_a_channel_is_folded_into_the_layer(
    tmp_path: Path, op_type: str, shape: tuple[int, ...], inputs: str
) -> None:
    path = write_onnx(
        tmp_path / "m.onnx", [CONV, node(op_type, inputs, "y")], IMAGE, {**WEIGHT, "k": random_floats(*shape)}
    )
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Conv2d"]
    assert "constant operands folded into the layer before them: 1" in model.notes


def test_a_negation_is_folded_into_the_layer(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [CONV, node("Neg", "c", "y")], IMAGE, WEIGHT)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d"]


@pytest.mark.parametrize(("op_type", "inputs"), [("Div", "r k"), ("Mul", "r k"), ("Sub", "k r"), ("Add", "r k")])
@pytest.mark.parametrize("shape", [(), (4, 1, 1)])
def test_elsewhere_a_constant_becomes_a_depthwise_convolution(
    tmp_path: Path, op_type: str, inputs: str, shape: tuple[int, ...]
) -> None:
    nodes = [CONV, node("Sigmoid", "c", "r"), node(op_type, inputs, "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, IMAGE, {**WEIGHT, "k": random_floats(*shape)})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", "UnaryFunction", "Conv2d"]


def test_the_mean_and_deviation_of_the_input_become_one_convolution(tmp_path: Path) -> None:
    nodes = [node("Sub", "x mean", "t"), node("Div", "t deviation", "u"), node("Conv", "u w", "y", pads=[1, 1, 1, 1])]
    constants = {**WEIGHT, "mean": random_floats(3, 1, 1), "deviation": np.abs(random_floats(3, 1, 1)) + 0.5}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, IMAGE, constants))
    assert op_names(model) == ["Conv2d", "Conv2d"]


def test_features_of_a_flattened_image_are_scaled_one_by_one(tmp_path: Path) -> None:
    nodes = [CONV, node("Relu", "c", "r"), node("Flatten", "r", "f"), node("Mul", "f k", "m"), node("Gemm", "m v", "y")]
    constants = {**WEIGHT, "k": random_floats(80), "v": random_floats(80, 2)}
    assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, IMAGE, constants))


def test_a_one_and_a_zero_leave_nothing_behind(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("Mul", "r one", "t"), node("Sub", "t zero", "u"), node("Sigmoid", "u", "y")]
    constants = {"one": np.float32(1), "zero": np.float32([0])}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 4], constants))
    assert op_names(model) == ["Activation", "UnaryFunction"]


@pytest.mark.parametrize("reduction", ["GlobalAveragePool", "ReduceMean"])
def test_squeeze_and_excitation_multiplies_channels(tmp_path: Path, reduction: str) -> None:
    attributes = {} if reduction == "GlobalAveragePool" else {"axes": [2, 3], "keepdims": 1}
    nodes = [
        CONV,
        node(reduction, "c", "p", **attributes),
        node("Conv", "p v", "s"),
        node("Sigmoid", "s", "g"),
        node("Mul", "g c", "y"),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, IMAGE, {**WEIGHT, "v": random_floats(4, 4, 1, 1)})
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Conv2d", "AveragePool2d", "Conv2d", "UnaryFunction", "Mul"]


def test_a_gate_from_a_dense_layer_multiplies_channels(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "s"),
        node("Sigmoid", "s", "g"),
        node("Reshape", "g shape", "h"),
        node("Mul", "c h", "y"),
    ]
    constants = {**WEIGHT, "v": random_floats(4, 4), "shape": np.array([-1, 4, 1, 1])}
    assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, IMAGE, constants))


def test_one_map_gates_all_channels(tmp_path: Path) -> None:
    nodes = [CONV, node("Conv", "c v", "s"), node("Sigmoid", "s", "g"), node("Mul", "c g", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, IMAGE, {**WEIGHT, "v": random_floats(1, 4, 1, 1)})
    assert_runs_as_in_onnx_runtime(path)


def test_swish_is_a_product_with_a_sigmoid(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [CONV, node("Sigmoid", "c", "s"), node("Mul", "c s", "y")], IMAGE, WEIGHT)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", "UnaryFunction", "Mul"]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Relu", "c", "r"), node("Div", "c r", "y")], "a division by what the network computes"),
        ([node("Div", "one c", "y")], "a division by zero or by what the network computes"),
        ([node("Div", "c zero", "y")], "a division by zero"),
        (
            [node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "f"), node("Mul", "c f", "y")],
            r"\(4, 5, 4\) and \(4,\), expected equally many axes",
        ),
        ([node("Mul", "c wide", "y")], r"a constant of shape \(2, 4, 5, 4\)"),
    ],
)
def test_pairs_without_an_operator_are_refused(tmp_path: Path, nodes: list[object], reason: str) -> None:
    constants = {**WEIGHT, "one": np.float32(1), "zero": np.float32(0), "wide": random_floats(2, 4, 5, 4)}
    path = write_onnx(tmp_path / "m.onnx", [CONV, *nodes], IMAGE, constants)  # type: ignore[list-item]
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


def test_a_power_of_two_is_a_product(tmp_path: Path) -> None:
    constants = {"w": random_floats(4, 3, 2, 2), "two": np.float32(2)}
    nodes = [node("Conv", "x w", "c"), node("Pow", "c two", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 6], constants))
    assert op_names(model) == ["Conv2d", "Mul"]


def test_another_power_is_refused(tmp_path: Path) -> None:
    constants = {"three": np.float32(3)}
    path = write_onnx(tmp_path / "m.onnx", [node("Pow", "x three", "y")], ["N", 6], constants)
    with pytest.raises(UnsupportedOperatorError, match=r"Pow .*a power of \[3.0\], expected 2"):
        load_model(path)
