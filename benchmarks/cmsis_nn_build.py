"""CMSIS-NN from a checkout of its repository, compiled for this machine or for an emulated Cortex-M, and run."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cmsis_nn_calls import Array, Call
from nettrim.toolchain import ToolchainError, need_tool, run_tool
from nettrim_runtime.errors import DataError

HERE = Path(__file__).parent
HEADER = Path("Include", "arm_nnfunctions.h")
NOT_INTEGER = ("_f16", "_f32")  # ends of the names of sources in floating point
FLAGS = ("-std=gnu11", "-O2", "-w")
EMULATED_FLAGS = ("-mthumb", "--specs=rdimon.specs", "-Wl,--section-start=.vectors=0")
RUN_TIMEOUT_S = 300.0
SINGLE_ROUNDING = "-DCMSIS_NN_USE_SINGLE_ROUNDING"


@dataclass(frozen=True)
class Processor:
    """Where the functions run; ``machine`` is an emulated board's name in QEMU, None stands for this machine."""

    name: str
    machine: str | None = None
    flags: tuple[str, ...] = ()


PROCESSORS = (
    Processor("C, no extension"),
    Processor("Cortex-M4 (DSP)", "mps2-an386", ("-mcpu=cortex-m4", "-mfloat-abi=soft")),
    Processor("Cortex-M55 (Helium)", "mps3-an547", ("-mcpu=cortex-m55", "-mfloat-abi=hard")),
)


def build_calls(checkout: Path, processor: Processor, folder: Path, *, rounds_once: bool = False) -> Path:
    """Compile the library and cmsis_nn_calls.c into a program in ``folder``.

    Raises
    ------
    DataError
        ``checkout`` does not hold CMSIS-NN.
    MissingToolError, ToolchainError
        As `nettrim.toolchain.run_tool`.
    """
    if not (checkout / HEADER).is_file():
        raise DataError(f"{checkout}: no {HEADER} in it, expected a checkout of github.com/ARM-software/CMSIS-NN")
    sources = [path for path in sorted(checkout.glob("Source/*/*.c")) if not path.stem.endswith(NOT_INTEGER)]
    program = folder / "calls"
    own = [HERE / "cmsis_nn_calls.c"]
    flags = [*FLAGS, *processor.flags, *([SINGLE_ROUNDING] if rounds_once else [])]
    compiler = "cc"
    if processor.machine is not None:
        compiler = "arm-none-eabi-gcc"
        own.append(HERE / "cmsis_nn_start.c")
        flags += EMULATED_FLAGS
        need_tool("qemu-system-arm")
    run_tool(compiler, [*flags, "-I", checkout / "Include", *own, *sources, "-o", program])
    return program


def run_calls(program: Path, processor: Processor, calls: Sequence[Call]) -> list[Array]:
    """Return each call's outputs, (n_samples, *output shape) of its inputs' type; files lie beside the program.

    Raises
    ------
    ToolchainError
        CMSIS-NN refuses a call, or outputs are missing.
    """
    folder = program.parent
    (folder / "calls.bin").write_bytes(b"".join(call.to_bytes() for call in calls))
    command: list[str | Path] = [program]
    if processor.machine is not None:
        emulator = need_tool("qemu-system-arm")
        command = [emulator, "-M", processor.machine, "-nographic", "-semihosting", "-kernel", program]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)
    if finished.returncode != 0:
        raise ToolchainError(f"{processor.name}: the calls fail: {finished.stderr.strip()}")
    return split_outputs((folder / "outputs.bin").read_bytes(), calls)


def split_outputs(content: bytes, calls: Sequence[Call]) -> list[Array]:
    """Return the outputs of calls that lie one behind the other.

    Raises
    ------
    ToolchainError
        There are more or fewer bytes.
    """
    expected = sum(call.n_outputs * call.first.itemsize for call in calls)
    if len(content) != expected:
        raise ToolchainError(f"the calls gave {len(content)} bytes, expected {expected}")
    outputs, start = [], 0
    for call in calls:
        values = np.frombuffer(content, call.first.dtype, call.n_outputs, start)
        outputs.append(values.reshape(len(call.first), *call.output_shape))
        start += values.nbytes
    return outputs
