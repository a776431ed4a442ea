"""Compiles rendered headers with a real compiler and runs them on many samples, natively or under an emulator."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nettrim_exporters.c_header import KERNELS_FILE, render_c_kernels
from nettrim_exporters.c_values import c_identifier

Array = npt.NDArray[Any]

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Werror", "-pedantic")
C99 = ("-std=c99", *WARNINGS)
CXX = ("-std=c++17", *WARNINGS)
COMPILE_TIMEOUT_S = 300
RUN_TIMEOUT_S = 300

# Reads samples from stdin, writes outputs to stdout; the arena holds other rubbish before every run.
MAIN = """
#include <stdio.h>
#include <stdlib.h>
{includes}
{runners}
int main(int argc, char **argv)
{{
    if (argc != 2) {{
        return 64;
    }}
    switch (atoi(argv[1])) {{
{cases}
    default:
        return 65;
    }}
}}
"""
RUNNER = """
static int run_{name}(void)
{{
    static NT_ALIGN16 int8_t arena[NT_{macro}_ARENA_BYTES];
    static int8_t in[NT_{macro}_INPUT_SIZE];
    static int8_t out[NT_{macro}_OUTPUT_SIZE];
    int rubbish = 1;
{selftest}
    while (fread(in, 1, sizeof in, stdin) == sizeof in) {{
        memset(arena, rubbish++, sizeof arena);
        const int error = nt_{name}_run(in, out, arena);
        if (error != NT_OK) {{
            return error;
        }}
        fwrite(out, 1, sizeof out, stdout);
    }}
    return 0;
}}
"""
SELFTEST = """
    if (nt_{name}_selftest(arena) != NT_OK) {{
        return 66;
    }}"""


def require_tool(name: str) -> str:
    """Return a compiler or emulator; without it skip the test, or fail it in CI."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is absent: this test needs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def write_sources(headers: Mapping[str, str], folder: Path) -> Path:
    """Write headers by model name, the kernels and a main that runs model number ``argv[1]``; return the main.

    Models whose header has a self-test run it first.
    """
    (folder / KERNELS_FILE).write_text(render_c_kernels())
    runners = []
    for name, header in headers.items():
        (folder / f"{name}.h").write_text(header)
        identifier = c_identifier(name).lower()
        selftest = SELFTEST.format(name=identifier) if "_selftest(void" in header else ""
        runners.append(RUNNER.format(name=identifier, macro=identifier.upper(), selftest=selftest))
    cases = [f"    case {i}:\n        return run_{c_identifier(name).lower()}();" for i, name in enumerate(headers)]
    includes = [f'#include "{name}.h"' for name in headers]
    source = folder / "main.c"
    source.write_text(MAIN.format(includes="\n".join(includes), runners="\n".join(runners), cases="\n".join(cases)))
    return source


def compile_c(source: Path, output: Path, compiler: str = "gcc", flags: Sequence[str] = (*C99, "-O1")) -> Path:
    """Compile one source file; warnings are errors and fail the test with the compiler's words."""
    command = [require_tool(compiler), *flags, str(source), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stderr[:4000]
    return output


def run_c(binary: Path, index: int, samples: Array, output_size: int, emulator: str | None = None) -> Array:
    """Return the outputs (n_samples, output_size) int8 of model ``index`` of a compiled main."""
    prefix = [] if emulator is None else [require_tool(emulator)]
    command = [*prefix, str(binary), str(index)]
    data = np.ascontiguousarray(samples, np.int8).tobytes()
    result = subprocess.run(command, input=data, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    assert result.returncode == 0, f"exit {result.returncode}: {result.stderr.decode()[:4000]}"
    return np.frombuffer(result.stdout, np.int8).reshape(len(samples), output_size)
