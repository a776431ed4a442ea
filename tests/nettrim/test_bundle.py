import json
from pathlib import Path

import pytest

from nettrim.bundle import check_output, new_bundle, read_manifest, verify_bundle, write_manifest
from nettrim.errors import UsageError, VerificationError
from nettrim_runtime.errors import ModelFileError


def write(folder: Path, text: str = "weights") -> None:
    with new_bundle(folder, force=True) as partial:
        (partial / "model.bin").write_text(text)
        write_manifest(partial, {"board": "rpi4", "tool": {"name": "nettrim"}})


def test_a_finished_bundle_is_in_place_and_verifies(tmp_path: Path) -> None:
    write(tmp_path / "out")
    assert verify_bundle(tmp_path / "out") == 1
    assert read_manifest(tmp_path / "out")["board"] == "rpi4"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing_behind_and_the_old_bundle_alone(tmp_path: Path) -> None:
    write(tmp_path / "out")

    def fail() -> None:
        with new_bundle(tmp_path / "out", force=True) as partial:
            (partial / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert verify_bundle(tmp_path / "out") == 1


def test_a_new_bundle_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "bench.json").write_text("{}")
    write(tmp_path / "out", "new")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "model.bin"]
    assert (tmp_path / "out" / "model.bin").read_text() == "new"


def test_a_changed_a_missing_and_an_added_file_are_named(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "model.bin").write_text("tampered")
    (tmp_path / "out" / "more").write_text("")
    with pytest.raises(VerificationError, match=r"more is not in the manifest; model\.bin has changed"):
        verify_bundle(tmp_path / "out")
    (tmp_path / "out" / "model.bin").unlink()
    with pytest.raises(VerificationError, match=r"model\.bin is missing"):
        verify_bundle(tmp_path / "out")


def test_measurements_lie_outside_the_hashes(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / "bench.json").write_text("{}")
    assert verify_bundle(tmp_path / "out") == 1


def test_a_folder_in_use_is_refused_without_force(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(UsageError, match="exists and is not empty; give --force"):
        check_output(tmp_path / "out", force=False)
    check_output(tmp_path / "out", force=True)


def test_force_does_not_replace_what_is_no_deployment(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is no deployment, so --force does not replace it"):
        check_output(tmp_path, force=True)


def test_force_deletes_neither_a_foreign_manifest_nor_a_users_files(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is no deployment"):
        check_output(tmp_path / "app", force=True)
    write(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"also holds notes\.txt"):
        check_output(tmp_path / "out", force=True)


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write_late() -> None:
        with new_bundle(tmp_path / "out", force=False) as partial:
            (partial / "model.bin").write_text("weights")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="exists and is not empty"):
        write_late()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_output(tmp_path / "out", force=False)
    write(tmp_path / "out")
    assert verify_bundle(tmp_path / "out") == 1


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        check_output(tmp_path / "out", force=True)


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        check_output(tmp_path / "file" / "out", force=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no manifest\.json"),
        ("{", "not readable JSON"),
        (json.dumps({"schema_version": 9}), "schema_version is 9, expected 1"),
    ],
)
def test_a_folder_that_nettrim_did_not_write_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelFileError, match=message):
        verify_bundle(tmp_path)


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("")
    with pytest.raises(ModelFileError, match=r"model\.onnx: no manifest\.json, expected a folder that nettrim-deploy"):
        verify_bundle(tmp_path / "model.onnx")
