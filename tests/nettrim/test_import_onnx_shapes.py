"""ONNX shapes, layouts, constants and value-by-value nodes, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Activation, ActivationFunction, Transpose
from tests.nettrim.onnx_models import (
    Array,
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)

CONV = node("Conv", "x w", "c")
WEIGHTS = {"w": random_floats(4, 3, 2, 2), "m": random_floats(4 * 3 * 4, 5)}  # (4, 3, 4) after the convolution
INPUT = ["N", 3, 4, 5]


@pytest.mark.parametrize(
    "views",
    [
        [node("Flatten", "c", "f")],
        [node("Reshape", "c keep", "f")],
        [node("Relu", "c", "r"), node("Flatten", "r", "t"), node("Relu", "t", "f")],
        [node("Reshape", "c rows", "r"), node("Dropout", "r", "d"), node("Reshape", "d keep", "f")],
        [node("Transpose", "c", "r", perm=[0, 2, 3, 1]), node("Reshape", "r keep", "f")],
        [node("Transpose", "c", "r", perm=[0, 3, 1, 2]), node("Identity", "r", "i"), node("Flatten", "i", "f")],
        [node("Flatten", "c", "r"), node("Unsqueeze", "r one", "u"), node("Squeeze", "u one", "f")],
        [node("Flatten", "c", "r"), node("Add", "r r", "f")],
    ],
)
def test_no_transpose_survives_between_an_image_and_a_layer(tmp_path: Path, views: list[Any]) -> None:
    constants = {**WEIGHTS, "keep": np.array([0, -1]), "rows": np.array([-1, 12, 4]), "one": np.array([1])}
    nodes = [CONV, *views, node("MatMul", "f m", "y")]
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, INPUT, constants))
    assert set(op_names(model)) <= {"Conv2d", "Reshape", "Add", "Dense"}
    assert "transposes left: 0" in model.notes


def test_image_kept_channels_last_by_the_file_goes_in_as_it_is(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c"),
        node("Transpose", "c", "u", perm=[0, 2, 3, 1]),
        node("Reshape", "u keep", "f"),
        node("MatMul", "f m", "y"),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 4, 5, 3], {**WEIGHTS, "keep": np.array([-1, 48])})
    model = assert_runs_as_in_onnx_runtime(path)
    assert model.input_layout == "NHWC"
    assert op_names(model) == ["Conv2d", "Reshape", "Dense"]


def test_shape_computed_from_the_batch_is_a_constant(tmp_path: Path) -> None:
    nodes = [
        CONV,
        node("Shape", "c", "s"),
        node("Constant", "", "zero", value_ints=[0]),
        node("Gather", "s zero", "batch"),
        node("Concat", "batch rest", "target", axis=0),
        node("Reshape", "c target", "f"),
        node("MatMul", "f m", "y"),
    ]
    path = write_onnx(tmp_path / "m.onnx", nodes, INPUT, {**WEIGHTS, "rest": np.array([-1])})
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", "Reshape", "Dense"]


def test_weights_reshaped_and_transposed_in_the_file_are_constants(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", "w shape", "r"),
        node("Transpose", "r", "t", perm=[1, 0]),
        node("Cast", "half", "b", to=1),
        node("Gemm", "x t b", "y"),
    ]
    constants = {"w": random_floats(2, 3, 2), "shape": np.array([4, 3]), "half": np.arange(4, dtype=np.float16)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3], constants, opset=13)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == ["Dense"]


def test_constants_listed_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    path = write_onnx(
        tmp_path / "m.onnx",
        [node("MatMul", "x w", "y")],
        [1, 3],
        {"w": random_floats(3, 2)},
        8,
        lists_constants_as_inputs=True,
    )
    assert assert_runs_as_in_onnx_runtime(path).graph.inputs == ("x",)


@pytest.mark.parametrize(
    ("bounds", "function"),
    [
        ((0, 6), ActivationFunction.RELU6),
        ((-1, 1), ActivationFunction.RELU_N1_TO_1),
        ((0, np.finfo(np.float32).max), ActivationFunction.RELU),
        ((0, None), ActivationFunction.RELU),
    ],
)
@pytest.mark.parametrize("opset", [7, 13])
def test_clip_becomes_a_clamp(
    tmp_path: Path, bounds: tuple[float, float | None], function: ActivationFunction, opset: int
) -> None:
    named = {name: np.float32(bound) for name, bound in zip(("min", "max"), bounds, strict=True) if bound is not None}
    if opset < 11:
        clip, constants = node("Clip", "x", "y", **{name: float(bound) for name, bound in named.items()}), {}
    else:
        clip, constants = node("Clip", f"x {' '.join(named)}", "y"), dict(named)
    path = write_onnx(tmp_path / "m.onnx", [clip], ["N", 9], constants, opset)
    (op,) = assert_runs_as_in_onnx_runtime(path).graph.ops
    assert isinstance(op, Activation)
    assert op.activation is function


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("opset", "axis"), [(7, None), (12, 1), (13, None), (13, 1), (13, -1)])
def test_softmax_of_features_is_carried_over(tmp_path: Path, op_type: str, opset: int, axis: int | None) -> None:
    softmax = node(op_type, "x", "y", **({} if axis is None else {"axis": axis}))
    path = write_onnx(tmp_path / "m.onnx", [softmax], ["N", 6], {}, opset)
    assert op_names(assert_runs_as_in_onnx_runtime(path)) == [op_type]


def test_image_output_is_named_as_channels_last(tmp_path: Path) -> None:
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", [CONV], INPUT, WEIGHTS, output="c"))
    assert "output 'c' comes as (height, width, channels)" in model.notes


def test_nodes_that_no_output_needs_are_left_out(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "y"), node("Einsum", "x x", "z", equation="ij,ij->ij")]
    assert op_names(assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 6], {}))) == [
        "Activation"
    ]


SHUFFLE = [
    node("Reshape", "c groups", "g"),
    node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]),
    node("Reshape", "t image", "s"),
]


@pytest.mark.parametrize(
    ("nodes", "n_left"),
    [
        ([node("Flatten", "c", "y")], 1),
        ([node("Flatten", "c", "f"), node("Softmax", "f", "y")], 1),
        ([node("Transpose", "c", "t", perm=[0, 1, 3, 2]), node("Conv", "t v", "y")], 1),
        ([node("Transpose", "c", "t", perm=[0, 3, 1, 2]), node("MaxPool", "t", "y", kernel_shape=[2, 2])], 1),
        ([*SHUFFLE, node("Conv", "s u", "y", group=4)], 1),
        ([*SHUFFLE, node("Slice", "s two four channels", "p"), node("Conv", "p v", "y")], 1),
        (
            [
                *SHUFFLE,
                node("Conv", "s v", "a"),
                node("Add", "s c", "b"),
                node("Conv", "b v", "d"),
                node("Add", "a d", "y"),
            ],
            1,
        ),
    ],
)
def test_a_transpose_is_left_where_no_constant_can_take_it_in(tmp_path: Path, nodes: list[Any], n_left: int) -> None:
    constants: dict[str, Array] = {
        "w": WEIGHTS["w"],
        "v": random_floats(2, 2, 1, 1) if any("two" in part.input for part in nodes) else random_floats(2, 4, 1, 1),
        "u": random_floats(4, 1, 1, 1),
        "groups": np.array([0, 2, 2, 3, 4]),
        "image": np.array([0, 4, 3, 4]),
        "two": np.array([1]),
        "four": np.array([3]),
        "channels": np.array([1]),
    }
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", [CONV, *nodes], INPUT, constants))
    left = [op.name for op in model.graph.ops if isinstance(op, Transpose)]
    assert len(left) == n_left
    assert f"transposes left: {len(left)} ({', '.join(left)})" in model.notes


def test_shuffled_channels_permute_the_weights_of_the_next_convolution(tmp_path: Path) -> None:
    constants = {
        "w": WEIGHTS["w"],
        "v": random_floats(2, 4, 1, 1),
        "groups": np.array([0, 2, 2, 3, 4]),
        "image": np.array([0, 4, 3, 4]),
    }
    path = write_onnx(tmp_path / "m.onnx", [CONV, *SHUFFLE, node("Conv", "s v", "y")], INPUT, constants)
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model) == ["Conv2d", "Conv2d"]
    assert "transposes left: 0" in model.notes
    assert "channels in another order absorbed by permuting the next weights: 1" in model.notes


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Transpose", "c", "y", perm=[1, 0, 2, 3])], "batch axis to stay first"),
        ([node("Reshape", "c merged", "y")], "batch axis to stay first"),
        ([node("Flatten", "c", "y", axis=2)], "axis 2"),
        ([node("Squeeze", "c", "s"), node("Reshape", "s merged", "y")], "names no axes"),
        ([node("Unsqueeze", "c first", "y")], "after the batch axis|after the batch"),
        ([node("Clip", "c two two", "y")], r"bounds \(2\.0, 2\.0\)"),
        ([node("Clip", "c none two", "y")], r"bounds \[\(0,\), \(\)\], expected single numbers"),
        ([node("Softmax", "c", "y", axis=1)], "last axis of a flat input"),
        ([node("Softmax", "c", "y", axis=7)], "axis 7 of an input with 4 axes"),
        ([node("LayerNormalization", "c two", "y", axis=5)], "axis 5 of an input with 4 axes"),
        ([node("ReduceMean", "c", "y", axes=[-5])], "axis -5 of an input with 4 axes"),
        ([node("Squeeze", "c seven", "y")], "axis 7 of an input with 4 axes"),
        ([node("Unsqueeze", "c seven", "y")], "axis 7 of an input with 5 axes"),
        ([node("Dropout", "c - true", "y")], "training_mode"),
        ([node("Dropout", "c", "d mask"), node("Cast", "mask", "y", to=1)], "expected only the first"),
    ],
)
def test_orders_and_forms_that_would_need_new_operators_are_refused(
    tmp_path: Path, nodes: list[Any], reason: str
) -> None:
    constants: dict[str, Array] = {
        "w": WEIGHTS["w"],
        "v": random_floats(2, 4, 1, 1),
        "merged": np.array([-1]),
        "first": np.array([0]),
        "two": np.float32(2),
        "none": np.zeros(0, np.float32),
        "seven": np.array([7]),
        "true": np.array(True),
    }
    path = write_onnx(tmp_path / "m.onnx", [CONV, *nodes], INPUT, constants)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)
