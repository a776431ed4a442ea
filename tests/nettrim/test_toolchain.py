"""Compilers and emulators, on a hand-written model."""

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nettrim.errors import DoesNotFitError
from nettrim.toolchain import (
    MissingToolError,
    ToolchainError,
    compile_bench,
    compiler_version,
    count_instructions,
    link_firmware,
    need_tool,
    run_binary,
)
from nettrim_boards.board import Board, load_board
from tests.boards.need_tools import need_tools
from tests.boards.tiny_model import LOOP_TURNS, tiny_outputs, write_tiny_model

HOST = load_board("host")
RPI4 = load_board("rpi4")
NUCLEO = load_board("nucleo-f446re")

CALL_INSTRUCTIONS = 40  # around the hand-counted loop: call and return, arguments, the three other statements


def _need_rpi4() -> None:
    need_tools("aarch64-linux-gnu-gcc", "qemu-aarch64", "cc")


def _samples(path: Path, count: int = 20) -> np.ndarray:
    samples = np.random.default_rng(0).integers(-128, 128, (count, 3), dtype=np.int8)
    path.write_bytes(samples.tobytes())
    return samples


@pytest.mark.slow
@pytest.mark.parametrize("board", [HOST, RPI4], ids=lambda board: board.name)
def test_built_program_gives_the_expected_bytes_for_any_number_of_samples(board: Board, tmp_path: Path) -> None:
    need_tools("cc") if board is HOST else _need_rpi4()
    program = compile_bench(board, write_tiny_model(tmp_path), "tiny", tmp_path / "bench")
    samples = _samples(tmp_path / "in")
    finished = run_binary(board, program, ["run", tmp_path / "in", tmp_path / "out"])
    assert (finished.returncode, finished.stderr) == (0, "")
    assert (tmp_path / "out").read_bytes() == tiny_outputs(samples).tobytes()
    (tmp_path / "in").write_bytes(b"")
    assert run_binary(board, program, ["run", tmp_path / "in", tmp_path / "out"]).returncode == 0
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.slow
def test_selftest_says_whether_the_golden_vector_came_out(tmp_path: Path) -> None:
    need_tools("cc")
    for golden, status in ((127, 0), (126, 1)):
        folder = write_tiny_model(tmp_path / str(golden), golden=golden)
        program = compile_bench(HOST, folder, "tiny", folder / "bench")
        assert run_binary(HOST, program, ["selftest"]).returncode == status


@pytest.mark.slow
def test_timing_prints_every_window_and_both_checksums(tmp_path: Path) -> None:
    need_tools("cc")
    program = compile_bench(HOST, write_tiny_model(tmp_path, arena=0), "tiny", tmp_path / "bench")
    samples = _samples(tmp_path / "in")
    finished = run_binary(HOST, program, ["time", "0.05", tmp_path / "in", "3"])
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    kinds = ["first_run", "warm_up", "result", "memory", "window", "window", "window"]
    assert sorted(event["event"] for event in events) == sorted(kinds)
    windows = [event for event in events if event["event"] == "window"]
    for window in windows:
        assert window["seconds"] >= 0.05
        assert 0 < window["min_ns"] <= window["p50_ns"] <= window["p90_ns"] <= window["p99_ns"]
    (result,) = (event for event in events if event["event"] == "result")
    assert result["samples"] == 20
    assert int(result["input_crc32"], 16) == zlib.crc32(samples.tobytes())
    assert int(result["output_crc32"], 16) == zlib.crc32(tiny_outputs(samples).tobytes())


@pytest.mark.slow
def test_program_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    need_tools("cc")
    program = compile_bench(HOST, write_tiny_model(tmp_path), "tiny", tmp_path / "bench")
    (tmp_path / "odd").write_bytes(b"1234")
    (tmp_path / "empty").write_bytes(b"")
    refused: list[list[str | Path]] = [
        [],
        ["unknown"],
        ["run", tmp_path / "odd", tmp_path / "out"],
        ["run", tmp_path / "absent", tmp_path / "out"],
        ["run", tmp_path / "empty", tmp_path / "no folder" / "out"],
        ["time", "0.01", tmp_path / "odd"],
        ["time", "0.01", tmp_path / "empty"],
        ["time", "nan", tmp_path / "odd"],
        ["time", "0.01", tmp_path / "odd", "0"],
    ]
    for args in refused:
        finished = run_binary(HOST, program, args)
        assert finished.returncode == 2, args
        assert len(finished.stderr.splitlines()) == 1, args


@pytest.mark.slow
def test_benchmark_main_compiles_without_a_warning(tmp_path: Path) -> None:
    need_tools("cc")
    folder = write_tiny_model(tmp_path)
    strict = Board(**{**vars(HOST), "compile_flags": ("-Wall", "-Wextra", "-Wconversion", "-Werror")})
    compile_bench(strict, folder, "tiny", folder / "bench")


@pytest.mark.slow
@pytest.mark.parametrize("build", [partial(compile_bench, RPI4), partial(link_firmware, NUCLEO)])
def test_same_model_in_another_folder_gives_the_same_program(build: Callable[..., object], tmp_path: Path) -> None:
    need_tools("aarch64-linux-gnu-gcc", "arm-none-eabi-gcc", "arm-none-eabi-size")
    programs = []
    for folder in (tmp_path / "a", tmp_path / "b" / "longer"):
        build(write_tiny_model(folder), "tiny", folder / "program")
        programs.append((folder / "program").read_bytes())
    assert programs[0] == programs[1]
    assert str(tmp_path).encode() not in programs[0]


@pytest.mark.slow
def test_instruction_count_equals_the_hand_counted_loop_and_repeats(tmp_path: Path) -> None:
    _need_rpi4()
    folder = write_tiny_model(tmp_path)
    program = compile_bench(RPI4, folder, "tiny", folder / "bench")
    _samples(tmp_path / "in")
    args = ["run", tmp_path / "in", tmp_path / "out"]
    counts = {count_instructions(RPI4, program, args).instructions for _ in range(2)}
    assert len(counts) == 1
    assert 0 <= counts.pop() - 2 * LOOP_TURNS <= CALL_INSTRUCTIONS


@pytest.mark.slow
def test_one_more_turn_of_the_loop_is_two_more_instructions(tmp_path: Path) -> None:
    _need_rpi4()
    _samples(tmp_path / "in", count=1)
    counts = []
    for turns in (LOOP_TURNS, LOOP_TURNS + 1):
        folder = write_tiny_model(tmp_path / str(turns), turns=turns)
        program = compile_bench(RPI4, folder, "tiny", folder / "bench")
        counts.append(count_instructions(RPI4, program, ["run", tmp_path / "in", tmp_path / "out"]).instructions)
    assert counts[1] - counts[0] == 2


@pytest.mark.slow
def test_count_of_a_program_that_fails_or_never_runs_the_model_is_refused(tmp_path: Path) -> None:
    _need_rpi4()
    program = compile_bench(RPI4, write_tiny_model(tmp_path), "tiny", tmp_path / "bench")
    with pytest.raises(ToolchainError, match=r"status 2.*bench: .*absent"):
        count_instructions(RPI4, program, ["run", tmp_path / "absent", tmp_path / "out"])
    (tmp_path / "in").write_bytes(b"")
    with pytest.raises(ToolchainError, match="never ran the model"):
        count_instructions(RPI4, program, ["run", tmp_path / "in", tmp_path / "out"])


@pytest.mark.slow
def test_firmware_links_and_its_size_counts_arena_and_stack(tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size")
    sizes = {}
    for arena in (1024, 9216):
        folder = write_tiny_model(tmp_path / str(arena), arena=arena)
        sizes[arena] = link_firmware(NUCLEO, folder, "tiny", folder / "firmware.elf")
    assert sizes[9216].ram_bytes - sizes[1024].ram_bytes == 8192
    assert sizes[1024].ram_bytes >= 1024 + 4096  # arena and stack
    assert 113 * 4 < sizes[1024].flash_bytes < 4096  # the vector table and little else
    assert (tmp_path / "1024" / "firmware.elf").read_bytes()[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize(("too_much", "region"), [({"arena": 128 * 1024}, "RAM"), ({"ballast": 512 * 1024}, "FLASH")])
def test_firmware_that_overflows_the_board_does_not_fit(too_much: dict[str, int], region: str, tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size")
    folder = write_tiny_model(tmp_path, **too_much)
    with pytest.raises(DoesNotFitError, match=region) as caught:
        link_firmware(NUCLEO, folder, "tiny", folder / "firmware.elf")
    assert caught.value.exit_code == 4


def test_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=r"aarch64-linux-gnu-gcc.*apt install gcc-aarch64-linux-gnu") as caught:
        compile_bench(RPI4, tmp_path, "tiny", tmp_path / "bench")
    assert caught.value.exit_code == 6
    with pytest.raises(MissingToolError, match=r"unheard-of.*apt install unheard-of"):
        need_tool("unheard-of")


def test_compile_error_shows_the_compilers_words(tmp_path: Path) -> None:
    need_tools("cc")
    (tmp_path / "model.h").write_text("#error the model is broken\n")
    with pytest.raises(ToolchainError, match="the model is broken"):
        compile_bench(HOST, tmp_path, "tiny", tmp_path / "bench")


@pytest.mark.slow
def test_model_without_a_golden_vector_is_refused(tmp_path: Path) -> None:
    need_tools("cc")
    folder = write_tiny_model(tmp_path)
    text = (folder / "model.h").read_text().replace("HAS_SELFTEST 1", "HAS_SELFTEST 0")
    (folder / "model.h").write_text(text)
    with pytest.raises(ToolchainError, match="has no golden vector"):
        compile_bench(HOST, folder, "tiny", folder / "bench")


def test_program_and_firmware_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no operating system"):
        compile_bench(NUCLEO, tmp_path, "tiny", tmp_path / "bench")
    with pytest.raises(ToolchainError, match="no firmware for board 'rpi4'"):
        link_firmware(RPI4, tmp_path, "tiny", tmp_path / "firmware.elf")
    with pytest.raises(ToolchainError, match="no emulator"):
        run_binary(NUCLEO, tmp_path / "firmware.elf", [])


def test_compiler_says_its_version() -> None:
    need_tools("cc")
    assert any(character.isdigit() for character in compiler_version(HOST))


@pytest.mark.slow
def test_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\nsleep 30 &\necho $! > {tmp_path}/pid\nwait\n")
    script.chmod(0o755)
    with pytest.raises(ToolchainError, match=r"slow took longer than 0\.5 s"):
        run_binary(HOST, script, [], timeout_s=0.5)
    assert _is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_child_dies_with_ctrl_c(tmp_path: Path) -> None:
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 30\n")
    script.chmod(0o755)
    code = (
        "import pathlib, sys\nfrom nettrim.toolchain import run_binary\nfrom nettrim_boards.board import load_board\n"
        "run_binary(load_board('host'), pathlib.Path(sys.argv[1]), [])"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(script)], stderr=subprocess.DEVNULL) as parent:
        while not (tmp_path / "pid").exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(2)
    assert parent.returncode != 0
    assert _is_gone(int((tmp_path / "pid").read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.01)
    return False
