"""Names, numbers and arrays as C text."""

import re

import numpy as np
import pytest

from nettrim_exporters.c_values import CArray, c_float, c_identifier


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("LeNet-300-100", "LeNet_300_100"),
        ("/fc1/Gemm", "fc1_Gemm"),
        ("__", "unnamed"),
        ("é模型", "unnamed"),
        ("x" * 99, "x" * 31),
    ],
)
def test_identifiers_hold_ascii_letters_digits_and_single_underscores(name: str, identifier: str) -> None:
    assert c_identifier(name) == identifier


@pytest.mark.parametrize("value", [0.0, 1.0, -128.0, 0.1, 1e-45, 3.4028235e38, 1 / 3])
def test_float_constants_read_back_as_the_same_bits(value: float) -> None:
    text = c_float(float(np.float32(value)))

    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?f", text)
    assert "." in text or "e" in text
    assert np.float32(text[:-1]) == np.float32(value)


def test_an_empty_array_is_one_zero() -> None:
    assert CArray("x", np.zeros(0, np.int8)).declaration == "NT_ALIGN16 static const int8_t x[1] = {\n    0,\n};"
