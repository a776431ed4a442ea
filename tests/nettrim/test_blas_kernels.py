"""NumPy runs on the kernels that the CPU can run."""

import os
import subprocess
import sys

import pytest

from nettrim.blas_kernels import AVX512_FLAGS, AVX512_KERNELS, VARIABLE, missed_kernels

FLAGS = " ".join(sorted(AVX512_FLAGS))
ASK = (
    "import os, nettrim, numpy, threadpoolctl; from nettrim.blas_kernels import VARIABLE; "
    "print(threadpoolctl.threadpool_info()[0].get('architecture'), os.environ.get(VARIABLE))"
)


def cpu_info(vendor: str = "AuthenticAMD", family: int = 26, flags: str = FLAGS) -> str:
    return f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 2\nflags\t\t: fpu {flags}\n"


def test_zen_5_is_told_to_take_avx512_kernels() -> None:
    assert missed_kernels(cpu_info()) == AVX512_KERNELS


@pytest.mark.parametrize(
    "text",
    [cpu_info("GenuineIntel"), cpu_info(family=25), cpu_info(flags="avx512f avx2"), "", "model name : Cortex-A72"],
)
def test_any_other_cpu_is_left_to_openblas(text: str) -> None:
    assert missed_kernels(text) is None


def ask(**variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    return subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.slow
def test_numpy_takes_the_kernels_and_the_environment_stays_as_it_was() -> None:
    kernels, left = ask()
    assert left == "None"
    assert missed_kernels() in {None, kernels}


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="Nehalem is an x86 CPU")
def test_a_choice_in_the_environment_stands() -> None:
    assert ask(**{VARIABLE: "Nehalem"}) == ["Nehalem", "Nehalem"]
