"""A deployment folder: written whole or not at all, every file hashed in manifest.json."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nettrim.errors import UsageError, VerificationError
from nettrim_runtime.errors import ModelFileError

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
MEASUREMENTS = "bench.json"  # lies beside the hashed files: it differs from run to run


def check_output(folder: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder that could not be written or would overwrite something.

    Raises
    ------
    UsageError
        When the folder exists and ``force`` is off, holds something that is not a deployment, or
        its parent cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is not a folder; choose another --output")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"{folder} exists and is not empty; give --force to replace it, or another --output")
        _check_replaceable(folder)
    parent = _existing_parent(folder)
    if not os.access(parent, os.W_OK | os.X_OK) or not _can_create_in(parent):
        raise UsageError(f"{folder} cannot be written: {parent} does not allow it; choose another --output")


@contextmanager
def new_bundle(folder: Path, *, force: bool) -> Iterator[Path]:
    """Give a fresh folder to fill; it takes ``folder``'s place when the block ends, and vanishes if it fails.

    Raises
    ------
    UsageError
        When the disk refuses, or ``check_output`` would by now.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}; choose another --output") from error
    try:
        partial.chmod(0o755)
        yield partial
        check_output(folder, force=force)  # once more: minutes have passed
        _take_place(partial, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror} ({error.filename})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write manifest.json: the facts, and size and SHA-256 of every file in the folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in _files(folder)
    }
    write_json(folder / MANIFEST, {"schema_version": MANIFEST_VERSION, **facts, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a deployment's manifest.json.

    Raises
    ------
    ModelFileError
        When it is absent, not JSON, or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileError(f"{folder}: no {MANIFEST}, expected a folder that nettrim-deploy wrote") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != MANIFEST_VERSION:
        found = manifest.get("schema_version") if isinstance(manifest, dict) else type(manifest).__name__
        raise ModelFileError(
            f"{path}: schema_version is {found!r}, expected {MANIFEST_VERSION}; deploy the model again"
        )
    tool, files = manifest.get("tool"), manifest.get("files")
    if not isinstance(tool, dict) or tool.get("name") != "nettrim" or not isinstance(manifest.get("board"), str):
        raise ModelFileError(f"{path}: not a manifest that nettrim wrote")
    if not isinstance(files, dict) or not all(
        isinstance(facts, dict) and "sha256" in facts for facts in files.values()
    ):
        raise ModelFileError(f"{path}: its list of files is damaged; deploy the model again")
    return manifest


def verify_bundle(folder: Path) -> int:
    """Check that a deployment holds exactly the files of its manifest, and return their number.

    Raises
    ------
    VerificationError
        Naming every file that is missing, changed or added.
    """
    expected = read_manifest(folder)["files"]
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is not in the manifest" for name in found if name not in expected]
    faults += [
        f"{name} has changed" for name in expected if name in found and _sha256(found[name]) != expected[name]["sha256"]
    ]
    if faults:
        raise VerificationError(f"{folder}: {'; '.join(faults)}")
    return len(expected)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that reads well and is the same on every run."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _files(folder: Path) -> list[Path]:
    """Return the hashed files of a deployment, sorted."""
    left_out = {MANIFEST, MEASUREMENTS}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in left_out and "__pycache__" not in path.parts
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that nettrim did not write, or that holds more than it wrote."""
    try:
        manifest = read_manifest(folder)
    except ModelFileError as error:
        raise UsageError(f"{folder} is no deployment, so --force does not replace it ({error})") from error
    added = [path.name for path in _files(folder) if path.relative_to(folder).as_posix() not in manifest["files"]]
    if added:
        raise UsageError(f"{folder} also holds {', '.join(added[:5])}, which --force does not delete: move them first")


def _take_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    old = partial.with_suffix(".old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:  # Ctrl-C too: the earlier deployment comes back
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _existing_parent(folder: Path) -> Path:
    parent = folder.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent


def _can_create_in(parent: Path) -> bool:
    try:
        with tempfile.TemporaryDirectory(dir=parent):
            return True
    except OSError:
        return False
