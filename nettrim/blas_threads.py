"""One BLAS thread, where many small products would spend more on threads than they gain."""

from contextlib import AbstractContextManager
from functools import cache

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which NumPy's and SciPy's products use one thread."""
    limited: AbstractContextManager[object] = _libraries().limit(limits=1)
    return limited


@cache
def _libraries() -> ThreadpoolController:
    """Look for the process's libraries once: it takes milliseconds, and fits of small layers come by the hundred."""
    import scipy.linalg  # noqa: F401, PLC0415  # loads a library of its own

    return ThreadpoolController()
