"""How much a model file may make of its few bytes."""

import contextlib
import importlib
from pathlib import Path

from nettrim_runtime.errors import ModelFileError

MAX_FILE_BYTES = 1 << 30  # far above what the boards hold; keeps a hostile file from filling the memory
FLOAT_BYTES = 4  # what every weight takes once it is read
MAX_GROWTH = 4  # of a file's bytes to its tensors': one byte becomes one float
UNCOUNTED_BYTES = 64 << 20  # what a file may make of nothing: importing takes up to ten times as much
PROCESS_BYTES, PROCESS_GROWTH = 2 << 30, 10  # of a process that exports a program: torch, and its file so many times
MAX_JSON_BYTES = 16 << 20  # of a description alone: parsed, it takes many times as much


class ByteTotal:
    """What a file's tensors take in memory, all together, as they are read.

    Tensors of one storage, of strides of zero or never written count in full: each is copied sooner or later.

    Parameters
    ----------
    path : Path
        The file.
    is_compressed : bool
        Whether the file may be much smaller than its values: compressed, or with some of them in others.
    """

    def __init__(self, path: Path, *, is_compressed: bool = False) -> None:
        self.path, self.n_bytes = path, 0
        self.limit = MAX_FILE_BYTES
        if not is_compressed:
            self.limit = min(MAX_FILE_BYTES, max(UNCOUNTED_BYTES, MAX_GROWTH * path.stat().st_size))

    def add(self, name: object, n_bytes: int) -> None:
        """Count one more tensor.

        Raises
        ------
        ModelFileError
            When the tensors so far have more than `MAX_FILE_BYTES`, or far more than the file.
        """
        self.n_bytes += n_bytes
        if self.n_bytes > self.limit:
            raise ModelFileError(
                f"{self.path}: with tensor {name!r} the file's tensors have {self.n_bytes} bytes, more than a model may"
                f" hold ({self.limit}) in a file of this size; save it with contiguous tensors that share no memory"
            )


def check_json_size(path: Path, what: str, n_bytes: int) -> None:
    """Check that a description can be parsed.

    Raises
    ------
    ModelFileError
        When it has more than `MAX_JSON_BYTES`.
    """
    if n_bytes > MAX_JSON_BYTES:
        raise ModelFileError(
            f"{path}: {what} has {n_bytes} bytes, more than a model may hold ({MAX_JSON_BYTES}); save the model again"
        )


def limit_memory(file_bytes: int) -> None:
    """Let this process have only as much memory as exporting a file of a size takes, where the system can see to it."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = PROCESS_BYTES + PROCESS_GROWTH * file_bytes
    with contextlib.suppress(OSError, ValueError):  # systems that list the limit without having it
        resource.setrlimit(resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
