"""TorchScript exported in a process of its own: a program can run for ever, and fill the memory."""

import errno
import io
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nettrim.importers.memory_limit import limit_memory
from nettrim.importers.onnx_file import has_branches
from nettrim.importers.torch_export import EXAMPLE_BATCH, export_script, run_module_on
from nettrim.importers.torch_library import first_line, import_torch
from nettrim.importers.torch_network import ExportedModule, example_samples
from nettrim.importers.torchscript import damaged
from nettrim.toolchain import ToolchainError, run_module
from nettrim_runtime.errors import ModelFileError

TIME_LIMIT_S = 180.0  # exporting ResNet-50 takes 10 s on a laptop
LARGEST_FILE_BYTES = 2 << 30
SCRIPT, NETWORK, OUTPUTS, ERROR = "script.pt", "network.onnx", "outputs.npy", "error.txt"
LOOP_ADVICE = "a loop in it may have no end, or it takes too much memory; export the model to ONNX"


def export_apart(path: Path, archive: bytes, input_shape: tuple[int, ...]) -> ExportedModule:
    """Return the network of a TorchScript archive.

    Parameters
    ----------
    path : Path
        The file that the archive comes from, for error messages.
    archive : bytes
        Its program, checked.
    input_shape : tuple of int
        The shape of one sample, without the batch axis.

    Raises
    ------
    ModelFileError
        When the archive is damaged, torch cannot export its program, or that does not end.
    """
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        folder = Path(scratch)
        (folder / SCRIPT).write_bytes(archive)
        shape = ",".join(map(str, input_shape))
        try:
            finished = run_module(__name__, [folder, path, shape], TIME_LIMIT_S)
        except ToolchainError as error:
            raise ModelFileError(
                f"{path}: the program in the file has not ended after {TIME_LIMIT_S:g} s: {LOOP_ADVICE}"
            ) from error
        if (folder / ERROR).exists():
            raise ModelFileError((folder / ERROR).read_text(encoding="utf-8"))
        if finished.returncode > 0:
            raise RuntimeError(f"{path}: exporting TorchScript failed: {finished.stderr}")
        if finished.returncode < 0:
            raise ModelFileError(
                f"{path}: the program in the file ended its process (signal {-finished.returncode}): {LOOP_ADVICE}"
            )
        outputs = np.load(folder / OUTPUTS, allow_pickle=False)
        return ExportedModule(lambda _: outputs, (folder / NETWORK).read_bytes(), input_shape, outputs.shape[0])


def main(arguments: Sequence[str]) -> int:
    """Export the script in a folder, the first argument; the others are its name in errors and the samples' shape.

    What comes out lies in the folder afterwards, or what is wrong.
    """
    folder, path, shape = Path(arguments[0]), Path(arguments[1]), tuple(map(int, arguments[2].split(",")))
    limit_memory((folder / SCRIPT).stat().st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES))
    try:
        _export(folder, path, shape)
    except MemoryError:
        (folder / ERROR).write_text(f"{path}: the program in the file takes too much memory", encoding="utf-8")
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        (folder / ERROR).write_text(f"{path}: the program in the file gives too large a network", encoding="utf-8")
    except ModelFileError as error:
        (folder / ERROR).write_text(str(error), encoding="utf-8")
    return 0


def _export(folder: Path, path: Path, shape: tuple[int, ...]) -> None:
    torch = import_torch(path)
    try:
        module = torch.jit.load(io.BytesIO((folder / SCRIPT).read_bytes()), map_location="cpu").float().eval()
    except Exception as error:
        raise damaged(path, first_line(error)) from error
    data, n_samples = export_script(path, module, shape), EXAMPLE_BATCH
    if has_branches(data):  # torch writes an If where it does not know a shape
        data, n_samples = export_script(path, module, shape, has_open_batch=False), 1
    (folder / NETWORK).write_bytes(data)
    np.save(folder / OUTPUTS, run_module_on(path, module, example_samples(n_samples, shape)))
