"""The README's table of operators names everything that the importers read, and is what the code makes of it."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from nettrim.importers.keras_layers import CONVERTERS as KERAS
from nettrim.importers.onnx_import import CONVERTERS as ONNX
from nettrim.importers.tflite_import import CONVERTERS as TFLITE
from nettrim.operator_table import COMPOSED, SOURCES, WITHOUT_OPERATOR, main, render_operator_table, with_table
from nettrim_runtime.ops import OPERATORS

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(("kind", "converters"), [("onnx", ONNX), ("tflite", TFLITE), ("keras", KERAS)])
def test_every_name_that_an_importer_reads_has_its_place(kind: str, converters: Iterable[str]) -> None:
    named = {name for sources in (*SOURCES.values(), COMPOSED, WITHOUT_OPERATOR) for name in getattr(sources, kind)}
    assert named == set(converters)


def test_every_operator_has_a_row() -> None:
    assert set(SOURCES) == set(OPERATORS)
    table = render_operator_table()
    assert all(f"| {operator.__name__} |" in table for operator in OPERATORS)


def test_the_readme_holds_the_table_of_the_code() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run python -m nettrim.operator_table README.md"
    assert render_operator_table() in text


def test_the_command_writes_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- operators: begin -->\nold\n<!-- operators: end -->\nafter\n")
    assert main([str(path)]) == 0
    assert path.read_text() == with_table("before\n<!-- operators: begin --><!-- operators: end -->\nafter\n")
    assert "old" not in path.read_text()
