"""What a network's classes are called: a text file, one name a line."""

from pathlib import Path

from nettrim_runtime.errors import DataError

LARGEST_BYTES = 1 << 20


def load_class_names(path: Path, n_classes: int) -> tuple[str, ...]:
    """Return the names in a text file, in the order of the classes.

    Raises
    ------
    DataError
        When the file cannot be read as text, or does not hold one name for each output.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes, expected a text file with one class name a line")
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text, expected one class name a line") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected one class name a line") from error
    if len(names) != n_classes:
        raise DataError(f"{path}: holds {len(names)} lines, the network has {n_classes} outputs: one name for each")
    empty = [number for number, name in enumerate(names, start=1) if not name]
    if empty:
        raise DataError(f"{path}: line {empty[0]} is empty, expected a class name")
    return names
