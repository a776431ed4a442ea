"""Board files and their strict checks."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim_boards.board import (
    BOARDS_FOLDER,
    CHOICES,
    FACTS,
    FIRMWARE_FOLDER,
    TOOLCHAINS_FOLDER,
    BoardError,
    list_boards,
    load_board,
    read_board,
)

NUCLEO_TEXT = (BOARDS_FOLDER / "nucleo-f446re.toml").read_text()
ASSIGNMENTS = re.findall(r"^(\w+) = ", NUCLEO_TEXT, flags=re.MULTILINE)


def _read(folder: Path, text: str) -> object:
    path = folder / "nucleo-f446re.toml"
    path.write_text(text)
    return read_board(path)


def _replaced(key: str, line: str) -> str:
    assignment = rf"^{key} = (\[\n.*?\n\]|.*?)$"
    changed, count = re.subn(assignment, line, NUCLEO_TEXT, flags=re.MULTILINE | re.DOTALL)
    assert count == 1, key
    return changed


def _with_value(key: str, value: str) -> str:
    return _replaced(key, f"{key} = {value}")


def _without(key: str) -> str:
    return _replaced(key, "")


def test_boards_of_today_are_known_by_their_file_names() -> None:
    assert [board.name for board in list_boards()] == ["host", "nucleo-f446re", "rpi4"]
    assert load_board("rpi4") == read_board(BOARDS_FOLDER / "rpi4.toml")


def test_unknown_board_is_refused_with_the_list_and_the_nearest() -> None:
    with pytest.raises(BoardError, match=r"'rpi44'.*host, nucleo-f446re, rpi4; did you mean 'rpi4'\?") as caught:
        load_board("rpi44")
    assert caught.value.exit_code == 2
    with pytest.raises(BoardError, match=r"'RPI4'.*did you mean 'rpi4'\?"):
        load_board("RPI4")
    with pytest.raises(BoardError, match=r"expected one of: host, nucleo-f446re, rpi4$"):
        load_board("../rpi4.toml")


def test_every_given_fact_has_a_source() -> None:
    for board in list_boards():
        given_facts = {fact for fact in FACTS if getattr(board, fact) not in (None, ())}
        assert given_facts <= set(board.sources)
        assert all(board.sources.values())


def test_boards_say_what_their_datasheets_say() -> None:
    rpi4, nucleo = load_board("rpi4"), load_board("nucleo-f446re")
    assert (rpi4.cores, rpi4.clock_hz, rpi4.ram_bytes) == (4, 1_500_000_000, 1 << 30)
    assert (nucleo.cores, nucleo.clock_hz) == (1, 180_000_000)
    assert (nucleo.flash_bytes, nucleo.ram_bytes) == (512 * 1024, 128 * 1024)


def test_ram_regions_of_a_microcontroller_are_contiguous() -> None:
    first, second = load_board("nucleo-f446re").ram_regions
    assert first.start_address + first.size_bytes == second.start_address


def test_linker_script_has_the_board_files_sizes() -> None:
    for board in list_boards():
        if board.os == "none":
            script = (FIRMWARE_FOLDER / board.name / "memory.ld").read_text()
            memory = dict(
                re.findall(r"^    (\w+) \(\w+\) : ORIGIN = (0x\w+, LENGTH = \d+)$", script, flags=re.MULTILINE)
            )
            assert memory["FLASH"] == f"0x{board.flash_start_address:08x}, LENGTH = {board.flash_bytes}"
            assert memory["RAM"] == f"0x{board.ram_regions[0].start_address:08x}, LENGTH = {board.ram_bytes}"


def test_cmake_file_of_a_board_has_its_compile_flags() -> None:
    for board in list_boards():
        if board.toolchain != "native":
            assert " ".join(board.compile_flags) in (TOOLCHAINS_FOLDER / f"{board.toolchain}.cmake").read_text()


def test_board_file_that_is_complete_reads_without_a_fault(tmp_path: Path) -> None:
    assert _read(tmp_path, NUCLEO_TEXT) == load_board("nucleo-f446re")


@pytest.mark.parametrize("key", [key for key in ASSIGNMENTS if key not in ("emulator", "emulator_options")])
def test_board_file_without_a_key_it_needs_names_the_key(key: str, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=rf"nucleo-f446re\.toml: key '{key}' is missing"):
        _read(tmp_path, _without(key))


def test_microcontroller_needs_the_facts_that_its_firmware_is_linked_to(tmp_path: Path) -> None:
    for key in ("clock_hz", "flash_bytes", "flash_start_address"):
        text = re.sub(rf"^{key}_source = .*$", "", _without(key), flags=re.MULTILINE)
        with pytest.raises(BoardError, match=f"key '{key}' is missing, expected for a board without an operating"):
            _read(tmp_path, text)


@pytest.mark.parametrize("key", [*ASSIGNMENTS, "l2_bytes"])
@pytest.mark.parametrize("value", ["-1", "true", "1.5", '""', "[1]", "{ a = 1 }", "1979-05-27"])
def test_value_of_the_wrong_type_or_range_names_file_key_finding_and_expectation(
    key: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(BoardError, match=rf"nucleo-f446re\.toml: {key} is .*, expected "):
        _read(tmp_path, _with_value(key, value))


@pytest.mark.parametrize(
    ("key", "value", "finding"),
    [
        ("name", '"rpi4"', "expected the file's own name 'nucleo-f446re'"),
        ("os", '"zephyr"', "os is 'zephyr', expected one of"),
        ("upload", '"pigeon"', "upload is 'pigeon', expected one of"),
        ("toolchain", '"m68k-elf"', "expected one of .*'arm-none-eabi'"),
        ("ram_bytes", "131073", "ram_regions sum to 131072 bytes, expected ram_bytes = 131073"),
        ("ram_bytes", "0", "ram_bytes is 0, expected an integer of at least 1"),
        ("ram_regions", '[{ name = "sram1" }]', "expected a list of tables with the keys"),
    ],
)
def test_value_that_contradicts_is_refused(key: str, value: str, finding: str, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=finding):
        _read(tmp_path, _with_value(key, value))


def test_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"key 'clock_mhz' is unknown, expected 'clock_hz'\?"):
        _read(tmp_path, "clock_mhz = 180\n" + NUCLEO_TEXT)
    for choice in CHOICES:
        with pytest.raises(BoardError, match=f"key '{choice}_source' is unknown"):
            _read(tmp_path, f'{choice}_source = "here"\n' + NUCLEO_TEXT)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_board_file_is_refused_or_read_but_never_crashes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(NUCLEO_TEXT.encode())
    start = data.draw(st.integers(0, len(damaged) - 1))
    damaged[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.mktemp("damaged") / "nucleo-f446re.toml"
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(BoardError):
        read_board(path)


def test_absent_file_is_a_board_error(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"absent\.toml: cannot be read as TOML"):
        read_board(tmp_path / "absent.toml")
