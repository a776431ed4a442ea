"""Parts of a quality run that are kept."""

from pathlib import Path

import pytest

from benchmarks.quality import Measured, keep_part
from benchmarks.quality_chart import render_accuracy
from benchmarks.results_file import Row


def test_a_part_is_measured_once_and_read_back_as_it_was(tmp_path: Path) -> None:
    calls = []

    def measure(seed: int) -> list[Measured]:
        calls.append(seed)
        return [Measured("net", "method", 0.9, seed, 98.5, 0.1)]

    first = keep_part(tmp_path / "parts", "net-3", measure, 3)
    second = keep_part(tmp_path / "parts", "net-3", measure, 3)
    assert calls == [3]
    assert first == second
    assert [Measured(**row) for row in second] == [Measured("net", "method", 0.9, 3, 98.5, 0.1)]


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert keep_part(None, "goal", dict) == {}
    assert not list(tmp_path.iterdir())


def test_the_chart_passes_over_rows_of_other_parts() -> None:
    compared: Row = {"network": "net", "method": "nettrim", "sparsity": 0.5, "accuracy": 90.0, "spread": 0.1}
    others: list[Row] = [
        {"part": "network of the papers", "sparsity": 0.95},
        {"part": "no goal given", "network": "net"},
    ]
    assert render_accuracy([compared, *others]) == render_accuracy([compared])
