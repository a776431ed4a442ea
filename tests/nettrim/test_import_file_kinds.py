"""Files that are no model nettrim reads: named, with what to do, and nothing in them is executed."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nettrim.importers import load_model
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.torch_models import Marker, rewrite


def message(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.th"])
def test_marker_in_a_torch_pickle_never_appears(tmp_path: Path, name: str) -> None:
    path, marker = tmp_path / name, tmp_path / "marker"
    torch.save({"fc.weight": torch.zeros(2, 3)}, path)
    rewrite(path, {"data.pkl": pickle.dumps({"fc.weight": Marker(marker)}, protocol=2)})
    text = message(path)
    assert "a pickled object" in text
    assert f"it asks for {os.mkdir.__module__}.mkdir" in text
    assert "torch.save(model.state_dict()" in text
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.onnx"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_marker_in_a_plain_pickle_never_appears(tmp_path: Path, name: str, protocol: int) -> None:
    path, marker = tmp_path / name, tmp_path / "marker"
    path.write_bytes(pickle.dumps(Marker(marker), protocol=protocol))
    assert "this is a Python pickle" in message(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1])
def test_marker_in_a_pickle_without_signature_never_appears(tmp_path: Path, protocol: int) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Marker(marker), protocol=protocol))
    message(path)
    assert not marker.exists()


def test_tar_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    assert "tar archive" in message(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("these are not weights\n"), "this is a text file"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "a web page"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path: path.write_bytes(bytes(range(256)) * 8), "not an ONNX model"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(64)), "zip archive is damaged"),
        (lambda path: zipped(path, {"x.npy": b""}), "NumPy archive"),
        (lambda path: zipped(path, {"readme.txt": b""}), "zip archive without a model"),
        (lambda path: zipped(path, {"m/data.pkl": b"", "m/version": b"3"}), "PyTorch file is damaged"),
        (lambda path: path.mkdir(), "this is a folder"),
        (lambda _: None, "there is no such file"),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.onnx"])
def test_other_files_are_named_whatever_their_suffix(
    tmp_path: Path, name: str, write: Callable[[Path], Any], expected: str
) -> None:
    write(tmp_path / name)
    assert expected in message(tmp_path / name)


def test_saved_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    assert "SavedModel folder" in message(tmp_path)
    assert "SavedModel" in message(tmp_path / "saved_model.pb")


def test_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = zipped(tmp_path / "model.pt", {"m/data.pkl": b""})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", (1 << 32) - 2)  # the size that the directory claims
    path.write_bytes(data)
    assert "unpacks to 4294967294 bytes" in message(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_state_dict_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(20, 30), "bias": torch.zeros(20)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "damaged or cut short" in message(path)


def test_damaged_state_dict_gives_a_model_or_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_model(path)
        except ModelFileError as error:
            assert str(path) in str(error)  # noqa: PT017  not raising is right as well
