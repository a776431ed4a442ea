"""The stock LiteRT of a Linux board under the emulator: fetched once into the user's cache, instructions counted."""

import importlib.metadata
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nettrim_runtime
from nettrim.board_python import PACKAGES, BoardPython, cache_folder, fetch_board_python
from nettrim.toolchain import count_instructions, run_tool
from nettrim_boards.board import Board

Array = npt.NDArray[Any]

SCRIPT = Path(__file__).with_name("litert_invoke.py")
WHEEL_PLATFORM = "manylinux_2_27_aarch64"
# LiteRT reads the sizes of caches and the processor's kind, and stumbles over this machine's.
CACHE_LEVELS = 3
CACHE_FILES = ("level", "size", "type", "shared_cpu_list")
CPU_INFO = """processor\t: 0
Features\t: fp asimd crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


@dataclass(frozen=True)
class EmulatedLiteRT:
    """A board's Python, and the folder with the wheel's modules."""

    board: Board
    python: BoardPython
    modules: Path


def fetch_litert(board: Board) -> EmulatedLiteRT:
    """Return LiteRT for a Linux board, of the version that is installed here; fetched if the cache has none.

    Raises
    ------
    MissingToolError, ToolchainError
        When apt, dpkg or pip cannot get the packages.
    """
    version = importlib.metadata.version("ai-edge-litert")
    cache_name = f"litert-{version}"
    python = BoardPython(cache_folder(board, cache_name), board.toolchain)
    modules = python.root / "litert"
    if not modules.exists():
        fetch_board_python(board, (*PACKAGES, "libstdc++6"), cache_name)
        _write_machine(python.root, board.cores or 1)
        _fetch_wheel(version, python, modules)
    return EmulatedLiteRT(board, python, modules)


def _fetch_wheel(version: str, python: BoardPython, modules: Path) -> None:
    minor = next(path.name for path in python.program.parent.glob("python3.*") if path.name[8:].isdigit())
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        options = ["--no-deps", "--only-binary=:all:", "--platform", WHEEL_PLATFORM]
        options += ["--python-version", minor.removeprefix("python"), "--dest", scratch]
        run_tool(sys.executable, ["-m", "pip", "download", "--quiet", *options, f"ai-edge-litert=={version}"])
        (wheel,) = Path(scratch).glob("*.whl")
        zipfile.ZipFile(wheel).extractall(modules)


def _write_machine(root: Path, cores: int) -> None:
    for core, index in product(range(cores), range(CACHE_LEVELS)):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
        folder.mkdir(parents=True)
        for name in CACHE_FILES:
            (folder / name).touch()
    (root / "proc").mkdir()
    (root / "proc" / "cpuinfo").write_text(CPU_INFO)


def count_invocations(litert: EmulatedLiteRT, content: bytes, x: Array) -> tuple[int, Array]:
    """Return the instructions of one invocation of a .tflite, and its outputs on samples (n_samples, *input shape)."""
    runtime = Path(nettrim_runtime.__file__).parents[1]
    options = litert.python.emulator_options(litert.modules, runtime)
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        model, samples, output = (Path(scratch, name) for name in ("model.tflite", "samples.npy", "output.npy"))
        model.write_bytes(content)
        np.save(samples, x)
        counted = count_instructions(litert.board, litert.python.program, [SCRIPT, model, samples, output], options)
        outputs: Array = np.load(output)
    return counted.instructions, outputs
