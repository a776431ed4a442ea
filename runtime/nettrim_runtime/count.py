"""Run a model between the marker instructions of the emulator's counter: python3 -m nettrim_runtime.count."""

import ctypes
import mmap
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nettrim_runtime.bench import load_samples
from nettrim_runtime.engine import prepare
from nettrim_runtime.errors import DataError, NettrimError
from nettrim_runtime.model_file import load_model

MACHINE = "aarch64"
BEGIN = bytes.fromhex("7b031baa")  # orr x27, x27, x27; see boards' emulator/instruction_counter.c
END = bytes.fromhex("9c031caa")  # orr x28, x28, x28
RETURN = bytes.fromhex("c0035fd6")


def count_runs(model: Path, samples: Path, output: Path) -> None:
    """Run every sample once, each run between two markers; the first run of all is not marked.

    Parameters
    ----------
    model : Path
        model.npz.
    samples : Path
        .npz with x: (n_samples, *input shape).
    output : Path
        Gets the outputs' raw bytes, one sample after the other.

    Raises
    ------
    DataError, ModelFileError
        When a file cannot be read, or this is not the machine whose instructions the markers are.
    """
    if platform.machine() != MACHINE:
        raise DataError(f"this machine is {platform.machine()}, expected {MACHINE}: the markers are its instructions")
    x = load_samples(samples)
    program = prepare(load_model(model), batch_size=1)
    program.run(x[:1])
    begin, end = markers()
    with output.open("wb") as stream:
        for index in range(len(x)):
            batch = x[index : index + 1]
            begin()
            outputs = program.run(batch)
            end()
            for values in outputs:
                stream.write(values.tobytes())


def markers() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return two functions: what runs between the first and the second is counted."""
    return _function(BEGIN), _function(END)


def main(arguments: Sequence[str]) -> int:
    """Run the program MODEL SAMPLES OUTPUT and print the versions."""
    try:
        count_runs(*map(Path, arguments))
    except NettrimError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"Python {platform.python_version()}, NumPy {np.__version__}\n")
    return 0


def _function(instruction: bytes) -> Callable[[], None]:
    """Return a function that executes one instruction and returns."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(instruction + RETURN)
    call = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return lambda _page=page: call()  # type: ignore[misc]  # the page lives as long as the function


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
