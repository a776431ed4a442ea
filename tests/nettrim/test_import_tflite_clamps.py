"""Bounds of .tflite files that TFLite has no clamp for: LiteRT on the same file gives the same results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert, random_floats
from tests.nettrim.tflite_models import NONE, RELU, FileWriter, write_file

SHAPE = (1, 4, 5, 3)


def bounded(file: FileWriter, source: int, *bounds: tuple[str, float], **kind: Any) -> int:
    """Append MINIMUM or MAXIMUM with a number each; return the last output."""
    options = published.MaximumMinimumOptionsT
    quantization = {"scale": kind["scale"], "zero": kind["zero"]} if kind else {}
    for code, bound in bounds:
        value = np.float32(bound) if not kind else np.int8(bound)
        number = file.constant(np.array(value), **quantization)
        source = file.add(code, (source, number), file.activation(SHAPE, **kind), options, version=2)
    return source


@pytest.mark.parametrize(
    ("bounds", "names"),
    [
        ((("MAXIMUM", 0.0),), ["Activation"]),
        ((("MAXIMUM", 0.0), ("MINIMUM", 6.0)), ["Activation"]),
        ((("MINIMUM", 6.0), ("MAXIMUM", 0.0)), ["Activation"]),
        ((("MAXIMUM", -1.0), ("MINIMUM", 1.0)), ["Activation"]),
        ((("MAXIMUM", -0.5), ("MINIMUM", 0.25)), ["Conv2d", "Conv2d"]),
        ((("MAXIMUM", 0.0), ("MAXIMUM", -1.0), ("MINIMUM", 1.0)), ["Conv2d", "Conv2d"]),
        ((("MINIMUM", 0.25),), ["Conv2d", "Conv2d"]),
        ((("MAXIMUM", -0.5),), ["Conv2d", "Conv2d"]),
    ],
)
def test_bounds_in_a_row_are_one_clamp(tmp_path: Path, bounds: tuple[tuple[str, float], ...], names: list[str]) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    path = write_file(tmp_path, file.content((entry,), (bounded(file, entry, *bounds),)))
    model = assert_runs_as_in_litert(path, spread=4)
    assert [type(op).__name__ for op in model.graph.ops if type(op).__name__ != "Reshape"] == names


@pytest.mark.parametrize(("activation", "names"), [(NONE, ["Conv2d"] * 3), (RELU, ["Conv2d"])])
def test_an_upper_bound_behind_a_layer_with_relu_is_fused_with_it(
    tmp_path: Path, activation: int, names: list[str]
) -> None:
    file = FileWriter()
    entry, convolved = file.activation((1, 4, 5, 2)), file.activation(SHAPE)
    options = {"strideW": 1, "strideH": 1, "padding": published.Padding.SAME, "fusedActivationFunction": activation}
    places = (entry, file.constant(5 * random_floats(3, 1, 1, 2)), file.constant(random_floats(3)))
    file.add("CONV_2D", places, convolved, published.Conv2DOptionsT, **options)
    output = bounded(file, convolved, ("MINIMUM", 6.0))
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.ops if type(op).__name__ != "Reshape"] == names


def test_a_clamp_from_zero_to_one(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation(SHAPE), file.activation(SHAPE)
    file.add("RELU_0_TO_1", (entry,), output)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_a_clamp_that_something_else_reads_stays(tmp_path: Path) -> None:
    file = FileWriter()
    entry, output = file.activation(SHAPE), file.activation(SHAPE)
    lower = bounded(file, entry, ("MAXIMUM", 0.0))
    upper = bounded(file, lower, ("MINIMUM", 0.5))
    file.add("ADD", (lower, upper), output, published.AddOptionsT)
    assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))


def test_bounds_on_integers_become_values(tmp_path: Path) -> None:
    file, kind = FileWriter(), {"dtype": "int8", "scale": 0.05, "zero": 3}
    entry = file.activation(SHAPE, **kind)
    output = bounded(file, entry, ("MAXIMUM", -17), ("MINIMUM", 23), **kind)
    model = load_model(write_file(tmp_path, file.content((entry,), (output,))))
    assert model.quantized is None
    assert any("MAXIMUM 't2' has bounds of its own" in note for note in model.notes)
    assert [type(op).__name__ for op in model.graph.ops if type(op).__name__ != "Reshape"] == ["Activation"]  # -1 to 1


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ((("MAXIMUM", 2.0), ("MINIMUM", 1.0)), r"MINIMUM .*it leaves 2.0 to 1.0, expected the smaller bound first"),
        ((("MAXIMUM", np.nan),), r"MAXIMUM .*expected one finite number"),
    ],
)
def test_bounds_that_leave_nothing_are_refused(tmp_path: Path, bounds: Any, reason: str) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    path = write_file(tmp_path, file.content((entry,), (bounded(file, entry, *bounds),)))
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load_model(path)


@pytest.mark.parametrize("second", ["activation", "channels"])
def test_bounds_that_are_no_number_are_refused(tmp_path: Path, second: str) -> None:
    file = FileWriter()
    entry, output = file.activation(SHAPE), file.activation(SHAPE)
    bound = entry if second == "activation" else file.constant(random_floats(3))
    file.add("MAXIMUM", (entry, bound), output, published.MaximumMinimumOptionsT)
    with pytest.raises(UnsupportedOperatorError, match=r"MAXIMUM .*expected (a constant|one finite number)"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))
