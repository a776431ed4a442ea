"""Tells what a model file is from its content; nothing in it is executed."""

import enum
import tarfile
import zipfile
from pathlib import Path

from nettrim.importers.memory_limit import MAX_FILE_BYTES
from nettrim.importers.safetensors_file import is_safetensors
from nettrim_runtime.errors import ModelFileError

HEAD_BYTES = 1024  # enough for every signature below
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # HDF5 file format specification, section II.A
TFLITE_IDENTIFIER = b"TFL3"  # TensorFlow Lite schema, file_identifier, at byte 4
PICKLE_PROTOCOLS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # opcode PROTO, then the version
LEGACY_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # torch/serialization.py MAGIC_NUMBER, as a pickle
READABLE = (
    "nettrim reads ONNX (.onnx), TensorFlow Lite (.tflite), PyTorch (.pt, .pth: state dict, module or TorchScript;"
    " .pt2), safetensors and Keras (.keras, .h5) files"
)
SAVED_MODEL_ADVICE = "save the model from Keras as model.keras, or convert the folder with tf2onnx to ONNX"
STATE_DICT_ADVICE = "save the weights with torch.save(model.state_dict(), 'model.pt'), or export the model to ONNX"


class FileKind(enum.Enum):
    """The kinds of file that can be read."""

    ONNX = "ONNX"
    TORCH_PICKLE = "PyTorch"
    TORCHSCRIPT = "TorchScript"
    EXPORT_ARCHIVE = "PyTorch export archive"
    SAFETENSORS = "safetensors"
    KERAS_H5 = "Keras HDF5"
    KERAS_ZIP = "Keras zip"
    TFLITE = "TensorFlow Lite"


def identify(path: Path) -> FileKind:
    """Return the kind of a model file, judged by its content.

    Raises
    ------
    ModelFileError
        When nettrim does not read this kind: the message names it and says what to do.
    """
    size = _size(path)
    head = _head(path)
    if size == 0:
        raise ModelFileError(f"{path}: the file is empty, expected a model; {READABLE}")
    if size > MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: the file has {size} bytes, expected at most {MAX_FILE_BYTES}")
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path)
    if head.startswith(HDF5_SIGNATURE):
        return FileKind.KERAS_H5
    if head[4:8] == TFLITE_IDENTIFIER:
        return FileKind.TFLITE
    if head[2:].startswith(LEGACY_TORCH_MAGIC):
        return FileKind.TORCH_PICKLE
    foreign = _foreign_kind(path, head)
    if foreign:
        raise ModelFileError(f"{path}: this is {foreign}. {READABLE}")
    if is_safetensors(path, size):
        return FileKind.SAFETENSORS
    return FileKind.ONNX  # protocol buffers have no signature: the ONNX reader judges the rest


def _size(path: Path) -> int:
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise ModelFileError(f"{path}: this is a TensorFlow SavedModel folder; {SAVED_MODEL_ADVICE}. {READABLE}")
        raise ModelFileError(f"{path}: this is a folder, expected one model file; {READABLE}")
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: there is no such file, expected a model; {READABLE}") from error
    except OSError as error:
        raise ModelFileError(f"{path}: the file cannot be read ({error.strerror})") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelFileError(f"{path}: the file cannot be read ({error.strerror})") from error


def _identify_zip(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: this zip archive is damaged or cut short ({error}); copy or save the model again"
        ) from error
    unpacked_bytes = sum(entry.file_size for entry in entries)
    if unpacked_bytes > MAX_FILE_BYTES:
        raise ModelFileError(
            f"{path}: the archive unpacks to {unpacked_bytes} bytes, expected at most {MAX_FILE_BYTES}"
        )
    names = [entry.filename for entry in entries]
    inner = [name.split("/", 1)[-1] for name in names]
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return FileKind.TORCHSCRIPT
    if "archive_format" in inner or "serialized_exported_program.json" in names:  # the latter before torch 2.8
        return FileKind.EXPORT_ARCHIVE
    if "data.pkl" in inner:
        return FileKind.TORCH_PICKLE
    if "config.json" in names and "model.weights.h5" in names:
        return FileKind.KERAS_ZIP
    raise ModelFileError(f"{path}: this is {_foreign_zip(names)}. {READABLE}")


def _foreign_zip(names: list[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz), which holds arrays without a network; give it to --data"
    return "a zip archive without a model in it"


def _foreign_kind(path: Path, head: bytes) -> str | None:
    if head.startswith(PICKLE_PROTOCOLS):
        return f"a Python pickle, which would run code when opened; {STATE_DICT_ADVICE}"
    if tarfile.is_tarfile(path):
        return f"a tar archive, as the oldest PyTorch wrote; load it with PyTorch and {STATE_DICT_ADVICE}"
    if path.name == "saved_model.pb":
        return f"a TensorFlow SavedModel; {SAVED_MODEL_ADVICE}"
    if _is_text(head):
        return _text_kind(head)
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = head[: HEAD_BYTES - 4].decode("utf-8")  # a character of 4 bytes may be cut at the end
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r" for character in text)


def _text_kind(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the model; fetch the file with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "a web page, probably saved in place of the model; download the file itself"
    return "a text file"
