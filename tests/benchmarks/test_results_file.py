"""What every benchmark ends with."""

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.results_file import (
    Figure,
    Results,
    benchmark_parser,
    render_results,
    render_svg,
    render_table,
    report_results,
)

FIGURES = {"speed": Figure(2.5, "x", "higher", goal=3.0), "size_<small>": Figure(1024.0, "bytes", "lower")}


def test_json_holds_what_the_readme_names_and_the_same_run_gives_the_same_text() -> None:
    results = Results(FIGURES, [{"layer": "a", "bytes": 3}])
    text = render_results(results, "python -m benchmarks.any", "abc", "Linux")
    assert text == render_results(results, "python -m benchmarks.any", "abc", "Linux")
    content = json.loads(text)
    assert list(content) == ["schema_version", "commit", "machine", "command", "figures", "rows"]
    assert content["figures"]["speed"] == {"value": 2.5, "unit": "x", "better": "higher", "goal": 3.0}
    assert content["figures"]["size_<small>"]["goal"] is None
    assert content["rows"] == [{"layer": "a", "bytes": 3}]


def test_a_figure_that_is_not_a_number_is_refused() -> None:
    results = Results({"speed": Figure(float("nan"), "x", "higher")}, [])
    with pytest.raises(ValueError, match="not JSON compliant"):
        render_results(results, "command", "commit", "machine")


def test_table_aligns_its_columns_and_shows_a_dash_for_what_a_row_lacks() -> None:
    table = render_table([{"name": "a", "value": 1.0}, {"name": "longer", "count": 12}])
    assert table.splitlines() == ["name    value  count", "a           1      -", "longer      -     12"]


def test_chart_is_well_formed_and_has_a_bar_a_figure() -> None:
    root = ET.fromstring(render_svg(FIGURES))
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == len(FIGURES)


def test_every_benchmark_takes_the_same_options() -> None:
    options = benchmark_parser("any", "what it measures").parse_args(["--quick", "--json", "out.json"])
    assert (options.quick, options.json.name, options.svg, options.data) == (True, "out.json", None, None)


def test_figure_that_could_not_be_measured_is_null() -> None:
    missing = {"speed": Figure(None, "x", "higher", goal=3.0)}
    content = json.loads(render_results(Results(missing, []), "run", "commit", "machine"))
    assert content["figures"]["speed"]["value"] is None
    assert "- x" in render_svg(missing)


def test_rows_of_each_part_stand_in_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"part": "a", "x": 1}, {"part": "b", "y": 2}, {"part": "a", "x": 3}]
    report_results(Results({}, rows), benchmark_parser("x", "").parse_args([]))
    first, second, *_ = capsys.readouterr().out.split("\n\n")
    assert first.splitlines() == ["part  x", "a     1", "a     3"]
    assert second.splitlines() == ["part  y", "b     2"]
