"""Which kernels NumPy's matrix products run on: OpenBLAS chooses when it is loaded, and misses one family of CPUs."""

import os
import re
import sys
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
AVX512_KERNELS, AVX512_FLAGS = "SkylakeX", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
# AMD Zen 5: OpenBLAS up to 0.3.31 takes it for a Haswell, at half the speed of its AVX-512 kernels
# (https://github.com/OpenMathLib/OpenBLAS/issues/6029).
MISSED_FAMILY = 26
CPU_INFO = Path("/proc/cpuinfo")


def load_numpy() -> None:
    """Load NumPy with the kernels that this CPU can run; without effect once NumPy is loaded.

    A choice of the user's in ``OPENBLAS_CORETYPE`` stands. The environment is left as it was, so that programs
    started later, emulated ones among them, choose for themselves.
    """
    kernels = None if "numpy" in sys.modules or VARIABLE in os.environ else missed_kernels()
    if kernels is None:
        return
    os.environ[VARIABLE] = kernels
    try:
        import numpy as np  # noqa: F401, PLC0415  # read the variable now
    finally:
        del os.environ[VARIABLE]


def missed_kernels(cpu_info: str | None = None) -> str | None:
    """Return the kernels that OpenBLAS should be told to take, or None where its own choice is right.

    Parameters
    ----------
    cpu_info : str or None
        What Linux says in ``/proc/cpuinfo``; None means this machine's, if it has one.
    """
    if cpu_info is None:
        cpu_info = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.exists() else ""
    fields = dict(re.findall(r"^(vendor_id|cpu family|flags)\s*: (.*)$", cpu_info, re.MULTILINE))
    is_missed = fields.get("vendor_id") == "AuthenticAMD" and fields.get("cpu family") == str(MISSED_FAMILY)
    return AVX512_KERNELS if is_missed and set(fields.get("flags", "").split()) >= AVX512_FLAGS else None
