"""Where the solver computes: NumPy, or torch on the CPU or a GPU, through the Python array API."""

from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from nettrim.errors import UsageError
from nettrim_runtime.graph import Array

BACKENDS = ("numpy", "torch", "torch:cuda")


@dataclass(frozen=True)
class Backend:
    """One array library on one device.

    Attributes
    ----------
    xp : module
        The library's array API namespace (https://data-apis.org/array-api/2023.12/).
    device : Any
        Where its arrays live.
    threads_itself : bool
        Whether the library spreads an operation over cores; NumPy's loops do not.
    """

    xp: Any
    device: Any
    threads_itself: bool

    def load(self, array: Array) -> Any:  # an array of the library
        """Return a NumPy array as one of the library; on the CPU it may share memory."""
        return self.xp.asarray(array, device=self.device)

    def read(self, array: Any) -> Array:  # as above
        """Return an array of the library as NumPy's."""
        return np.asarray(array.cpu() if hasattr(array, "cpu") else array)


def find_backend(name: str) -> Backend:
    """Return a backend by its name.

    Raises
    ------
    UsageError
        When it is not known, or its library or device is absent.
    """
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r} is not known, expected one of: {', '.join(BACKENDS)}")
    if name == "numpy":
        return Backend(array_api_compat.array_namespace(np.empty(0)), "cpu", threads_itself=False)
    try:
        import torch  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise UsageError(f"backend {name!r} needs PyTorch, which is not installed: pip install torch") from error
    device = "cuda" if name.endswith(":cuda") else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("backend 'torch:cuda' needs a CUDA device, found none: take 'torch' or 'numpy'")
    return Backend(array_api_compat.array_namespace(torch.empty(0)), device, threads_itself=True)
