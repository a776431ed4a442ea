"""The commands `nettrim-deploy` and `nettrim`: options in, exit code out."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nettrim.bench import BenchSettings, bench_bundle, bench_table
from nettrim.board_python import fetch_board_python
from nettrim.bundle import MEASUREMENTS, check_output, new_bundle, read_manifest, verify_bundle, write_json
from nettrim.deploy import Deployment, build
from nettrim.deploy_options import (
    ArchOption,
    ConstraintOption,
    DataOption,
    FitOption,
    ForceOption,
    InputLayoutOption,
    InputScaleOption,
    InputShapeOption,
    Int16Option,
    JsonOption,
    LabelsOption,
    MaxDropOption,
    MeanOption,
    MemoryOption,
    ModelArgument,
    ModeOption,
    OutputOption,
    PlainOption,
    PolishOption,
    PrecisionOption,
    RelativeEpsilonOption,
    SeedOption,
    SparsityOption,
    StdOption,
    StructureOption,
    TargetOption,
    TestDataOption,
    TrustPickleOption,
)
from nettrim.deployment_files import write_deployment
from nettrim.deployment_inputs import DeployOptions, read_inputs
from nettrim.deployment_warnings import missed_drop
from nettrim.entry import INTERRUPTED
from nettrim.errors import BudgetMissedError, InvalidBenchmarkError, UsageError
from nettrim.layer_search import SearchSettings
from nettrim.option_values import check_plain, parse_numbers, parse_shape, read_goal
from nettrim.progress import Progress
from nettrim.prune import Mode
from nettrim.report import print_report
from nettrim.samples import InputOptions
from nettrim_boards.board import BoardError, list_boards, load_board
from nettrim_runtime.errors import NettrimError

PIPE_WIDTH = 200  # columns; the layer table needs about 150

deploy_app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


@deploy_app.command()
@app.command()
def deploy(
    model: ModelArgument,
    target: TargetOption,
    *,
    data: DataOption = None,
    test_data: TestDataOption = None,
    output: OutputOption = None,
    sparsity: SparsityOption = None,
    relative_epsilon: RelativeEpsilonOption = None,
    max_drop: MaxDropOption = None,
    fit: FitOption = False,
    mode: ModeOption = Mode.CASCADE,
    constraint: ConstraintOption = "distance",
    plain: PlainOption = False,
    polish: PolishOption = False,
    precision: PrecisionOption = "int8",
    int16: Int16Option = "auto",
    structure: StructureOption = "l1",
    memory: MemoryOption = 2048,
    input_shape: InputShapeOption = None,
    arch: ArchOption = None,
    trust_pickle: TrustPickleOption = False,
    labels: LabelsOption = None,
    input_scale: InputScaleOption = 1.0,
    mean: MeanOption = None,
    std: StdOption = None,
    input_layout: InputLayoutOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trained network in, verified deployment out."""
    check_plain(plain=plain, polish=polish, relative_epsilon=relative_epsilon)
    goal = read_goal(sparsity, relative_epsilon, max_drop, structure, fit=fit)
    options = DeployOptions(
        model=model,
        board=target,
        data=data,
        test_data=test_data,
        output=output,
        force=force,
        prune=replace(
            goal.prune,
            mode=mode,
            constraint=constraint,
            search=SearchSettings(plain=plain),
            polish=polish,
            memory_budget_bytes=memory << 20,
        ),
        max_drop=goal.max_drop,
        fit=fit,
        precision=precision,
        int16=int16,
        goal_is_default=goal.is_default,
        labels=labels,
        input_options=InputOptions(
            input_scale, parse_numbers(mean, "--mean"), parse_numbers(std, "--std"), input_layout
        ),
        input_shape=parse_shape(input_shape, "--input-shape"),
        arch=arch,
        trust_pickle=trust_pickle,
        seed=seed,
    )
    report, deployment = _deploy(options)
    if as_json:
        print(json.dumps(report, indent=2))  # noqa: T201  # the result itself, for machines
    else:
        _print_deployment(report, deployment, options.folder)
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


def _deploy(options: DeployOptions) -> tuple[dict[str, Any], Deployment]:
    """Read, build and write a deployment, and tell on the way what a user should know; return its report too."""
    messages = Console(stderr=True, soft_wrap=True, highlight=False)
    check_output(options.folder, force=options.force)
    inputs = read_inputs(options)
    _tell(messages, "warning", inputs.warnings)
    _tell(messages, "note", inputs.notes)
    _tell(messages, "goal", [inputs.goal])
    with _progress(messages) as progress:
        deployment = build(options, inputs, progress)
        with new_bundle(options.folder, force=options.force) as folder:
            report = write_deployment(folder, deployment, options, progress)
    _tell(messages, "warning", deployment.warnings[len(inputs.warnings) :])
    _tell(messages, "note", report["build"]["notes"])
    return report, deployment


def _tell(messages: Console, kind: str, sentences: Iterable[str]) -> None:
    for sentence in sentences:
        messages.print(f"{kind}: {sentence}", markup=False)


def _print_deployment(report: dict[str, Any], deployment: Deployment, folder: Path) -> None:
    console = _console()
    print_report(report, deployment, console)
    for check in report["verification"]:
        same = f", all within {check['tolerance']:g} of the largest output" if check["tolerance"] else ", 0 differ"
        console.print(f"verified: {check['artifact']} by {check['by']}: {check['samples']} samples{same}")
    console.print(f"written: {folder}/ (its README.md says how to run it)", markup=False)


def _check_drop(deployment: Deployment, options: DeployOptions) -> None:
    """End with the exit code of a missed budget when the user set one; by default a warning has said it."""
    sentence = missed_drop(deployment)
    if sentence and options.max_drop is not None:
        raise BudgetMissedError(sentence)


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"
