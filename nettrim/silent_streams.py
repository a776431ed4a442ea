"""Standard output and error that libraries in C++ write their remarks to."""

import contextlib
import os
from collections.abc import Iterator

STANDARD_STREAMS = (1, 2)  # POSIX: output and error


@contextlib.contextmanager
def silent_streams() -> Iterator[None]:
    """Send what C++ writes into standard output and error nowhere."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  a device
        kept = {descriptor: os.dup(descriptor) for descriptor in STANDARD_STREAMS if _is_open(descriptor)}
        for descriptor in kept:
            os.dup2(nowhere.fileno(), descriptor)
        try:
            yield
        finally:
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)
                os.close(copy)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
