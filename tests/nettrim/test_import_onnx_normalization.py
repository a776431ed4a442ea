"""ONNX LayerNormalization, against ONNX Runtime, and how near int8 comes to it."""

from pathlib import Path

import numpy as np
import pytest

from nettrim.calibrate import quantize_on
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

CHAIN = ["Conv2d", "Sub", "Mul", "Conv2d", "UnaryFunction", "Mul", "Conv2d"]


def without_reshapes(names: list[str]) -> list[str]:
    return [name for name in names if name != "Reshape"]


def test_features_are_normalised(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "t"), node("LayerNormalization", "t s b", "n"), node("MatMul", "n v", "y")]
    constants = {"w": random_floats(7, 12), "s": random_floats(12), "b": random_floats(12), "v": random_floats(12, 3)}
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 7], constants))
    assert without_reshapes(op_names(model)) == ["Dense", *CHAIN, "Dense"]


def test_channels_of_every_pixel_are_normalised_between_transposes(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t s b", "n", epsilon=1e-6),
        node("Transpose", "n", "u", perm=[0, 3, 1, 2]),
        node("Conv", "u v", "y"),
    ]
    constants = {
        "w": random_floats(6, 3, 2, 2),
        "s": random_floats(6),
        "b": random_floats(6),
        "v": random_floats(2, 6, 1, 1),
    }
    model = assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 4], constants))
    assert without_reshapes(op_names(model)) == ["Conv2d", *CHAIN, "Conv2d"]


def test_whole_images_are_normalised_with_a_factor_a_value(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("LayerNormalization", "c s b", "y", axis=1)]
    constants = {"w": random_floats(4, 3, 2, 2), "s": random_floats(4, 4, 3), "b": random_floats(4, 4, 3)}
    assert_runs_as_in_onnx_runtime(write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 4], constants))


def test_rows_that_do_not_lie_together_are_refused(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("LayerNormalization", "c s", "y")]
    constants = {"w": random_floats(4, 3, 2, 2), "s": random_floats(3)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 4], constants)
    with pytest.raises(UnsupportedOperatorError, match="expected values that lie side by side"):
        assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize("width", [32, 256])
def test_int8_errs_little_more_than_its_ends_do(tmp_path: Path, width: int) -> None:
    rng = np.random.default_rng(0)
    path = write_onnx(
        tmp_path / "m.onnx", [node("LayerNormalization", "x s", "y")], ["N", width], {"s": np.ones(width, np.float32)}
    )
    graph = assert_runs_as_in_onnx_runtime(path).graph
    rows = rng.normal(size=(600, width)) * rng.uniform(0.5, 2, (600, 1)) + rng.normal(size=(600, 1))
    samples = rows.astype(np.float32).reshape(600, *graph.tensors["x"].shape)
    quantized = quantize_on(graph, samples)
    entry, end = (quantized.quantization(name) for name in ("x", graph.outputs[0]))
    expected = run_graph(graph, samples)
    found = end.dequantize(run_graph(quantized, entry.quantize(samples)))
    ends_alone = end.dequantize(end.quantize(run_graph(graph, entry.dequantize(entry.quantize(samples)))))
    error, least = (np.linalg.norm(values - expected) / np.linalg.norm(expected) for values in (found, ends_alone))
    assert 0.01 < least < error < 1.6 * least < 0.06
