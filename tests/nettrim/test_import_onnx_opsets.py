"""One network in every opset from the oldest that is read to the newest, in the words of each."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nettrim.importers.onnx_file import OLDEST_OPSET
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

NEWEST_OPSET = 28  # of the pinned onnx and ONNX Runtime


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def pad(opset: int) -> onnx.NodeProto:
    sizes = [0, 0, 1, 0, 0, 0, 0, 1]
    return node("Pad", "r", "p", pads=sizes) if opset < 11 else node("Pad", "r pads", "p")


def stride(opset: int) -> onnx.NodeProto:
    """Every second row and column; before opset 10 a Slice has no steps, so it takes everything."""
    if opset < 10:
        return node("Slice", "c", "s", axes=[2, 3], starts=[0, 0], ends=[1 << 31, 1 << 31])
    return node("Slice", "c starts ends axes steps", "s")


def clip(opset: int) -> onnx.NodeProto:
    return node("Clip", "b", "r", min=0.0, max=6.0) if opset < 11 else node("Clip", "b zero six", "r")


def mean(opset: int) -> onnx.NodeProto:
    return node("ReduceMean", "t", "m", axes=[1, 2]) if opset < 18 else node("ReduceMean", "t mean_axes", "m")


def squeeze(opset: int) -> onnx.NodeProto:
    return node("Squeeze", "m", "q", axes=[1, 2]) if opset < 13 else node("Squeeze", "m mean_axes", "q")


@pytest.mark.parametrize("lists_constants_as_inputs", [False, True])
@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_network_of_every_opset_runs_as_in_onnx_runtime(
    tmp_path: Path, opset: int, lists_constants_as_inputs: bool
) -> None:
    nodes = [
        constant("shape", integers(0, -1)),
        node("Conv", "x w1 b1", "c", auto_pad="SAME_UPPER", strides=[1, 1], kernel_shape=[3, 3]),
        stride(opset),
        node("BatchNormalization", "s gamma beta running_mean running_var", "b"),
        clip(opset),
        pad(opset),
        node("Conv", "p w2", "d"),
        node("Transpose", "d", "t", perm=[0, 2, 3, 1]),
        mean(opset),
        squeeze(opset),
        node("Dropout", "q", "o"),
        node("Reshape", "o shape", "f"),
        node("MatMul", "f w3", "n"),
        node("Add", "n b3", "a"),
        node("Softmax", "a", "y", axis=1),
    ]
    shapes = {"w1": (4, 2, 3, 3), "w2": (5, 4, 2, 2), "w3": (5, 3), "b3": (3,)}
    shapes |= dict.fromkeys(("b1", "gamma", "beta", "running_mean", "running_var"), (4,))
    constants = {name: random_floats(*shape) ** (2 if name == "running_var" else 1) for name, shape in shapes.items()}
    if opset >= 11:
        constants |= {"zero": np.float32(0), "six": np.float32(6), "pads": integers(0, 0, 1, 0, 0, 0, 0, 1)}
    if opset >= 13:
        constants["mean_axes"] = integers(1, 2)
    if opset >= 10:
        bounds = {"starts": (0, 0), "ends": (1 << 31, 1 << 31), "axes": (2, 3), "steps": (2, 2)}
        constants |= {name: integers(*values) for name, values in bounds.items()}
    options = {"lists_constants_as_inputs": lists_constants_as_inputs}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 2, 6, 8], constants, opset, **options)
    model = assert_runs_as_in_onnx_runtime(path)
    assert op_names(model)[-2:] == ["Dense", "Softmax"]
    assert "transposes left: 0" in model.notes
