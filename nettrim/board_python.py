"""The board's own Python and NumPy, from Debian's packages, unpacked where the emulator can run them."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nettrim.toolchain import MissingToolError, ToolchainError, run_tool
from nettrim_boards.board import Board

ARCHITECTURES = {"aarch64-linux-gnu": "arm64", "arm-linux-gnueabihf": "armhf"}  # toolchain prefix: Debian's name
PACKAGES = ("python3", "python3-numpy")


@dataclass(frozen=True)
class BoardPython:
    """A folder with the board's /usr and /lib in it.

    Attributes
    ----------
    root : Path
        The folder.
    triplet : str
        The board's GNU triplet, as in usr/lib/TRIPLET.
    """

    root: Path
    triplet: str

    @property
    def program(self) -> Path:
        """The interpreter."""
        return self.root / "usr" / "bin" / "python3"

    def emulator_options(self, *module_folders: Path) -> list[str | Path]:
        """Return what user-mode QEMU needs to run the interpreter with the modules of more folders."""
        libraries = self.root / "usr" / "lib" / self.triplet
        # NumPy first: a module folder may be a site-packages that holds this machine's.
        modules = ":".join(map(str, (self.root / "usr" / "lib" / "python3" / "dist-packages", *module_folders)))
        environment = {
            "PYTHONHOME": self.root / "usr",
            "PYTHONPATH": modules,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": f"{libraries / 'blas'}:{libraries / 'lapack'}",
            "OPENBLAS_NUM_THREADS": "1",
        }
        options: list[str | Path] = ["-L", self.root]
        for name, value in environment.items():
            options += ["-E", f"{name}={value}"]
        return options


def find_board_python(board: Board) -> BoardPython:
    """Return the Python that an earlier ``fetch_board_python`` left in the user's cache.

    Raises
    ------
    MissingToolError
        When there is none; the message says how to get it.
    """
    python = BoardPython(cache_folder(board), board.toolchain)
    if not python.program.exists():
        raise MissingToolError(
            f"the board's Python and NumPy are not here: nettrim bench --fetch-python gets them (25 MB), "
            f"or run python3 -m nettrim_runtime.bench model.npz on the {board.name}"
        )
    return python


def fetch_board_python(board: Board, packages: Sequence[str] = PACKAGES, cache_name: str = "python") -> BoardPython:
    """Download and unpack the board's Python and NumPy from this machine's Debian archive; needs no rights.

    Parameters
    ----------
    packages, cache_name
        Others than those of `find_board_python`, and what their folder in the cache is called.

    Raises
    ------
    MissingToolError
        When apt or dpkg is not installed.
    ToolchainError
        When the board runs no Debian, or the archive has no packages for it.
    """
    architecture = ARCHITECTURES.get(board.toolchain)
    if architecture is None:
        raise ToolchainError(f"board {board.name!r} has no Python to fetch, expected a Linux board (such as rpi4)")
    folder = cache_folder(board, cache_name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder.parent) as scratch:
        root = Path(scratch, "root")
        for package in _download(architecture, packages, Path(scratch)):
            run_tool("dpkg-deb", ["-x", package, root])
        shutil.rmtree(folder, ignore_errors=True)
        root.rename(folder)
    return BoardPython(folder, board.toolchain)


def cache_folder(board: Board, cache_name: str = "python") -> Path:
    """Return where `fetch_board_python` puts packages."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nettrim" / f"{cache_name}-{board.toolchain}"


def _download(architecture: str, packages: Sequence[str], scratch: Path) -> list[Path]:
    """Return packages and all that they need on an empty machine, by apt with a state of its own."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # no change of user: the folder is this user's
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Debug::NoLocking": "1",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    run_tool("apt-get", [*options, "update", "--quiet"])
    run_tool("apt-get", [*options, "install", "--yes", "--download-only", "--no-install-recommends", *packages])
    return sorted((scratch / "cache" / "archives").glob("*.deb"))
