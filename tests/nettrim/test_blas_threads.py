"""One BLAS thread inside, and the number from before outside again."""

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from nettrim.blas_threads import one_blas_thread


def _threads() -> dict[str, int]:
    return {
        library["filepath"]: library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    scipy.linalg.solve(np.eye(3), np.ones(3))  # the libraries of both are loaded
    for before in (2, 3):
        with threadpool_limits(limits=before, user_api="blas"):
            outside = _threads()
            with one_blas_thread():
                assert set(_threads().values()) == {1}
            assert _threads() == outside
            assert before in outside.values()  # some library, loaded by another test, may have room for fewer
