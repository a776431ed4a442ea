"""The one module that starts other programs: builds a bundle's C for a board, runs it, counts instructions."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nettrim.errors import DoesNotFitError
from nettrim_boards.board import EMULATOR_FOLDER, FIRMWARE_FOLDER, Board
from nettrim_runtime.errors import NettrimError

DEBIAN_PACKAGES = {
    "cc": "build-essential",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-size": "binutils-arm-none-eabi",
    "qemu-aarch64": "qemu-user",
    "qemu-system-arm": "qemu-system-arm",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}

BUILD_FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-g0", "-Wl,--build-id=none")
STATIC_FLAGS = ("-static", "-s")  # cross-built only: the program then runs on any Linux of the board
FIRMWARE_FLAGS = ("-nostartfiles", "--specs=nano.specs", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")

COMPILE_TIMEOUT_S = 600.0
RUN_TIMEOUT_S = 600.0
SHOWN_LINES = 5


class ToolchainError(NettrimError):
    """A compiler or an emulator that fails, takes too long or cannot do what is asked."""

    exit_code = 6


class MissingToolError(ToolchainError):
    """A program that is not installed; the message names it and the Debian package."""


@dataclass(frozen=True)
class FirmwareSize:
    """What a linked program takes: ``flash_bytes`` of code, constants and initial values; ``ram_bytes`` with stack."""

    flash_bytes: int
    ram_bytes: int


def find_tool(name: str) -> Path | None:
    """Return where a program is installed, or None."""
    found = shutil.which(name)
    return Path(found) if found else None


def need_tool(name: str) -> Path:
    """Return where a program is installed.

    Raises
    ------
    MissingToolError
        Naming the program and the Debian package that brings it.
    """
    found = find_tool(name)
    if found is None:
        package = DEBIAN_PACKAGES.get(name, name)
        raise MissingToolError(f"{name} is not installed; on Debian and Raspberry Pi OS: apt install {package}")
    return found


def run_tool(name: str, args: Sequence[str | Path]) -> str:
    """Run an installed program to its end and return what it printed.

    Raises
    ------
    MissingToolError
        When it is not installed.
    ToolchainError
        When it fails.
    """
    finished = _run([need_tool(name), *args], RUN_TIMEOUT_S)
    if finished.returncode != 0:
        raise ToolchainError(f"{name} failed (status {finished.returncode}): {_excerpt(finished.stderr)}")
    return finished.stdout


def compiler_name(board: Board) -> str:
    """Return the name of the program that compiles C for a board."""
    return "cc" if board.toolchain == "native" else f"{board.toolchain}-gcc"


def compiler_version(board: Board) -> str:
    """Return the first line of what the board's compiler says of itself.

    Raises
    ------
    MissingToolError
        When it is not installed.
    """
    finished = _run([need_tool(compiler_name(board)), "--version"], COMPILE_TIMEOUT_S)
    return finished.stdout.splitlines()[0].strip() if finished.stdout else "unknown"


def build_flags(board: Board) -> tuple[str, ...]:
    """Return the flags that a board's programs are compiled with, paths left out."""
    linking = {"none": FIRMWARE_FLAGS, "linux": STATIC_FLAGS}.get(board.os, ())
    return (*BUILD_FLAGS, *board.compile_flags, *linking)


def compile_bench(board: Board, folder: Path, name: str, output: Path) -> Path:
    """Compile a bundle's model and the benchmark main into one program; same input, same bytes.

    Parameters
    ----------
    board : Board
        One with an operating system.
    folder : Path
        Holds model.h and nettrim_kernels.h.
    name : str
        The model's name as a C identifier, as in ``nt_<name>_run``.
    output : Path
        The program to write; returned.

    Raises
    ------
    MissingToolError
        When the compiler is not installed.
    ToolchainError
        When the board has no operating system, or the compiler fails.
    """
    if board.os == "none":
        raise ToolchainError(f"board {board.name!r} has no operating system: link its firmware instead of a program")
    _compile(board, folder, name, [FIRMWARE_FOLDER / "bench_main.c"], output)
    return output


def link_firmware(board: Board, folder: Path, name: str, output: Path) -> FirmwareSize:
    """Link a bundle's model, its self-test and the board's start-up code into an ELF file.

    Parameters
    ----------
    board, folder, name, output
        As in ``compile_bench``, for a microcontroller.

    Raises
    ------
    DoesNotFitError
        When flash or RAM overflow.
    MissingToolError
        When compiler or size are not installed.
    ToolchainError
        When there is no firmware for the board, or the compiler fails.
    """
    board_folder = FIRMWARE_FOLDER / board.name
    if board.os != "none" or not board_folder.is_dir():
        raise ToolchainError(f"there is no firmware for board {board.name!r}: compile the benchmark program instead")
    sources = [FIRMWARE_FOLDER / "main_selftest.c", *sorted(board_folder.glob("*.c"))]
    _compile(board, folder, name, [*sources, "-T", board_folder / "memory.ld"], output)
    return _firmware_size(board, output)


def runs_natively(board: Board) -> bool:
    """Whether this machine executes the board's programs itself."""
    same_family = board.toolchain.split("-")[0] == platform.machine() and sys.platform == "linux"
    return board.toolchain == "native" or (board.os == "linux" and same_family)


def run_binary(
    board: Board, binary: Path, args: Sequence[str | Path], timeout_s: float = RUN_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a board's program, natively where this machine can, else under the board's emulator.

    Raises
    ------
    MissingToolError
        When the emulator is not installed.
    ToolchainError
        When there is none, or the program runs longer than ``timeout_s`` seconds; an exit status is the caller's.
    """
    emulator = [] if runs_natively(board) else _emulator(board)
    return _run([*emulator, binary.absolute(), *args], timeout_s)


def run_module(module: str, args: Sequence[str | Path], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run ``main`` of a Python module in a process of its own, with this one's path, not the working directory's.

    Raises
    ------
    ToolchainError
        When it runs longer than ``timeout_s`` seconds; an exit status is the caller's.
    """
    path = os.pathsep.join(filter(None, sys.path))
    code = f"import sys; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return _run([sys.executable, "-P", "-c", code, *args], timeout_s, PYTHONPATH=path)


@dataclass(frozen=True)
class CountedRun:
    """A program under the counting emulator: ``instructions`` a run of the model, and what it printed."""

    instructions: int
    stdout: str


def count_instructions(
    board: Board, binary: Path, args: Sequence[str | Path], emulator_options: Sequence[str | Path] = ()
) -> CountedRun:
    """Return the instructions that one run of the model takes under the board's emulator.

    Counted between the marker instructions around a run; where ``args`` make the program run the model on
    several samples, the mean, rounded. The same in every repetition, for programs in C.

    Raises
    ------
    MissingToolError
        When the emulator or the host's compiler (for the emulator's plugin) is not installed.
    ToolchainError
        When the emulator takes no plugin, the program fails, or it never runs the model.
    """
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        plugin, counts_file = Path(scratch, "instruction_counter.so"), Path(scratch, "counts.json")
        _compile_plugin(plugin)
        option = f"{plugin},out={counts_file}"
        finished = _run(
            [*_emulator(board), *emulator_options, "-plugin", option, binary.absolute(), *args], RUN_TIMEOUT_S
        )
        if finished.returncode != 0 or not counts_file.exists():
            raise ToolchainError(
                f"{board.emulator} could not count the instructions of {binary.name} (status {finished.returncode}); "
                f"a dynamically linked QEMU, 4.2 to 8.2, is needed: {_excerpt(finished.stderr)}"
            )
        counts: dict[str, int] = json.loads(counts_file.read_text(encoding="ascii"))
    if counts["runs"] == 0:
        raise ToolchainError(f"{binary.name} never ran the model, expected one run or more")
    return CountedRun(round(counts["marked"] / counts["runs"]), finished.stdout)


def _compile(board: Board, folder: Path, name: str, inputs: Sequence[str | Path], output: Path) -> None:
    command: list[str | Path] = [
        need_tool(compiler_name(board)),
        *build_flags(board),
        '-DNT_MODEL_HEADER="model.h"',
        f"-DNT_NAME={name}",
        f"-DNT_NAME_UPPER={name.upper()}",
        f"-ffile-prefix-map={folder}=.",
        f"-ffile-prefix-map={FIRMWARE_FOLDER}=.",
        f"-I{folder}",
        f"-I{FIRMWARE_FOLDER}",
        *inputs,
        "-lm",
        "-o",
        output,
    ]
    finished = _run(command, COMPILE_TIMEOUT_S)
    if finished.returncode == 0:
        return
    message = f"{compiler_name(board)} could not build {folder} for board {board.name!r}: {_excerpt(finished.stderr)}"
    if "overflowed by" in finished.stderr:
        raise DoesNotFitError(message)
    raise ToolchainError(message)


def _firmware_size(board: Board, program: Path) -> FirmwareSize:
    # Berkeley format: a line of headings, then text, data, bss, ...
    finished = _run([need_tool(f"{board.toolchain}-size"), "--format=berkeley", program], COMPILE_TIMEOUT_S)
    if finished.returncode != 0:
        raise ToolchainError(f"{board.toolchain}-size cannot read {program}: {_excerpt(finished.stderr)}")
    text, data, bss = (int(field) for field in finished.stdout.splitlines()[1].split()[:3])
    return FirmwareSize(flash_bytes=text + data, ram_bytes=data + bss)


def _compile_plugin(output: Path) -> None:
    source = EMULATOR_FOLDER / "instruction_counter.c"
    finished = _run([need_tool("cc"), "-std=c99", "-O2", "-shared", "-fPIC", source, "-o", output], COMPILE_TIMEOUT_S)
    if finished.returncode != 0:
        raise ToolchainError(f"cc could not build the emulator's plugin: {_excerpt(finished.stderr)}")


def _emulator(board: Board) -> list[str | Path]:
    if board.emulator is None or board.os == "none":
        raise ToolchainError(f"there is no emulator that runs programs of board {board.name!r} on this machine")
    return [need_tool(board.emulator), *board.emulator_options]


def _run(command: Sequence[str | Path], timeout_s: float, **variables: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C", **variables},
        start_new_session=True,
    ) as child:
        try:
            stdout, stderr = child.communicate(timeout=timeout_s)
        except BaseException as error:  # Ctrl-C too: what a compiler has started must not outlive it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ToolchainError(f"{Path(arguments[0]).name} took longer than {timeout_s:g} s") from error
            raise
    return subprocess.CompletedProcess(arguments, child.returncode, stdout, stderr)


def _excerpt(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "overflowed" in line or "undefined" in line]
    return " | ".join((errors or lines)[:SHOWN_LINES])
