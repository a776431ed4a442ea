"""Names of classes: one a line, as many as outputs; everything else is one sentence."""

from pathlib import Path

import pytest

from nettrim.class_names import load_class_names
from nettrim_runtime.errors import DataError


def test_names_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n dog \nKüken\n".encode())
    assert load_class_names(path, 3) == ("cat", "dog", "Küken")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"cat\ndog\n", "holds 2 lines, the network has 3 outputs"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_class_names(path, 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: cannot be read \(No such file"):
        load_class_names(tmp_path / "none.txt", 3)
