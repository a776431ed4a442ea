"""The conformance benchmark: what it compares, and that it would see a difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import conformance
from benchmarks.conformance import Comparison, Loss, compare, figures, main
from benchmarks.conformance_subjects import ENTRIES, Entry, Subject, load_subject
from nettrim.importers import load_model
from nettrim_exporters.tflite import render_tflite
from tests.graphs import quantized, random_cnn, random_mlp
from tests.shared_data import shared_data

COMPARISON = Comparison(
    *("a", 10, 1e-6, "nettrim's", 100, 0, 0, 1, 0, 10),
    *(None, None, None, None, None, None, None, 0.1, 0.1, 0.3),
)


def subject_of(path: Path) -> Subject:
    model = load_model(path)
    x = np.random.default_rng(1).normal(size=(90, *model.source_shape)).astype(np.float32)
    return Subject("net", path, path, model, x[:30], np.zeros(30, np.int64), x[30:], 30)


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
    found = figures([COMPARISON, worse])
    values = {name: figure.value for name, figure in found.items()}
    assert values["largest_float_error"] == 1e-4
    assert (values["differing_outputs"], values["models_converted"], values["models_total"]) == (3, 2, len(ENTRIES))
    assert values["kws_int8_accuracy"] == 90
    assert values["ic_int8_accuracy"] is None


def test_what_a_network_loses_is_judged_on_pairs() -> None:
    labels = np.zeros(100, np.int64)
    before, after = np.tile([1.0, 0.0], (100, 1)), np.tile([1.0, 0.0], (100, 1))
    after[:4], before[4:5] = [0.0, 1.0], [0.0, 1.0]  # four wrong now, one right now
    found = Loss.of(before, after, labels)
    assert found.points == pytest.approx(3.0)
    assert found.standard_errors == pytest.approx(3 / np.sqrt(5 - 9 / 100), rel=1e-6)  # McNemar's, of 5 changes
    assert Loss.of(before, before, labels) == Loss(0.0, 0.0)


def test_samples_that_are_calibrated_on_are_not_tested() -> None:
    (entry,) = [entry for entry in ENTRIES if entry.file == "arm_DNN_S.onnx"]
    subject = load_subject(entry, shared_data("MANIFEST.md").parent, None)
    assert subject.n_tested + len(subject.calibration) == len(subject.x) == 300
    np.testing.assert_array_equal(subject.calibration, subject.x[subject.n_tested :])


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "lenet5" in entry.file or "hello" in entry.file])
def test_subjects_come_in_the_shape_that_their_file_takes(entry: Entry) -> None:
    subject = load_subject(entry, shared_data("MANIFEST.md").parent, 5)
    assert subject.x.shape == (5, *subject.model.source_shape)
    assert subject.as_inputs(subject.x).dtype == subject.calibration.dtype == np.float32


def test_without_data_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["conformance"])
    assert main() == 6
    assert "give --data DIR" in capsys.readouterr().err
