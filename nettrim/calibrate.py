"""What the activations of a float network are on calibration samples: their ranges, with or without their tails."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.propagation import logits_tensor
from nettrim.quantize import quantization_of_range, quantize_graph, range_sources
from nettrim_runtime.engine import Program, prepare
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]
Range = tuple[float, float]
Quantize = Callable[[frozenset[str]], Graph]  # activations that are int16 -> the quantised graph

BATCH_SIZE = 64
TAILS = (1e-5, 1e-4, 1e-3, 1e-2)  # shares of the values at each end that may be cut off
CLEAR_GAIN = 0.9  # times the least error so far: what a longer tail must reach


def activation_ranges(graph: Graph, samples: Array, tails: Mapping[str, float] | None = None) -> dict[str, Range]:
    """Return (smallest, largest) value of every activation, by name.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    tails : Mapping or None
        Share of the values that are left out at each end, by activation; of those the mean of the batches' ends
        counts, of others the least and the largest of all.
    """
    tails = tails or {}
    ends: dict[str, list[Range]] = {}
    program = prepare(graph, min(BATCH_SIZE, len(samples)))
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        if len(batch) != program.batch_size:
            program = prepare(graph, len(batch))
        program.run(batch)
        for name, values in program.buffers.items():
            ends.setdefault(name, []).append(range_without_tails(values, tails.get(name, 0.0)))
    return {name: _together(found, is_cut=tails.get(name, 0.0) > 0) for name, found in ends.items()}


def choose_tails(graph: Graph, samples: Array) -> dict[str, float]:
    """Return for each activation the share of its values that int8 does best to cut off at each end.

    Rare values far out cost all others their resolution. Each activation alone is rounded to int8, over its whole range
    and with longer and longer tails cut off, and what that does to the network's logits decides. The logits themselves
    keep their range: where two saturate, the class is lost.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32; one batch of them is used.
    """
    program = prepare(graph, min(BATCH_SIZE, len(samples)))
    program.run(samples[: program.batch_size])
    logits = logits_tensor(graph)
    return {name: _best_tail(program, name, logits) for name in range_sources(graph) if name != logits}


def quantize_on(
    graph: Graph, samples: Array, wide: frozenset[str] = frozenset(), tails: Mapping[str, float] | None = None
) -> Graph:
    """Quantise a float graph by its ranges on samples; int16 has room for all values, int8 cuts off the tails.

    Parameters
    ----------
    wide : frozenset of str
        As of `quantize_graph`.
    tails : Mapping or None
        As of `activation_ranges`.
    """
    return quantizer(graph, samples, tails)(wide)


def quantizer(
    graph: Graph,
    samples: Array,
    tails: Mapping[str, float] | None = None,
    fixed: Mapping[str, Range] | None = None,
) -> Quantize:
    """Return `quantize_on` as a function of ``wide`` alone: one network's ranges are the same for any choice of it.

    Parameters
    ----------
    fixed : Mapping or None
        The range of activations for which samples do not decide.
    """
    tails = tails or {}
    narrow = cache(lambda: {**activation_ranges(graph, samples, tails), **(fixed or {})})
    whole = cache(lambda: activation_ranges(graph, samples))

    def quantize(wide: frozenset[str] = frozenset()) -> Graph:
        uncut = {name: whole()[name] for name in wide if tails.get(name, 0.0) > 0}
        return quantize_graph(graph, {**narrow(), **uncut}, wide)

    return quantize


def range_without_tails(values: Array, tail: float) -> Range:
    """Return the least and the largest value once a share of them is left out at each end; 0 always stays inside."""
    if tail == 0:
        return float(values.min()), float(values.max())
    last = values.size - 1
    places = (int(tail * values.size), last - int(tail * values.size))
    low, high = np.partition(values, places, axis=None)[list(places)]
    return min(float(low), 0.0), max(float(high), 0.0)


def _together(ends: list[Range], *, is_cut: bool) -> Range:
    lows, highs = zip(*ends, strict=True)
    return (float(np.mean(lows)), float(np.mean(highs))) if is_cut else (min(lows), max(highs))


def _best_tail(program: Program, name: str, logits: str) -> float:
    """Try longer and longer tails by their error at the logits; leaves the program's buffers as they were."""
    buffer, exact = program.buffers[name], program.buffers[logits].copy()
    values = buffer.copy()

    def error(tail: float) -> float:
        quantization = quantization_of_range(*range_without_tails(values, tail))
        buffer[:] = quantization.dequantize(quantization.quantize(values))
        program.run_behind(name)
        return float(np.linalg.norm(program.buffers[logits] - exact))

    best, least = 0.0, error(0.0)
    for tail in TAILS:
        found = error(tail)
        if found < CLEAR_GAIN * least:
            best, least = tail, found
    buffer[:] = values
    program.run_behind(name)
    return best
