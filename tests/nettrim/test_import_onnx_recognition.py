"""Functions that files spell out, against ONNX Runtime: they become one operator, or a few."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import Function, UnaryFunction
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

CONSTANTS: dict[str, Any] = {
    "w": random_floats(4, 3, 2, 2),
    "root": np.float32(np.sqrt(2)),
    "inverse_root": np.float32(np.sqrt(0.5)),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "three": np.float32([3]),
    "six": np.float32(6),
    "zero": np.float32(0),
    "cube": np.float32(0.044715),
    "slope": np.float32(np.sqrt(2 / np.pi)),
}
SPELLED: dict[str, tuple[Function, list[onnx.NodeProto]]] = {
    "Gelu as PyTorch writes it": (
        Function.GELU,
        [
            node("Div", "c root", "a"),
            node("Erf", "a", "e"),
            node("Add", "e one", "f"),
            node("Mul", "c f", "g"),
            node("Mul", "g half", "y"),
        ],
    ),
    "Gelu with its factors first": (
        Function.GELU,
        [
            node("Mul", "c half", "h"),
            node("Mul", "inverse_root c", "a"),
            node("Erf", "a", "e"),
            node("Add", "one e", "f"),
            node("Mul", "h f", "y"),
        ],
    ),
    "Gelu by a tanh": (
        Function.GELU_TANH,
        [
            node("Pow", "c three", "a"),
            node("Mul", "a cube", "b"),
            node("Add", "c b", "d"),
            node("Mul", "d slope", "e"),
            node("Tanh", "e", "f"),
            node("Add", "f one", "g"),
            node("Mul", "c half", "h"),
            node("Mul", "h g", "y"),
        ],
    ),
    "Gelu by a tanh of products": (
        Function.GELU_TANH,
        [
            node("Mul", "c c", "p"),
            node("Mul", "p c", "a"),
            node("Mul", "cube a", "b"),
            node("Add", "c b", "d"),
            node("Mul", "d slope", "e"),
            node("Tanh", "e", "f"),
            node("Add", "f one", "g"),
            node("Mul", "c half", "h"),
            node("Mul", "h g", "y"),
        ],
    ),
    "HardSwish by a HardSigmoid": (
        Function.HARD_SWISH,
        [node("HardSigmoid", "c", "a", alpha=1 / 6, beta=0.5), node("Mul", "c a", "y")],
    ),
    "HardSwish by a Clip": (
        Function.HARD_SWISH,
        [
            node("Add", "c three", "a"),
            node("Clip", "a zero six", "b"),
            node("Div", "b six", "d"),
            node("Mul", "d c", "y"),
        ],
    ),
    "HardSwish by a Min and a Max": (
        Function.HARD_SWISH,
        [
            node("Add", "three c", "a"),
            node("Max", "a zero", "b"),
            node("Min", "b six", "d"),
            node("Mul", "c d", "e"),
            node("Div", "e six", "y"),
        ],
    ),
    "Sigmoid by an Exp": (
        Function.SIGMOID,
        [node("Neg", "c", "a"), node("Exp", "a", "b"), node("Add", "b one", "d"), node("Reciprocal", "d", "y")],
    ),
}


def write(tmp_path: Path, nodes: Sequence[onnx.NodeProto], opset: int = 17) -> Path:
    """Write a model of a Conv and these nodes, with the constants that they read."""
    every = [node("Conv", "x w", "c"), *nodes]
    read = {name for each in every for name in each.input}
    return write_onnx(
        tmp_path / "m.onnx",
        every,
        ["N", 3, 5, 6],
        {name: value for name, value in CONSTANTS.items() if name in read},
        opset,
    )


@pytest.mark.parametrize(("function", "nodes"), SPELLED.values(), ids=SPELLED)
def test_a_function_that_is_spelled_out_becomes_one_operator(
    tmp_path: Path, function: Function, nodes: list[onnx.NodeProto]
) -> None:
    model = assert_runs_as_in_onnx_runtime(write(tmp_path, nodes))
    assert op_names(model) == ["Conv2d", "UnaryFunction"]
    op = model.graph.ops[1]
    assert isinstance(op, UnaryFunction)
    assert op.function is function
    assert "functions recognised by their values: 1" in model.notes


def test_a_part_that_something_else_reads_stays(tmp_path: Path) -> None:
    _, nodes = SPELLED["HardSwish by a Clip"]
    model = assert_runs_as_in_onnx_runtime(
        write(tmp_path, [*nodes[:-1], node("Mul", "d c", "m"), node("Add", "m b", "y")])
    )
    assert sorted(op_names(model)) == ["Add", "Conv2d", "Conv2d", "UnaryFunction"]


def test_a_function_behind_another_is_recognised(tmp_path: Path) -> None:
    _, nodes = SPELLED["Gelu as PyTorch writes it"]
    behind = [node("Relu", "c", "r"), *(onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes)]
    for each in behind[1:]:
        each.input[:] = ["r" if name == "c" else name for name in each.input]
    assert op_names(assert_runs_as_in_onnx_runtime(write(tmp_path, behind))) == ["Conv2d", "UnaryFunction"]


@pytest.mark.parametrize("attributes", [{}, {"alpha": 0.3, "beta": 0.4}])
def test_a_hard_sigmoid_is_a_clamp_between_scalings(tmp_path: Path, attributes: dict[str, float]) -> None:
    model = assert_runs_as_in_onnx_runtime(write(tmp_path, [node("HardSigmoid", "c", "y", **attributes)]))
    assert op_names(model) == ["Conv2d", "Conv2d"]


@pytest.mark.parametrize("bounds", ["zero one", "half three", "- half", "half", "zero six"])
def test_any_bounds_can_be_clamped_to(tmp_path: Path, bounds: str) -> None:
    assert_runs_as_in_onnx_runtime(write(tmp_path, [node("Clip", f"c {bounds}", "y")]))


@pytest.mark.parametrize(
    ("op_type", "inputs"), [("Max", "c zero"), ("Max", "half c"), ("Min", "c six"), ("Min", "c three")]
)
def test_the_larger_or_smaller_of_a_number_is_a_clamp(tmp_path: Path, op_type: str, inputs: str) -> None:
    assert_runs_as_in_onnx_runtime(write(tmp_path, [node(op_type, inputs, "y")]))


@pytest.mark.parametrize("inputs", ["c c", "c six half"])
def test_the_larger_of_others_is_refused(tmp_path: Path, inputs: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"Max \('Max_y'\): .* expected one and one number"):
        assert_runs_as_in_onnx_runtime(write(tmp_path, [node("Max", inputs, "y")]))


def test_an_erf_that_is_no_gelu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"Erf \('Erf_e'\)"):
        assert_runs_as_in_onnx_runtime(write(tmp_path, [node("Erf", "c", "e"), node("Mul", "e c", "y")]))


def test_swish_is_a_product_with_a_sigmoid(tmp_path: Path) -> None:
    model = assert_runs_as_in_onnx_runtime(write(tmp_path, [node("Swish", "c", "y")], opset=24))
    assert op_names(model) == ["Conv2d", "UnaryFunction", "Mul"]
