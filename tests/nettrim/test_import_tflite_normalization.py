"""Layer normalisations that .tflite files spell out: LiteRT on the same file gives the same results."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.calibrate import quantize_on
from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert, random_floats
from tests.nettrim.tflite_models import RELU, FileWriter, write_file

CHAIN = ["Conv2d", "Sub", "Mul", "Conv2d", "UnaryFunction", "Mul", "Conv2d"]
SHAPE = (1, 4, 12)
FORMS = (
    *("torch", "keras", "squared difference", "square", "powers"),
    *("division", "no factors", "float16 factors", "a negative axis"),
)


@dataclass
class Speller:
    """Writes operators on tensors of (1, 4, 12), whose means are (1, 4, 1)."""

    file: FileWriter = field(default_factory=FileWriter)

    def add(self, code: str, *places: int, **options: Any) -> int:
        names = {"SQUARED_DIFFERENCE": "SquaredDifference", "SQUARE": "Square", "RSQRT": "", "SQRT": ""}
        name = names.get(code, code.capitalize())
        kind = getattr(published, f"{name}OptionsT") if name else None
        return self.file.add(code, places, self.file.activation(self._shape(places)), kind, **options)

    def mean(self, source: int, axis: int = 2, *, keeps_axes: bool = True) -> int:
        shape = (1, 4, 1) if keeps_axes else (1, 4)
        places = source, self.file.constant(np.array([axis], np.int32))
        return self.file.add(
            "MEAN", places, self.file.activation(shape), published.ReducerOptionsT, keepDims=keeps_axes
        )

    def number(self, value: float) -> int:
        return self.file.constant(np.array(value, np.float32))

    def factors(self, seed: int, dtype: str = "float32") -> int:
        constant = self.file.constant(random_floats(12, seed=seed).astype(dtype))
        if dtype == "float32":
            return constant
        return self.file.add("DEQUANTIZE", (constant,), self.file.activation((12,)), version=3)

    def variance(self, form: str, source: int, mean: int, centred: int) -> int:
        if form in {"squared difference", "keras"}:
            return self.mean(self.add("SQUARED_DIFFERENCE", source, mean))
        if form == "square":
            return self.mean(self.add("SQUARE", centred))
        if form == "powers":
            return self.mean(self.add("POW", centred, self.number(2)))
        return self.mean(self.add("MUL", centred, centred), -1 if form == "a negative axis" else 2)

    def normalize(self, form: str, source: int) -> int:
        """Return the end of a normalisation."""
        mean = self.mean(source, -1 if form == "a negative axis" else 2)
        centred = self.add("SUB", source, mean)
        shifted = self.add("ADD", self.variance(form, source, mean, centred), self.number(1e-3))
        if form == "division":
            normalized = self.add("DIV", centred, self.add("SQRT", shifted))
        elif form == "powers":
            normalized = self.add("MUL", self.add("POW", shifted, self.number(-0.5)), centred)
        elif form == "keras":
            scale = self.add("MUL", self.add("RSQRT", shifted), self.factors(1))
            offset = self.add("SUB", self.factors(2), self.add("MUL", mean, scale))
            return self.add("ADD", self.add("MUL", source, scale), offset)
        else:
            normalized = self.add("MUL", centred, self.add("RSQRT", shifted))
        dtype = "float16" if form == "float16 factors" else "float32"
        if form == "no factors":
            return normalized
        return self.add("ADD", self.add("MUL", normalized, self.factors(1, dtype)), self.factors(2, dtype))

    def _shape(self, places: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [tuple(self.file.tensors[place].shape) for place in places]
        return tuple(int(size) for size in np.broadcast_shapes(*shapes))


def without_reshapes(model: ImportedModel) -> list[str]:
    return [type(op).__name__ for op in model.graph.ops if type(op).__name__ != "Reshape"]


def normalizing_file(form: str) -> bytes:
    speller = Speller()
    entry = speller.file.activation(SHAPE)
    return speller.file.content((entry,), (speller.normalize(form, entry),))


@pytest.mark.parametrize("form", FORMS)
def test_a_normalisation_is_recognised_by_its_form(tmp_path: Path, form: str) -> None:
    model = assert_runs_as_in_litert(write_file(tmp_path, normalizing_file(form)))
    assert without_reshapes(model) == (CHAIN[:-1] if form == "no factors" else CHAIN)
    assert any("recognised by its form" in note for note in model.notes)


def test_what_else_reads_a_part_still_has_it(tmp_path: Path) -> None:
    speller = Speller()
    entry = speller.file.activation(SHAPE)
    normalized = speller.normalize("torch", entry)
    (mean,) = speller.file.operators[0].outputs
    output = speller.add("ADD", normalized, mean)
    assert_runs_as_in_litert(write_file(tmp_path, speller.file.content((entry,), (output,))))


def test_a_clamp_in_between_is_no_normalisation(tmp_path: Path) -> None:
    speller = Speller()
    entry = speller.file.activation(SHAPE)
    output = speller.normalize("torch", entry)
    speller.file.operators[1].builtinOptions.fusedActivationFunction = RELU
    model = assert_runs_as_in_litert(write_file(tmp_path, speller.file.content((entry,), (output,))))
    assert not any("recognised by its form" in note for note in model.notes)


def test_a_mean_over_another_axis_is_no_normalisation(tmp_path: Path) -> None:
    speller = Speller()
    entry = speller.file.activation(SHAPE)
    output = speller.normalize("division", entry)
    axis = speller.file.operators[3].inputs[1]
    speller.file.buffers[speller.file.tensors[axis].buffer].data = np.frombuffer(np.int32([1]).tobytes(), np.uint8)
    with pytest.raises(UnsupportedOperatorError, match=r"SQRT"):
        load_model(write_file(tmp_path, speller.file.content((entry,), (output,))))


def test_factors_of_shapes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    speller = Speller()
    entry = speller.file.activation(SHAPE)
    output = speller.normalize("torch", entry)
    offset = speller.file.operators[-1].inputs[1]
    speller.file.tensors[offset].shape = [4, 3]
    with pytest.raises(UnsupportedOperatorError, match=r"a scale of shape \(12,\) and an offset of shape \(4, 3\)"):
        load_model(write_file(tmp_path, speller.file.content((entry,), (output,))))


@pytest.mark.parametrize("form", ["torch", "keras"])
def test_int8_comes_near_the_floats(tmp_path: Path, form: str) -> None:
    graph = load_model(write_file(tmp_path, normalizing_file(form))).graph
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4, 12)) * rng.uniform(0.5, 2, (300, 4, 1)) + rng.normal(size=(300, 4, 1))
    samples = rows.astype(np.float32)
    quantized = quantize_on(graph, samples)
    entry, end = (quantized.quantization(name) for name in (graph.inputs[0], graph.outputs[0]))
    expected = run_graph(graph, samples)
    found = end.dequantize(run_graph(quantized, entry.quantize(samples)))
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
