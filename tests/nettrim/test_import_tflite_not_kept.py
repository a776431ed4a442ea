"""Integers of a .tflite file that are not kept: they become the values that they stand for, and a note says why."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.fixed_point import exact_multiplier
from tests.nettrim.test_import_tflite_int8 import int8
from tests.nettrim.tflite_models import FileWriter, write_file

TANH_BORDER_SCALE = float(np.arctanh(10.5 / 128) / 7)  # the seventh input becomes 10.5 steps of 1/128
SOFTMAX = {"options": published.SoftmaxOptionsT, "beta": 1.0}
LEAKY_RELU = {"options": published.LeakyReluOptionsT, "alpha": 0.1}


def reshaped_file() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 4, 3), **int8(0.05, 3)), file.activation((1, 12), **int8(0.05, 4))
    file.add("RESHAPE", (entry, file.constant(np.array([1, 12], np.int32))), output)
    return file.content((entry,), (output,))


def same_reshaped_file() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 12), **int8(0.05, 3)), file.activation((1, 12), **int8(0.05, 4))
    file.add("RESHAPE", (entry, file.constant(np.array([1, 12], np.int32))), output)
    last = file.activation((1, 12), **int8(0.05, 4))
    file.add("RELU", (output,), last)
    return file.content((entry,), (last,))


def asymmetric_weights() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 5), **int8(0.02, 4))
    weight = file.constant(np.ones((5, 8), np.int8), scale=0.01, zero=7)
    file.add("FULLY_CONNECTED", (entry, weight, -1), output, published.FullyConnectedOptionsT, version=4)
    return file.content((entry,), (output,))


def uint8_file() -> bytes:
    file = FileWriter()
    entry, output = (file.activation((1, 8), "uint8", scale=0.05, zero=131) for _ in range(2))
    file.add("RELU", (entry,), output)
    return file.content((entry,), (output,))


def other_sigmoid() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 8), **int8(1 / 128, -128))
    file.add("LOGISTIC", (entry,), output, version=2)
    return file.content((entry,), (output,))


def tanh_at_a_border() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(TANH_BORDER_SCALE)), file.activation((1, 8), **int8(1 / 128))
    file.add("TANH", (entry,), output, version=2)
    return file.content((entry,), (output,))


def constant_operand() -> bytes:
    file = FileWriter()
    entry, output = file.activation((1, 8), **int8(0.05, 3)), file.activation((1, 8), **int8(0.05, 3))
    constant = file.constant(np.array([5], np.int8), scale=0.05)
    file.add("ADD", (entry, constant), output, published.AddOptionsT, version=2)
    return file.content((entry,), (output,))


def floats_between() -> bytes:
    file = FileWriter()
    entry, start, end = file.activation((1, 8), **int8(0.031, 3)), file.activation((1, 8)), file.activation((1, 8))
    file.add("DEQUANTIZE", (entry,), start, version=2)
    file.add("LEAKY_RELU", (start,), end, published.LeakyReluOptionsT, alpha=0.3)
    output = file.add("QUANTIZE", (end,), file.activation((1, 8), **int8(0.02, -60)))
    return file.content((entry,), (output,))


def scaled_file(code: str, scale: float, output_quantization: tuple[float, int], **options: Any) -> bytes:
    file, n_inputs = FileWriter(), 2 if code in {"ADD", "MUL"} else 1
    entry, output = file.activation((1, 8), **int8(scale)), file.activation((1, 8), **int8(*output_quantization))
    file.add(code, (entry,) * n_inputs, output, version=2, **options)
    return file.content((entry,), (output,))


@pytest.mark.parametrize(
    ("code", "scale", "output", "options", "reason"),
    [
        ("SOFTMAX", 1e-9, (1 / 256, -128), SOFTMAX, r"scale 1e-09, expected more than 2\^-26"),
        ("LOG_SOFTMAX", 1e-9, (1 / 16, 127), {}, r"scale 1e-09, expected more than 2\^-26"),
        ("MUL", 1.0, (1e-12, 0), {"options": published.MulOptionsT}, r"factor of 1e\+12, expected less than 2\^30"),
        ("MUL", 1e30, (1.0, 0), {"options": published.MulOptionsT}, "overflow"),
        ("ADD", 1.0, (1e-38, 0), {"options": published.AddOptionsT}, r"expected less than 2\^30"),
        ("LEAKY_RELU", 1e15, (1e-3, 0), LEAKY_RELU, r"expected less than 2\^30"),
        ("HARD_SWISH", 1.0, (0.001, 0), {}, "expected 1/128 of it at least"),
        ("HARD_SWISH", 1e30, (1e30, 0), {}, r"expected less than 2\^15"),
        ("RSQRT", 1e-38, (1e-38, 0), {}, "division by zero"),
        ("RSQRT", 1e-20, (1e-20, 0), {}, r"expected less than 2\^50"),
        ("TANH", 1e30, (1 / 128, 0), {}, None),
    ],
)
def test_scales_beyond_the_integer_arithmetic_are_not_kept(
    tmp_path: Path, code: str, scale: float, output: tuple[float, int], options: dict[str, Any], reason: str | None
) -> None:
    model = load_model(write_file(tmp_path, scaled_file(code, scale, output, **options)))
    assert (model.quantized is None) == (reason is not None)
    assert reason is None or any("cannot be kept" in note and re.search(reason, note) for note in model.notes)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (floats_between, "LEAKY_RELU 't2' computes in floats"),
        (reshaped_file, "RESHAPE 't1' reads and writes different scales"),
        (same_reshaped_file, "RESHAPE 't1' reads and writes different scales"),
        (asymmetric_weights, "Dense .* is not int8 throughout"),
        (other_sigmoid, r"writes scale 0\.0078125, not 0\.00390625"),
        (tanh_at_a_border, "rounds at a border, where C libraries differ"),
        (constant_operand, "ADD 't1' has a constant operand"),
        (uint8_file, "Activation .* is not int8 throughout"),
    ],
)
def test_integers_that_cannot_be_kept_become_the_values_they_stand_for(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    model = load_model(write_file(tmp_path, make()))
    assert model.quantized is None
    (note,) = (note for note in model.notes if "cannot be kept" in note)
    assert re.search(reason, note)


def test_a_dense_layer_that_no_multiplier_rounds_like_is_not_kept(tmp_path: Path) -> None:
    rng, file = np.random.default_rng(7), FileWriter()
    entry_scale, output_scale = 0.05, 0.5
    weight = rng.integers(-127, 128, (1, 60_000)).astype(np.int8)
    limit = int(np.abs(weight.astype(int)).sum() * 255)
    scales = (np.float32(scale) for scale in rng.uniform(1e-5, 2e-5, 2000))
    products = (
        (scale, float(np.float32(entry_scale)) * float(scale) / float(np.float32(output_scale))) for scale in scales
    )
    scale = next(scale for scale, real in products if exact_multiplier(real, limit) is None)
    entry, output = file.activation((1, 60_000), **int8(entry_scale)), file.activation((1, 1), **int8(output_scale))
    places = (entry, file.constant(weight, scale=scale), -1)
    file.add("FULLY_CONNECTED", places, output, published.FullyConnectedOptionsT, version=4)
    model = load_model(write_file(tmp_path, file.content((entry,), (output,))))
    assert model.quantized is None
    assert any("no 31-bit multiplier rounds as" in note for note in model.notes)
