"""ONNX functions of one value, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Function, UnaryFunction
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx


@pytest.mark.parametrize(
    ("op_type", "attributes", "function", "alpha"),
    [
        ("Sigmoid", {}, Function.SIGMOID, 0.0),
        ("Tanh", {}, Function.TANH, 0.0),
        ("HardSwish", {}, Function.HARD_SWISH, 0.0),
        ("LeakyRelu", {}, Function.LEAKY_RELU, 0.01),
        ("LeakyRelu", {"alpha": 0.25}, Function.LEAKY_RELU, 0.25),
        ("Gelu", {}, Function.GELU, 0.0),
        ("Gelu", {"approximate": "tanh"}, Function.GELU_TANH, 0.0),
    ],
)
def test_a_function_stays_one_operator(
    tmp_path: Path, op_type: str, attributes: dict[str, Any], function: Function, alpha: float
) -> None:
    nodes = [node("Conv", "x w", "c"), node(op_type, "c", "y", **attributes)]
    constants = {"w": random_floats(4, 3, 2, 2)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 6], constants, opset=20)
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Conv2d", "UnaryFunction"]
    op = model.graph.ops[1]
    assert isinstance(op, UnaryFunction)
    assert (op.function, op.alpha) == (function, pytest.approx(alpha))


def test_a_leaky_relu_that_falls_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("LeakyRelu", "x", "y", alpha=-0.5)], ["N", 3], {})
    with pytest.raises(UnsupportedOperatorError, match=r"LeakyRelu \('LeakyRelu_y'\): alpha -0\.5, expected zero"):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize(
    ("shape", "constant"), [((3, 1, 1), random_floats(3, 1, 1)), ((1, 3, 1, 1), random_floats(1, 3, 1, 1))]
)
def test_slopes_a_channel_are_one_operator(tmp_path: Path, shape: tuple[int, ...], constant: Any) -> None:
    nodes = [node("Conv", "x w", "c"), node("PRelu", "c s", "y")]
    constants = {"w": random_floats(3, 3, 2, 2), "s": constant.reshape(shape)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 6], constants))
    assert op_names(model) == ["Conv2d", "PRelu"]


def test_one_slope_for_all_is_a_leaky_relu(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("PRelu", "x s", "y")], ["N", 5], {"s": np.float32([0.25])})
    (op,) = assert_runs_as_in_onnx_runtime(path).graph.ops
    assert isinstance(op, UnaryFunction)
    assert (op.function, op.alpha) == (Function.LEAKY_RELU, 0.25)


def test_slopes_that_differ_within_a_channel_are_refused(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("PRelu", "c s", "y")]
    constants = {"w": random_floats(3, 3, 2, 2), "s": random_floats(3, 4, 5)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 6], constants)
    with pytest.raises(UnsupportedOperatorError, match="that differ within a channel, expected one a channel"):
        assert_runs_as_in_onnx_runtime(path)
