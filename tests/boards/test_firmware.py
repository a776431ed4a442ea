"""The microcontroller firmware, in QEMU's board with the same memory map and serial port."""

import subprocess
from pathlib import Path

import pytest

from nettrim.toolchain import link_firmware, need_tool
from nettrim_boards.board import FIRMWARE_FOLDER, Board, load_board
from tests.boards.need_tools import need_tools
from tests.boards.tiny_model import write_tiny_model

NUCLEO = load_board("nucleo-f446re")


@pytest.mark.slow
@pytest.mark.parametrize(("golden", "verdict"), [(127, "passed"), (126, "FAILED")])
def test_firmware_says_the_selftests_verdict_on_the_serial_line(golden: int, verdict: str, tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
    firmware = tmp_path / "firmware.elf"
    link_firmware(NUCLEO, write_tiny_model(tmp_path, golden=golden), "tiny", firmware)
    command = [need_tool("qemu-system-arm"), *NUCLEO.emulator_options, "-kernel", firmware]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        line = emulator.stdout.readline()
        emulator.kill()
    assert line.strip() == f"nettrim selftest: {verdict}"


@pytest.mark.slow
def test_firmware_compiles_without_a_warning(tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size")
    strict_flags = (*NUCLEO.compile_flags, "-Wall", "-Wextra", "-Wconversion", "-Werror")
    strict = Board(**{**vars(NUCLEO), "compile_flags": strict_flags})
    link_firmware(strict, write_tiny_model(tmp_path), "tiny", tmp_path / "firmware.elf")


@pytest.mark.slow
def test_firmware_starts_with_stack_pointer_and_reset_vector(tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size", "arm-none-eabi-objcopy")
    firmware, image = tmp_path / "firmware.elf", tmp_path / "firmware.bin"
    size = link_firmware(NUCLEO, write_tiny_model(tmp_path), "tiny", firmware)
    subprocess.run([need_tool("arm-none-eabi-objcopy"), "-O", "binary", firmware, image], check=True)
    words = [int.from_bytes(image.read_bytes()[start : start + 4], "little") for start in (0, 4)]
    assert words[0] % 8 == 0  # the procedure call standard's stack alignment
    assert NUCLEO.ram_regions[0].start_address < words[0] <= NUCLEO.ram_regions[0].start_address + NUCLEO.ram_bytes
    assert words[1] % 2 == 1  # Thumb
    assert image.stat().st_size == size.flash_bytes


def test_every_microcontroller_has_its_firmware_folder() -> None:
    assert {path.name for path in FIRMWARE_FOLDER.iterdir() if path.is_dir()} == {NUCLEO.name}
