"""What is known of each board, read from one checked TOML file a board."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BOARDS_FOLDER = Path(__file__).resolve().parent
FIRMWARE_FOLDER = BOARDS_FOLDER / "firmware"
EMULATOR_FOLDER = BOARDS_FOLDER / "emulator"
TOOLCHAINS_FOLDER = BOARDS_FOLDER / "toolchains"

SYSTEMS = ("linux", "none", "any")
UPLOADS = ("ssh", "usb-drive", "none")

REQUIRED_TEXTS = ("product", "vendor", "mcu", "cpu", "isa", "os")
OPTIONAL_SIZES = (
    "cores",
    "clock_hz",
    "flash_bytes",
    "flash_start_address",
    "ram_bytes",
    "l1_instruction_bytes",
    "l1_data_bytes",
    "l2_bytes",
)
MICROCONTROLLER_FACTS = ("clock_hz", "flash_bytes", "flash_start_address", "ram_bytes")
TEXT_LISTS = ("isa_features", "compile_flags", "emulator_options")
FACTS = (*REQUIRED_TEXTS, "isa_features", *OPTIONAL_SIZES, "ram_regions")
CHOICES = ("toolchain", "compile_flags", "emulator", "emulator_options", "upload")  # nettrim's own: no source
KNOWN_KEYS = ("name", *FACTS, *(f"{fact}_source" for fact in FACTS), *CHOICES)


class BoardError(Exception):
    """A board that is not known, or a board file that does not say what it must."""

    exit_code = 2


@dataclass(frozen=True)
class MemoryRegion:
    """One stretch of RAM as the board's memory map has it."""

    name: str
    start_address: int
    size_bytes: int


@dataclass(frozen=True)
class Board:
    """A board's facts and nettrim's settings for it; None where a fact does not apply or differs from one to the next.

    Attributes
    ----------
    os : str
        "linux", "none" (bare metal) or "any" (the host).
    toolchain : str
        Prefix of the cross-compiler's tools, or "native".
    emulator : str or None
        The program that runs the board's binaries on the host, with ``emulator_options``.
    upload : str
        How programs reach the board: "ssh", "usb-drive" or "none".
    sources : Mapping
        For every fact that is given, where it is written.
    """

    name: str
    product: str
    vendor: str
    mcu: str
    cpu: str
    isa: str
    isa_features: tuple[str, ...]
    os: str
    toolchain: str
    compile_flags: tuple[str, ...]
    upload: str
    cores: int | None = None
    clock_hz: int | None = None
    flash_bytes: int | None = None
    flash_start_address: int | None = None
    ram_bytes: int | None = None
    ram_regions: tuple[MemoryRegion, ...] = ()
    l1_instruction_bytes: int | None = None
    l1_data_bytes: int | None = None
    l2_bytes: int | None = None
    emulator: str | None = None
    emulator_options: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)


def load_board(name: str) -> Board:
    """Return a board by the name of its file.

    Raises
    ------
    BoardError
        When no board has this name (the message lists them and the nearest), or its file is faulty.
    """
    names = sorted(path.stem for path in BOARDS_FOLDER.glob("*.toml"))
    if name not in names:
        nearest = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise BoardError(f"board {name!r} is not known, expected one of: {', '.join(names)}{hint}")
    return read_board(BOARDS_FOLDER / f"{name}.toml")


def list_boards() -> tuple[Board, ...]:
    """Return every board, by name."""
    return tuple(read_board(path) for path in sorted(BOARDS_FOLDER.glob("*.toml")))


def read_board(path: Path) -> Board:
    """Read and check one board file.

    Raises
    ------
    BoardError
        Naming file, key, what was found and what was expected: a key that is unknown, missing, of the wrong
        type or out of range, a fact without its source or the reverse, regions that do not sum to ``ram_bytes``.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BoardError(f"{path}: cannot be read as TOML: {error}") from error
    _check_keys(path, table)
    if table["name"] != path.stem:
        raise BoardError(f"{path}: name is {table['name']!r}, expected the file's own name {path.stem!r}")
    values: dict[str, Any] = {key: _text(path, table, key) for key in (*REQUIRED_TEXTS, "toolchain", "upload")}
    values |= {key: _text(path, table, key) for key in ("emulator",) if key in table}
    values |= {key: _texts(path, table, key) for key in TEXT_LISTS if key in table}
    values |= {key: _size(path, table, key) for key in OPTIONAL_SIZES if key in table}
    sources = {fact: _text(path, table, f"{fact}_source") for fact in FACTS if fact in table}
    board = Board(name=path.stem, ram_regions=_regions(path, table), sources=sources, **values)
    _check_values(path, board)
    return board


def _check_keys(path: Path, table: Mapping[str, Any]) -> None:
    for key in table:
        if key not in KNOWN_KEYS:
            nearest = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
            raise BoardError(f"{path}: key {key!r} is unknown" + (f", expected {nearest[0]!r}?" if nearest else ""))
    required = ["name", *REQUIRED_TEXTS, "isa_features", "toolchain", "compile_flags", "upload"]
    required += [f"{fact}_source" for fact in FACTS if fact in table]
    required += [fact for fact in FACTS if f"{fact}_source" in table]
    missing = [key for key in required if key not in table]
    if missing:
        raise BoardError(f"{path}: key {missing[0]!r} is missing")


def _check_values(path: Path, board: Board) -> None:
    for key, value, allowed in (("os", board.os, SYSTEMS), ("upload", board.upload, UPLOADS)):
        if value not in allowed:
            raise BoardError(f"{path}: {key} is {value!r}, expected one of {allowed}")
    for key in MICROCONTROLLER_FACTS if board.os == "none" else ():
        if getattr(board, key) is None:
            raise BoardError(f"{path}: key {key!r} is missing, expected for a board without an operating system")
    toolchains = ("native", *sorted(file.stem for file in TOOLCHAINS_FOLDER.glob("*.cmake")))
    if board.toolchain not in toolchains:
        raise BoardError(f"{path}: toolchain is {board.toolchain!r}, expected one of {toolchains}")
    regions_bytes = sum(region.size_bytes for region in board.ram_regions)
    if board.ram_regions and regions_bytes != board.ram_bytes:
        raise BoardError(f"{path}: ram_regions sum to {regions_bytes} bytes, expected ram_bytes = {board.ram_bytes}")


def _text(path: Path, table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise BoardError(f"{path}: {key} is {value!r}, expected a text that is not empty")
    return value


def _texts(path: Path, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = table[key]
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise BoardError(f"{path}: {key} is {value!r}, expected a list of texts")
    return tuple(value)


def _size(path: Path, table: Mapping[str, Any], key: str) -> int:
    value = table[key]
    lowest = 1 if key in ("cores", "clock_hz", "flash_bytes", "ram_bytes") else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise BoardError(f"{path}: {key} is {value!r}, expected an integer of at least {lowest}")
    return value


def _regions(path: Path, table: Mapping[str, Any]) -> tuple[MemoryRegion, ...]:
    regions = table.get("ram_regions", [])
    keys = {"name", "start_address", "size_bytes"}
    if not isinstance(regions, list) or not all(isinstance(region, dict) and set(region) == keys for region in regions):
        raise BoardError(f"{path}: ram_regions is {regions!r}, expected a list of tables with the keys {sorted(keys)}")
    return tuple(
        MemoryRegion(
            name=_text(path, region, "name"),
            start_address=_size(path, region, "start_address"),
            size_bytes=_size(path, region, "size_bytes"),
        )
        for region in regions
    )
