"""The commands `nettrim-deploy` and `nettrim`: options in, exit code out."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nettrim.bench import BenchSettings, bench_bundle, bench_table
from nettrim.board_python import fetch_board_python
from nettrim.bundle import MEASUREMENTS, check_output, new_bundle, read_manifest, verify_bundle, write_json
from nettrim.deploy import Deployment, build
from nettrim.deployment_files import write_deployment
from nettrim.deployment_inputs import DeployOptions, Int16, read_inputs
from nettrim.deployment_warnings import missed_drop
from nettrim.entry import INTERRUPTED
from nettrim.errors import BudgetMissedError, InvalidBenchmarkError, UsageError
from nettrim.hybrid import Precision
from nettrim.layer_problem import Constraint
from nettrim.layer_search import SearchSettings
from nettrim.option_values import parse_numbers, parse_shape, parse_share
from nettrim.progress import Progress
from nettrim.prune import Mode, PruneSettings
from nettrim.report import print_report
from nettrim.samples import ImageLayout, InputOptions
from nettrim.structure_names import NOfM, parse_structure
from nettrim_boards.board import BoardError, list_boards, load_board
from nettrim_runtime.errors import NettrimError

PIPE_WIDTH = 200  # columns; the layer table needs about 150

deploy_app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


@deploy_app.command()
@app.command()
def deploy(
    model: Annotated[
        Path,
        typer.Argument(
            help="Trained network: .onnx, .tflite, .pt, .pt2, .safetensors, .keras or .h5.", show_default=False
        ),
    ],
    target: Annotated[str, typer.Option(help="Board; `nettrim boards` lists them.", show_default=False)],
    *,
    data: Annotated[
        Path | None, typer.Option(help="Calibration samples without labels: .npz with x, or .npy.", show_default=False)
    ] = None,
    test_data: Annotated[
        Path | None, typer.Option(help="Labelled samples to measure accuracy: .npz with x and y.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write, else <model>-<board>/.", show_default=False)
    ] = None,
    sparsity: Annotated[
        str | None, typer.Option(metavar="<share>", help="Share of all weights to remove, 0 to 1.", show_default=False)
    ] = None,
    relative_epsilon: Annotated[
        str | None,
        typer.Option(
            metavar="<share>",
            help="Or: allowed error of each layer's response, a share of its norm.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="<share>",
            help="Or: what the deployed network may lose of 1: of accuracy with labels, else of agreement or relative "
            "output error. Default: 0.005 of agreement, 0.02 of relative output error.",
            show_default=False,
        ),
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Or: as many weights as the board's flash holds.")] = False,
    mode: Annotated[Mode, typer.Option(help="Layers one after the other, or independently.")] = Mode.CASCADE,
    constraint: Annotated[
        Constraint, typer.Option(help="The convex program: distance to the box, or the inequalities as published.")
    ] = "distance",
    plain: Annotated[
        bool, typer.Option("--plain", help="Net-Trim as published: no refit, no elimination; with --relative-epsilon.")
    ] = False,
    polish: Annotated[
        bool,
        typer.Option("--polish", help="Then tune the weights that are left, without labels, on the calibration data."),
    ] = False,
    precision: Annotated[
        Precision,
        typer.Option(
            help="What the network computes in: int8; on Linux boards also hybrid (floats, weights of dense layers in "
            "int8) or float32."
        ),
    ] = "int8",
    int16: Annotated[
        Int16,
        typer.Option(
            help="Activations in int16: those without which a drop is missed, all but input and output, none."
        ),
    ] = "auto",
    structure: Annotated[
        str, typer.Option(help="What is pruned together: l1 (single weights), 1x4, 1x16, 4x1, columns, neurons or 2:4.")
    ] = "l1",
    memory: Annotated[
        int, typer.Option(min=1, help="MiB that pruning may take; fewer samples are used to fit.")
    ] = 2048,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one sample where the file lacks it: 1,28,28.", show_default=False)
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="file.py:factory that makes the torch module of the weights.", show_default=False),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Open model files that can run any code: trusted ones only.")
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(help="Class names, one a line; they go into model.tflite.", show_default=False)
    ] = None,
    input_scale: Annotated[float, typer.Option(help="Samples are multiplied by this first.")] = 1.0,
    mean: Annotated[
        str | None, typer.Option(help="Then this is subtracted: one value or one a channel.", show_default=False)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Then divided by this: one value or one a channel.", show_default=False)
    ] = None,
    input_layout: Annotated[
        ImageLayout | None, typer.Option(help="How image samples lie, if not as the model.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the held-out split and the drawn patches.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier deployment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> None:
    """Trained network in, verified deployment out."""
    if plain and relative_epsilon is None:
        raise UsageError("--plain is a convex program at an epsilon: give --relative-epsilon, and no other goal")
    if plain and polish:
        raise UsageError("--plain is Net-Trim as published and --polish tunes weights after it: give one of the two")
    removed, drop = parse_share(sparsity, "--sparsity"), parse_share(max_drop, "--max-drop")
    epsilon = parse_share(relative_epsilon, "--relative-epsilon")
    options = DeployOptions(
        model=model,
        board=target,
        data=data,
        test_data=test_data,
        output=output,
        force=force,
        prune=replace(
            _prune_settings(removed, epsilon, drop, structure, fit=fit),
            mode=mode,
            constraint=constraint,
            search=SearchSettings(plain=plain),
            polish=polish,
            memory_budget_bytes=memory << 20,
        ),
        max_drop=drop,
        fit=fit,
        precision=precision,
        int16=int16,
        goal_is_default=not fit and all(goal is None for goal in (sparsity, relative_epsilon, max_drop)),
        labels=labels,
        input_options=InputOptions(
            input_scale, parse_numbers(mean, "--mean"), parse_numbers(std, "--std"), input_layout
        ),
        input_shape=parse_shape(input_shape, "--input-shape"),
        arch=arch,
        trust_pickle=trust_pickle,
        seed=seed,
    )
    console, messages = _console(), Console(stderr=True, soft_wrap=True, highlight=False)
    check_output(options.folder, force=force)
    inputs = read_inputs(options)
    for warning in inputs.warnings:
        messages.print(f"warning: {warning}", markup=False)
    for note in inputs.notes:
        messages.print(f"note: {note}", markup=False)
    messages.print(f"goal: {inputs.goal}", markup=False)
    with _progress(messages) as say:
        deployment = build(options, inputs, say)
        with new_bundle(options.folder, force=force) as folder:
            report = write_deployment(folder, deployment, options, say)
    for warning in deployment.warnings[len(inputs.warnings) :]:
        messages.print(f"warning: {warning}", markup=False)
    for note in report["build"]["notes"]:
        messages.print(f"note: {note}", markup=False)
    if as_json:
        print(json.dumps(report, indent=2))  # noqa: T201  # the result itself, for machines
        _check_drop(deployment, options)
        return
    print_report(report, deployment, console)
    for check in report["verification"]:
        same = f", all within {check['tolerance']:g} of the largest output" if check["tolerance"] else ", 0 differ"
        console.print(f"verified: {check['artifact']} by {check['by']}: {check['samples']} samples{same}")
    console.print(f"written: {options.folder}/ (its README.md says how to run it)", markup=False)
    _check_drop(deployment, options)


@app.command()
def boards(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """List the boards that --target takes."""
    known = list_boards()
    if as_json:
        facts = [{"name": b.name, "product": b.product, "cpu": b.cpu, "flash_bytes": b.flash_bytes} for b in known]
        print(json.dumps([{**fact, "ram_bytes": b.ram_bytes} for fact, b in zip(facts, known, strict=True)], indent=2))  # noqa: T201  # as above
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("board", "product", "cpu", "clock", "flash", "RAM"):
        table.add_column(heading)
    for board in known:
        clock = f"{board.clock_hz / 1e6:.0f} MHz" if board.clock_hz else "-"
        table.add_row(board.name, board.product, board.cpu, clock, _size(board.flash_bytes), _size(board.ram_bytes))
    _console().print(table)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="A deployment.", show_default=False)]) -> None:
    """Check a deployment against its manifest."""
    _console().print(f"{folder}: {verify_bundle(folder)} files, all as written")


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(help="A deployment.", show_default=False)],
    windows: Annotated[int, typer.Option(min=1, help="Windows of measurement; their median counts.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 10.0,
    fetch_python: Annotated[
        bool, typer.Option("--fetch-python", help="First get the board's Python and NumPy for the emulator.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print bench.json instead of the table.")] = False,
) -> None:
    """Measure a deployment into its bench.json."""
    verify_bundle(folder)
    board = load_board(read_manifest(folder)["board"])
    settings = BenchSettings(windows=windows, window_seconds=seconds)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} cannot be written, and {MEASUREMENTS} belongs there: copy the folder elsewhere")
    if fetch_python:
        fetch_board_python(board)
    result = bench_bundle(folder, board, settings)
    write_json(folder / MEASUREMENTS, result)
    if as_json:
        print(json.dumps(result, indent=2))  # noqa: T201  # the result itself, for machines
    else:
        _print_bench(bench_table(result))
    invalid = [section["name"] for section in result["sections"] if section["verdict"] != "VALID"]
    if invalid:
        raise InvalidBenchmarkError(
            f"{', '.join(invalid)}: INVALID, see {folder / MEASUREMENTS}; run it again on a quiet machine, "
            "or with longer --seconds"
        )


def _print_bench(rows: list[dict[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    _console().print(table)


def main() -> None:
    """Run `nettrim`."""
    sys.exit(run(app))


def deploy_main() -> None:
    """Run `nettrim-deploy`."""
    sys.exit(run(deploy_app))


def run(application: typer.Typer) -> int:
    """Run a command line: a user's mistake is one line and an exit code, a bug a traceback and 1."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        application()
    except (NettrimError, BoardError) as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:  # the machine refuses: no permission, a full disk
        return _fail(f"{error.filename or 'output'}: {error.strerror}", UsageError.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            return _fail("interrupted; nothing half-written is left", INTERRUPTED)
        raise
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201  # plain: paths may hold what rich reads as markup
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that nothing half-written stays."""
    raise KeyboardInterrupt


def _console() -> Console:
    """Return where results go: as wide as the terminal, and in a pipe wide enough that nothing folds."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=PIPE_WIDTH, highlight=False)


@contextmanager
def _progress(messages: Console) -> Iterator[Progress]:
    """Give what tells where the run is: a moving line on a terminal, plain lines in a pipe."""
    keep = partial(messages.print, markup=False)
    if not messages.is_terminal:
        yield Progress(keep, keep)
        return
    with messages.status("") as status:
        yield Progress(lambda sentence: status.update(escape(sentence)), keep)


def _check_drop(deployment: Deployment, options: DeployOptions) -> None:
    """End with the exit code of a missed budget when the user set one; by default a warning has said it."""
    sentence = missed_drop(deployment)
    if sentence and options.max_drop is not None:
        raise BudgetMissedError(sentence)


def _prune_settings(
    sparsity: float | None, relative_epsilon: float | None, max_drop: float | None, structure: str, *, fit: bool
) -> PruneSettings:
    goals = {
        "--sparsity": sparsity,
        "--relative-epsilon": relative_epsilon,
        "--max-drop": max_drop,
        "--fit": fit or None,
    }
    given = [option for option, value in goals.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different goals: give one of them")
    if isinstance(parse_structure(structure), NOfM) and (sparsity is not None or max_drop is not None or fit):
        raise UsageError(f"--structure {structure} fixes the sparsity: leave {given[0]} out")
    settings = PruneSettings(sparsity=sparsity, structure=structure)
    return settings if relative_epsilon is None else replace(settings, relative_epsilon=relative_epsilon)


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"
