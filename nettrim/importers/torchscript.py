"""Reads TorchScript: its program is checked against a list of operators before torch opens it.

torch runs no Python from such a file, but the program in it can still write files: `torch.save` is one of its
operators. The check is of words, not of syntax, so that no second parser has to agree with torch's.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nettrim.importers.aten_operators import SCRIPT_HELPERS, TENSOR_OPERATORS
from nettrim.importers.memory_limit import FLOAT_BYTES, ByteTotal
from nettrim.importers.torch_file import TRUST_ADVICE, TRUST_NOTE
from nettrim.importers.torch_library import first_line, import_torch
from nettrim_runtime.errors import ModelFileError

WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
CUSTOM_CLASS = re.compile(rb"torch\s*\.\s*classes|torch\nclasses")  # C++ classes: what they do is not known
FORBIDDEN_WORDS = frozenset({"__setstate__", "classes"})  # runs while the file is opened; as above
NEEDED = re.compile(r"(data\.pkl|constants\.pkl|(\.data/)?version|byteorder|(data|constants)/\w+|code/.+\.py)")
ITEM_BYTES = {  # of the storages' names in the pickle
    **dict.fromkeys(("DoubleStorage", "LongStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("HalfStorage", "BFloat16Storage", "ShortStorage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage"), 1),
}
REBUILDERS = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_qtensor"})  # (storage, offset, sizes, ...)
NAMES_SHOWN = 5


def read_torchscript(path: Path, *, trust_pickle: bool) -> tuple[bytes, tuple[str, ...]]:
    """Return an archive of a file's program, checked, for torch.jit.load, and notes.

    Parameters
    ----------
    trust_pickle : bool
        Whether programs are opened that call operators outside the list.

    Raises
    ------
    ModelFileError
        When torch is missing, the file is damaged, or its program is not one of plain layers.
    """
    torch = import_torch(path)
    entries = _read_entries(path)
    found = sorted(_foreign_words(torch, entries))
    if found and not trust_pickle:
        shown = ", ".join(found[:NAMES_SHOWN]) + (
            f" and {len(found) - NAMES_SHOWN} more" if found[NAMES_SHOWN:] else ""
        )
        raise ModelFileError(
            f"{path}: this TorchScript program names {shown}, which is not among the operators of plain layers and"
            f" could do anything; export the model to ONNX; {TRUST_ADVICE}"
        )
    _check_storages(path, entries)
    return _rewritten(entries), (TRUST_NOTE,) if found else ()


def _read_entries(path: Path) -> dict[str, bytes]:
    """Return what torch needs of the archive, without the folder's name."""
    entries = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.partition("/")[2]
                if NEEDED.fullmatch(name):
                    entries[name] = archive.read(entry)
    except Exception as error:  # a damaged archive raises anything, from BadZipFile to NotImplementedError
        raise damaged(path, first_line(error)) from error
    return entries


def _foreign_words(torch: Any, entries: Mapping[str, bytes]) -> Iterator[str]:
    """Yield every operator outside the list whose name stands anywhere in the program, in strings and comments too."""
    operators = {schema.name.rpartition("::")[2] for schema in torch._C._jit_get_all_schemas()}  # noqa: SLF001
    foreign = (operators | FORBIDDEN_WORDS) - TENSOR_OPERATORS - SCRIPT_HELPERS
    words = {word for name, data in entries.items() if name.endswith(".py") for word in WORD.findall(data)}
    yield from {word.decode() for word in words} & foreign
    if any(CUSTOM_CLASS.search(data) for name, data in entries.items() if name.endswith(".pkl")):
        yield "torch.classes"


class _StorageNames(pickle._Unpickler):  # noqa: SLF001
    """Lists the storages that a pickle asks for and counts its tensors; every class in it becomes an empty shell.

    The one in Python, because that in C makes room for any memo index that a few bytes name.
    """

    def __init__(self, data: bytes, total: ByteTotal) -> None:
        super().__init__(io.BytesIO(data))
        self.total = total
        self.found: list[tuple[Any, ...]] = []

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in REBUILDERS:
            return self._rebuild
        return name if module == "torch" else _Shell

    def _rebuild(self, storage: tuple[Any, ...], _offset: Any, sizes: tuple[Any, ...], *_: Any) -> Any:
        _, kind, key, _, _ = storage
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError(f"tensor of shape {sizes}")
        self.total.add(key, math.prod(sizes) * max(ITEM_BYTES[kind], FLOAT_BYTES))
        return _Shell()

    def persistent_load(self, pid: Any) -> Any:
        self.found.append(pid)
        return pid


class _Shell:
    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _check_storages(path: Path, entries: Mapping[str, bytes]) -> None:
    """Check that each storage is as long as the pickle says: torch reads past the end of a short one.

    And that the tensors are not too many for the memory: strides of zero make a small storage stand for much.
    """
    total = ByteTotal(path)
    for folder in ("data", "constants"):
        reader = _StorageNames(entries.get(f"{folder}.pkl", b""), total)
        try:
            reader.load()
            lengths = [(key, count * ITEM_BYTES[kind]) for _, kind, key, _, count in reader.found]
            wrong = [key for key, length in lengths if len(entries[f"{folder}/{key}"]) != length]
        except ModelFileError:
            raise
        except Exception as error:  # a damaged pickle raises anything
            raise damaged(path, first_line(error)) from error
        if wrong:
            raise damaged(path, f"storage {folder}/{wrong[0]} is shorter or longer than its tensors")


def damaged(path: Path, reason: str) -> ModelFileError:
    """Return what to raise about a file that torch cannot open."""
    return ModelFileError(f"{path}: the TorchScript file is damaged ({reason}); save or copy it again")


def _rewritten(entries: Mapping[str, bytes]) -> bytes:
    """Return an archive of exactly what was checked: a name that stood twice in the file stands once."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()
