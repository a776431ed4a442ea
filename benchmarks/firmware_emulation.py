"""Instructions that one run of a model takes on an emulated microcontroller."""

import json
import subprocess
import tempfile
import threading
from pathlib import Path

from nettrim.toolchain import ToolchainError, need_tool
from nettrim_boards.board import EMULATOR_FOLDER, Board

RUN_TIMEOUT_S = 120.0
PASSED = "nettrim selftest: passed"


def count_firmware_instructions(board: Board, firmware: Path) -> int:
    """Return the instructions between the markers of a firmware's self-test: one run, and the comparison of its output.

    Raises
    ------
    MissingToolError
        When the emulator or the host's compiler (for the emulator's plugin) is not installed.
    ToolchainError
        When the self-test does not pass or takes too long, or the plugin cannot be built.
    """
    if board.emulator is None:
        raise ToolchainError(f"there is no emulator that runs the firmware of board {board.name!r}")
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        plugin, counts_file = Path(scratch, "instruction_counter.so"), Path(scratch, "counts.json")
        _compile_plugin(plugin)
        plugin_options = ("-plugin", f"{plugin},out={counts_file}")
        verdict = _run_until_verdict(
            [need_tool(board.emulator), *board.emulator_options, *plugin_options, "-kernel", firmware]
        )
        if verdict != PASSED:
            raise ToolchainError(f"{firmware.name} says {verdict!r} on board {board.name!r}, expected {PASSED!r}")
        counts: dict[str, int] = json.loads(counts_file.read_text(encoding="ascii"))
    return counts["marked"]


def _compile_plugin(output: Path) -> None:
    source = EMULATOR_FOLDER / "instruction_counter.c"
    command: list[str | Path] = [need_tool("cc"), "-std=c99", "-O2", "-shared", "-fPIC", source, "-o", output]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ToolchainError(f"cc could not build the emulator's plugin: {finished.stderr.strip()}")


def _run_until_verdict(command: list[str | Path]) -> str:
    # The firmware never ends: after its one line QEMU is asked to, and writes the counts while it ends.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as emulator:
        assert emulator.stdout is not None
        watchdog = threading.Timer(RUN_TIMEOUT_S, emulator.kill)
        watchdog.start()
        try:
            line = emulator.stdout.readline()
        finally:
            watchdog.cancel()
            emulator.terminate()
    return line.strip()
