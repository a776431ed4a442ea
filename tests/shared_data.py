"""The real data sets and models beside the repository, for the tests that need them."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """Return a file of ../shared/data; without that folder skip the test, or fail it in CI."""
    path = SHARED_DATA / name
    if not path.exists():
        message = f"{path} is absent: this test needs the shared data sets"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
