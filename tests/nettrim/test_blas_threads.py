"""One BLAS thread inside, and the number from before outside again."""

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from nettrim.blas_threads import one_blas_thread


def _threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    np.linalg.solve(np.eye(3), np.ones(3))  # NumPy's library is loaded
    for before in (2, 3):
        with threadpool_limits(limits=before, user_api="blas"):
            with one_blas_thread():
                assert _threads() == {1}
            assert _threads() == {before}
