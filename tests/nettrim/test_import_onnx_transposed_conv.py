"""ONNX ConvTranspose, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride 2": {"strides": [2, 2]},
    "stride above the kernel": {"strides": [4, 5]},
    "pads": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "uneven pads": {"strides": [2, 3], "pads": [0, 2, 1, 0]},
    "output padding": {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    "dilation": {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 0, 2, 1]},
    "same upper": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "same lower": {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
    "valid": {"strides": [2, 2], "auto_pad": "VALID"},
    "output shape": {"strides": [2, 2], "output_shape": [9, 11]},
    "more pads than kernel": {"strides": [2, 1], "pads": [4, 3, 0, 0]},
}


@pytest.mark.parametrize("attributes", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("groups", [1, 3])
def test_a_transposed_convolution_is_a_convolution_and_moves(
    tmp_path: Path, attributes: dict[str, Any], groups: int
) -> None:
    transposed = node("ConvTranspose", "x w b", "y", group=groups, **attributes)
    constants = {"w": random_floats(3, 4 // groups, 3, 2), "b": random_floats(4 if groups == 1 else 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", [transposed], ["N", 3, 5, 6], constants))
    assert set(op_names(model)) <= {"Conv2d", "Reshape", "Transpose", "Slice"}
    assert len(model.graph.layers) == 1
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize("attributes", [{"strides": [2]}, {"strides": [3], "pads": [2, 1], "output_padding": [1]}])
def test_of_a_sequence_as_well(tmp_path: Path, attributes: dict[str, Any]) -> None:
    nodes = [node("Conv", "x v", "c"), node("ConvTranspose", "c w", "t", **attributes), node("Conv", "t u", "y")]
    constants = {"v": random_floats(3, 1, 1), "w": random_floats(3, 4, 5), "u": random_floats(2, 4, 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 1, 9], constants))
    assert "Transpose" not in op_names(model)[:-1]  # channels-first output


@pytest.mark.parametrize("groups", [1, 3])
def test_normalisation_bias_and_clamp_behind_it_are_folded_into_the_convolution(tmp_path: Path, groups: int) -> None:
    n_outputs = 4 if groups == 1 else 3
    nodes = [
        node("ConvTranspose", "x w", "t", strides=[2, 2], pads=[1, 1, 0, 1], group=groups),
        node("BatchNormalization", "t scale shift mean variance", "n"),
        node("Add", "n bias", "a"),
        node("Relu", "a", "y"),
    ]
    constants = {name: np.abs(random_floats(n_outputs)) for name in ("scale", "shift", "mean", "variance")}
    constants |= {"w": random_floats(3, n_outputs // groups, 3, 3), "bias": random_floats(n_outputs, 1, 1)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 6], constants))
    assert set(op_names(model)) == {"Conv2d", "Reshape", "Transpose", "Slice"}
    assert len(model.graph.layers) == 1


@pytest.mark.parametrize(
    ("attributes", "shape", "reason"),
    [
        ({"group": 2}, (4, 3, 2, 2), "2 groups of weights"),
        ({"pads": [9, 9, 9, 9]}, (4, 3, 2, 2), "expected a part of it"),
        ({"pads": [1, 1, 1]}, (4, 3, 2, 2), "pads has 3 entries"),
        ({"strides": [8000, 4096]}, (4, 3, 1, 1), "expected at most 16777216"),
        ({"dilations": [5000, 5000]}, (4, 3, 2, 2), "expected at most 16777216"),
        ({"output_padding": [1 << 20, 0], "strides": [1 << 10, 1]}, (4, 3, 2, 2), "expected a part of it"),
    ],
)
def test_other_forms_are_refused(tmp_path: Path, attributes: Any, shape: tuple[int, ...], reason: str) -> None:
    nodes = [node("ConvTranspose", "x w", "t", **attributes), node("GlobalAveragePool", "t", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 4, 5, 6], {"w": random_floats(*shape)})
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_bias_of_another_length_is_refused(tmp_path: Path, groups: int) -> None:
    constants = {"w": random_floats(4, 4 // groups, 2, 2), "b": random_floats(1)}
    nodes = [node("ConvTranspose", "x w b", "y", group=groups)]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 4, 5, 6], constants)
    with pytest.raises(UnsupportedOperatorError, match=r"a bias of shape \(1,\) for 4 outputs"):
        assert_runs_as_in_onnx_runtime(path)
