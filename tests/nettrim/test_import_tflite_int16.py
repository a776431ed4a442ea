"""int16 activations in .tflite files: kept with every bit where nettrim computes as LiteRT, else read as values."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.importers import ImportedModel, load_model
from nettrim.importers.tflite_import import import_tflite
from nettrim_runtime.engine import run_graph
from tests.nettrim.tflite_models import NONE, FileWriter, run_litert, write_file

Array = npt.NDArray[Any]

SHAPE = (1, 4, 5, 6)
N_SAMPLES = 50
seeds = st.integers(0, 2**32 - 1)
REFUSED = "the file's integers cannot be kept as they are"


def note(model: ImportedModel) -> str:
    assert model.quantized is None
    return next(each for each in model.notes if each.startswith(REFUSED))


def assert_bits_of_litert(content: bytes) -> None:
    model = import_tflite(content, "file", "file")
    assert model.quantized is not None, model.notes
    samples = np.random.default_rng(0).integers(-128, 128, (N_SAMPLES, *SHAPE[1:]), dtype=np.int8)
    np.testing.assert_array_equal(run_graph(model.quantized, samples), run_litert(content, samples))


class Int16File:
    """A file from int8 (or int16) through int16 to int8, whose scales are any or powers of two."""

    def __init__(self, rng: np.random.Generator, *, exact: bool, entry: str = "int8") -> None:
        self.rng, self.exact = rng, exact
        self.file = FileWriter()
        is_wide = entry == "int16"
        self.entry = self.file.activation(SHAPE, entry, scale=0.0003 if is_wide else 0.02, zero=0 if is_wide else 3)
        self.last = self.entry if is_wide else self.quantize(self.entry)

    def scale(self, *limits: float) -> float:
        power = float(self.rng.uniform(*limits))
        return 2.0 ** (np.floor(power) if self.exact else power)

    def quantize(self, source: int) -> int:
        return self.file.add("QUANTIZE", (source,), self.wide(self.scale(-14, -12)), published.QuantizeOptionsT)

    def wide(self, scale: float, channels: int = SHAPE[3]) -> int:
        return self.file.activation((*SHAPE[:3], channels), "int16", scale=scale)

    def scale_of(self, tensor: int) -> float:
        return float(self.file.tensors[tensor].quantization.scale[0])

    def convolve(self, *, per_channel: bool, bias_dtype: type[np.integer[Any]] = np.int64) -> None:
        weight = self.rng.integers(-127, 128, (SHAPE[3], 1, 1, SHAPE[3]), dtype=np.int8)
        scales = self.rng.uniform(0.001, 0.01, SHAPE[3] if per_channel else 1).astype(np.float32)
        bias = self.rng.integers(-(10**5), 10**5, SHAPE[3]).astype(bias_dtype)
        constants = (
            self.file.constant(weight, scale=scales),
            self.file.constant(bias, scale=np.float32(self.scale_of(self.last)) * scales),
        )
        options = {"strideW": 1, "strideH": 1, "padding": published.Padding.VALID, "fusedActivationFunction": NONE}
        if bias_dtype is np.int32:
            options["quantizedBiasType"] = published.TensorType.INT32
        inputs = (self.last, *constants)
        self.last = self.file.add(
            "CONV_2D", inputs, self.wide(self.scale(-13, -11)), published.Conv2DOptionsT, **options
        )

    def function(self, code: str, options: Any = None, scale: float = 2.0**-15, **values: Any) -> None:
        self.last = self.file.add(code, (self.last,), self.wide(scale), options, **values)

    def pair(self, code: str, options: Any, scale: float, **values: Any) -> None:
        other = self.quantize(self.entry)
        self.last = self.file.add(code, (self.last, other), self.wide(scale), options, **values)

    def content(self) -> bytes:
        result = self.file.activation(SHAPE, "int8", scale=2.0**8 * self.scale_of(self.last), zero=-5)
        self.file.add("QUANTIZE", (self.last,), result, published.QuantizeOptionsT)
        return self.file.content((self.entry,), (result,))


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans(), st.booleans())
def test_convolutions_of_any_scales_keep_every_bit(seed: int, exact: bool, per_channel: bool) -> None:
    net = Int16File(np.random.default_rng(seed), exact=exact)
    net.convolve(per_channel=per_channel)
    net.convolve(per_channel=not per_channel)
    assert_bits_of_litert(net.content())


@settings(max_examples=40, deadline=None)
@given(
    seeds, st.booleans(), st.sampled_from(["LOGISTIC", "TANH", "LEAKY_RELU", "PRELU", "SOFTMAX", "SUB", "MUL", "ADD"])
)
def test_functions_and_pairs_of_any_scales_keep_every_bit(seed: int, exact: bool, code: str) -> None:
    net = Int16File(np.random.default_rng(seed), exact=exact)
    net.convolve(per_channel=True)
    if code == "LEAKY_RELU":
        net.function(code, published.LeakyReluOptionsT, net.scale(-14, -11), alpha=0.3)
    elif code == "PRELU":
        slopes = net.file.constant(net.rng.integers(-127, 128, (1, 1, SHAPE[3]), dtype=np.int8), scale=0.007)
        net.last = net.file.add(code, (net.last, slopes), net.wide(net.scale(-14, -11)))
    elif code == "SOFTMAX":
        net.function(code, published.SoftmaxOptionsT, beta=1.0)
    elif code == "MUL":
        net.pair(code, published.MulOptionsT, net.scale(-13, -11))
    elif code in {"ADD", "SUB"}:
        options = {"ADD": published.AddOptionsT, "SUB": published.SubOptionsT}[code]
        net.pair(code, options, net.scale(-13, -11), potScaleInt16=False)
    else:
        net.function(code)
    net.convolve(per_channel=False)
    assert_bits_of_litert(net.content())


@settings(max_examples=30, deadline=None)
@given(seeds, st.booleans(), st.sampled_from(["QUANTIZE", "RELU", "RELU6"]))
def test_int16_of_one_scale_as_int16_of_another_keeps_every_bit(seed: int, exact: bool, code: str) -> None:
    net = Int16File(np.random.default_rng(seed), exact=exact)
    net.convolve(per_channel=True)
    options = published.QuantizeOptionsT if code == "QUANTIZE" else None
    net.function(code, options, net.scale(-17, -8))
    net.convolve(per_channel=False)
    assert_bits_of_litert(net.content())


def test_int16_that_would_be_shifted_beyond_32_bits_is_read_as_values() -> None:
    net = Int16File(np.random.default_rng(0), exact=True)
    net.function("QUANTIZE", published.QuantizeOptionsT, net.scale_of(net.last) * 2.0**-15)
    assert "QUANTIZE 't2' rescales INT16 by 3.28e+04" in note(import_tflite(net.content(), "file", "file"))


def shifted(*, pot_scale: bool) -> Int16File:
    net = Int16File(np.random.default_rng(0), exact=True)
    first, second = net.wide(2.0**-12), net.wide(2.0**-14)
    for tensor in (first, second):
        net.file.add("QUANTIZE", (net.entry,), tensor, published.QuantizeOptionsT)
    output = net.wide(2.0**-12)
    net.last = net.file.add("SUB", (first, second), output, published.SubOptionsT, potScaleInt16=pot_scale)
    return net


def test_sums_of_powers_of_two_that_are_shifted_are_read_as_values() -> None:
    outputs = []
    for pot_scale in (False, True):
        net = shifted(pot_scale=pot_scale)
        wide = net.file.content((net.entry,), (net.last,))
        samples = np.random.default_rng(0).integers(-128, 128, (N_SAMPLES, *SHAPE[1:]), dtype=np.int8)
        outputs.append(run_litert(wide, samples))
    assert np.any(outputs[0] != outputs[1])
    assert_bits_of_litert(shifted(pot_scale=False).content())
    assert "shifts int16 (pot_scale_int16)" in note(import_tflite(shifted(pot_scale=True).content(), "file", "file"))


def test_an_int32_bias_beside_int16_is_read_as_values() -> None:
    net = Int16File(np.random.default_rng(0), exact=False)
    net.convolve(per_channel=False, bias_dtype=np.int32)
    model = import_tflite(net.content(), "file", "file")
    assert "adds an int32 bias to int16, expected int64" in note(model)


@pytest.mark.parametrize(("entry", "kinds"), [("int8", "INT16, INT8"), ("int16", "INT16")])
def test_a_file_of_int16_ends_is_read_as_values(tmp_path: Path, entry: str, kinds: str) -> None:
    net = Int16File(np.random.default_rng(0), exact=False, entry=entry)
    net.convolve(per_channel=True)
    content = net.file.content((net.entry,), (net.last,))
    model = load_model(write_file(tmp_path, content))
    assert f"its input and output are {kinds}, expected INT8" in note(model)
    given = np.random.default_rng(1).integers(-100, 100, (N_SAMPLES, *SHAPE[1:])).astype(entry)
    zero_point = net.file.tensors[net.entry].quantization.zeroPoint[0]
    values = ((given - zero_point) * net.scale_of(net.entry)).astype(np.float32)
    found = np.clip(run_graph(model.graph, values) / net.scale_of(net.last), -32768, 32767)
    np.testing.assert_allclose(found, run_litert(content, given), atol=3)
