"""The conformance benchmark: what it compares, and that it would see a difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import conformance
from benchmarks.conformance import Comparison, compare, figures, main
from benchmarks.conformance_subjects import ENTRIES, Entry, Subject, load_subject
from nettrim.importers import load_model
from nettrim_exporters.tflite import render_tflite
from tests.graphs import quantized, random_cnn, random_mlp
from tests.shared_data import shared_data

COMPARISON = Comparison("a", 10, 1e-6, "nettrim's", 100, 0, 0, 1, 0, None, None, None, 0.1)


def subject_of(path: Path) -> Subject:
    model = load_model(path)
    x = np.random.default_rng(1).normal(size=(30, *model.source_shape)).astype(np.float32)
    return Subject("net", path, path, model, x, np.zeros(30, np.int64))


@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_small_network_conforms(tmp_path: Path, is_quantized: bool) -> None:
    rng = np.random.default_rng(0)
    graph = quantized(random_cnn(rng), rng) if is_quantized else random_cnn(rng)
    (tmp_path / "net.tflite").write_bytes(render_tflite(graph))
    found = compare(subject_of(tmp_path / "net.tflite"))
    assert (found.differing_c, found.differing_litert, found.samples) == (0, 0, 30)
    assert found.integers == ("the file's" if is_quantized else "nettrim's")
    assert (found.float_error is None) == is_quantized
    assert found.accuracy_int8 is not None


def test_another_files_bits_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "net.tflite").write_bytes(render_tflite(random_mlp(rng)))
    subject, other = subject_of(tmp_path / "net.tflite"), render_tflite(quantized(random_mlp(rng), rng))
    whole = conformance.integer_network(subject)
    monkeypatch.setattr(conformance, "integer_network", lambda _: (whole[0], other))
    found = compare(subject)
    assert (found.differing_litert > 0, found.differing_c) == (True, 0)


def test_figures_add_up_and_take_the_largest_error() -> None:
    worse = replace(COMPARISON, model="mlperf_kws_int8.tflite", float_error=1e-4, differing_c=3, accuracy_int8=0.9)
    found = figures([COMPARISON, worse], 2)
    values = {name: figure.value for name, figure in found.items()}
    assert values["conformance_float_error"] == 1e-4
    assert (values["conformance_differing_c"], values["conformance_refused"]) == (3, 2)
    assert values["conformance_kws_int8_accuracy"] == 90
    assert values["conformance_ic_int8_accuracy"] is None


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "lenet5" in entry.file or "hello" in entry.file])
def test_subjects_come_in_the_shape_that_their_file_takes(entry: Entry) -> None:
    subject = load_subject(entry, shared_data("MANIFEST.md").parent, 5)
    assert subject.x.shape == (5, *subject.model.source_shape)
    assert subject.graph_inputs.dtype == np.float32


def test_without_data_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["conformance"])
    assert main() == 6
    assert "give --data DIR" in capsys.readouterr().err
