"""What every benchmark ends with: a table for people, a JSON file of figures and rows, a chart."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1
ROOT = Path(__file__).resolve().parents[1]

Row = Mapping[str, str | int | float | None]

BAR_HEIGHT, LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 22, 330, 360, 130  # of the chart, in pixels


@dataclass(frozen=True)
class Figure:
    """One number that a benchmark is judged by; ``goal`` is None where none is set.

    ``value`` is None where it could not be measured: a row says why.
    """

    value: float | None
    unit: str
    better: Literal["higher", "lower"]
    goal: float | None = None


@dataclass(frozen=True)
class Results:
    """What one run of a benchmark found: the figures by name, and the measurements behind them."""

    figures: Mapping[str, Figure]
    rows: Sequence[Row]


def benchmark_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the options that every benchmark takes: --quick, --json, --svg, --data."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="end within 50 s on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and rows here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart of the figures here")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where data sets lie, for benchmarks that need some")
    return parser


def report_results(results: Results, options: argparse.Namespace, chart: str | None = None) -> None:
    """Print the tables, and write the files that the options name.

    Rows with different values of "part" go to tables of their own. ``chart`` is SVG text that takes the place of
    `render_svg`'s.
    """
    for part in dict.fromkeys(row.get("part") for row in results.rows):
        print(render_table([row for row in results.rows if row.get("part") == part]))
        print()
    print(render_table([{"figure": name, **asdict(figure)} for name, figure in results.figures.items()]))
    if options.json:
        options.json.write_text(render_results(results, _command(), current_commit(), _machine()), encoding="utf-8")
    if options.svg:
        options.svg.write_text(chart or render_svg(results.figures), encoding="utf-8")


def current_commit() -> str:
    """Return the commit of this checkout, ``-dirty`` with uncommitted changes, or "unknown"."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return finished.stdout.strip()


def render_results(results: Results, command: str, commit: str, machine: str) -> str:
    """Return the JSON text of a run; no time stamp: the same run gives the same text.

    Parameters
    ----------
    command, commit, machine
        How, from which source and on what the results were found.
    """
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "commit": commit,
        "machine": machine,
        "command": command,
        "figures": {name: asdict(figure) for name, figure in results.figures.items()},
        "rows": [dict(row) for row in results.rows],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def render_table(rows: Sequence[Row]) -> str:
    """Return rows as aligned text; the columns are the keys of all rows in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def render_svg(figures: Mapping[str, Figure]) -> str:
    """Return the figures as horizontal bars, each relative to the largest of its unit."""
    largest = {figure.unit: 0.0 for figure in figures.values()}
    for figure in figures.values():
        largest[figure.unit] = max(largest[figure.unit], abs(figure.value or 0.0))
    width, height = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH, BAR_HEIGHT * (len(figures) + 1)
    size = f'width="{width}" height="{height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">']
    for index, (name, figure) in enumerate(figures.items()):
        length = BAR_WIDTH * abs(figure.value or 0.0) / (largest[figure.unit] or 1.0)
        top = BAR_HEIGHT * index + BAR_HEIGHT // 2
        value = f"{_cell(figure.value)} {escape(figure.unit)}"
        lines += [
            f'<text x="{LABEL_WIDTH - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT - 6}" fill="#4878a8"/>',
            f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{top + 12}">{value}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _command() -> str:
    module = Path(sys.argv[0]).stem
    return " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]])


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
