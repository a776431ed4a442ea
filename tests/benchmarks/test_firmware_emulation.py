"""Counting instructions of firmware: repeatable, exact, refused when the self-test fails."""

from pathlib import Path

import pytest

from benchmarks.firmware_emulation import count_firmware_instructions
from nettrim.toolchain import ToolchainError, link_firmware
from nettrim_boards.board import load_board
from tests.boards.need_tools import need_tools
from tests.boards.tiny_model import write_tiny_model

NUCLEO = load_board("nucleo-f446re")


def _firmware(folder: Path, loop: str = "", golden: int = 127) -> Path:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm", "cc")
    model = write_tiny_model(folder, golden=golden) / "model.h"
    statement = "*(volatile uint8_t *)arena = 1;"
    model.write_text(model.read_text().replace(statement, f"{loop} {statement}"))
    firmware = folder / "firmware.elf"
    link_firmware(NUCLEO, folder, "tiny", firmware)
    return firmware


@pytest.mark.slow
def test_firmware_count_repeats_and_one_more_turn_of_a_loop_is_two_more_instructions(tmp_path: Path) -> None:
    counts = []
    for turns in (1000, 1001):
        loop = f'uint32_t turns = {turns}; __asm__ volatile("1: subs %0, %0, #1\\n\\tbne 1b" : "+r"(turns) : : "cc");'
        firmware = _firmware(tmp_path / str(turns), loop)
        repeats = {count_firmware_instructions(NUCLEO, firmware) for _ in range(2)}
        assert len(repeats) == 1
        counts += repeats
    assert counts[1] - counts[0] == 2
    assert 0 <= counts[0] - 2000 <= 60  # the call, the three other statements, the comparison of the golden vector


@pytest.mark.slow
def test_firmware_whose_selftest_fails_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="expected 'nettrim selftest: passed'"):
        count_firmware_instructions(NUCLEO, _firmware(tmp_path, golden=126))
