"""A hand-written model.h with the interface of the generated ones: three inputs, two outputs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

LOOP_TURNS = 1000

KERNELS = """
#ifndef NETTRIM_KERNELS_H
#define NETTRIM_KERNELS_H
#include <stdint.h>
static inline int8_t nt_clamp(int32_t value) { return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value); }
#endif
"""

# Output 0: the clamped sum; output 1: the inverted first input. On aarch64 a loop of 2 * turns instructions on top.
MODEL = """
#ifndef NT_TINY_H
#define NT_TINY_H
#include "nettrim_kernels.h"
#define NT_TINY_ARENA_BYTES @arena@
#define NT_TINY_INPUT_SIZE 3
#define NT_TINY_OUTPUT_SIZE 2
#define NT_TINY_HAS_SELFTEST 1
static const int8_t nt_tiny_ballast[@ballast@ + 1] = {1};
static inline int nt_tiny_run(const int8_t *in, int8_t *out, void *arena)
{
    if (arena == 0) {
        return 1;
    }
#if defined(__aarch64__)
    uint64_t turns = @turns@;
    __asm__ volatile("1: subs %0, %0, #1\\n\\tb.ne 1b" : "+r"(turns) : : "cc");
#endif
    *(volatile uint8_t *)arena = 1; /* or the arena would be optimised away */
    out[0] = nt_clamp(in[0] + in[1] + in[2]);
    out[1] = (int8_t)~in[0];
    return 0;
}
static inline int nt_tiny_selftest(void *arena)
{
    static const int8_t in[3] = {100, 100, -7};
    volatile unsigned index = (unsigned)in[0] * 0u + @ballast@;
    int8_t out[2];
    const int status = nt_tiny_run(in, out, arena);
    if (nt_tiny_ballast[index] != (@ballast@ == 0)) {
        return 2;
    }
    return status != 0 ? status : out[0] == @golden@ && out[1] == -101 ? 0 : 3;
}
#endif
"""


def write_tiny_model(
    folder: Path, *, turns: int = LOOP_TURNS, arena: int = 64, golden: int = 127, ballast: int = 0
) -> Path:
    """Write model.h and nettrim_kernels.h; ``ballast`` bytes of flash make it large."""
    folder.mkdir(parents=True, exist_ok=True)
    text = MODEL
    for key, value in {"turns": turns, "arena": arena, "golden": golden, "ballast": ballast}.items():
        text = text.replace(f"@{key}@", str(value))
    (folder / "model.h").write_text(text)
    (folder / "nettrim_kernels.h").write_text(KERNELS)
    return folder


def tiny_outputs(samples: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """(n, 3) int8 to (n, 2) int8, as the C does it."""
    sums = np.clip(samples.astype(np.int32).sum(axis=1), -128, 127)
    return np.stack([sums, ~samples[:, 0]], axis=1).astype(np.int8)
