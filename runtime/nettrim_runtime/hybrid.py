"""A dense layer of int8 weights on floats, as TensorFlow Lite's dynamic range quantisation computes it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.graph import Graph
from nettrim_runtime.linear import FLOAT32_EXACT, Step, clamp_step, faster_dense_step
from nettrim_runtime.ops import Dense

Array = npt.NDArray[Any]

INPUT_STEPS = 127  # on each side of zero
LARGEST_PRODUCT = INPUT_STEPS * 128
SMALLEST_INPUT = np.float32(4e-37)  # as a sample's largest; smaller ones count as zeros: 127 over them is no float32


def hybrid_step(graph: Graph, op: Dense, source: Array, output: Array) -> Step:
    """Prepare a dense layer that rounds each sample to steps of a 127th of its largest value, and sums integers.

    The arithmetic is that of LiteRT's reference kernels (fully_connected.cc, EvalHybrid). Its sums are exact; floats
    scale them, so machines differ in a last digit, and by one step of an input that lies between two.

    Parameters
    ----------
    source, output : Array
        (batch, n_inputs) and (batch, n_outputs) float32.
    """
    weight, bias = graph.tensors[op.weight], graph.tensors[op.bias].values()
    weight_scale = graph.quantization(op.weight).scale[0]
    exact = np.float32 if LARGEST_PRODUCT * source.shape[1] < FLOAT32_EXACT else np.float64
    integers, sums = np.empty(source.shape, exact), np.empty(output.shape, exact)
    magnitudes, rounded = np.empty_like(source), np.empty(source.shape, np.float64)
    largest = np.empty((len(source), 1), np.float32)
    accumulate = faster_dense_step(integers, weight.data, weight.values(), sums)
    clamp = clamp_step(op.activation, output, output)

    def run() -> None:
        np.abs(source, out=magnitudes)
        np.max(magnitudes, axis=1, keepdims=True, out=largest)
        np.copyto(largest, 1, where=largest < SMALLEST_INPUT)
        np.multiply(magnitudes, np.float32(INPUT_STEPS) / largest, out=magnitudes)
        np.add(magnitudes, 0.5, out=rounded)
        np.floor(rounded, out=rounded)
        np.copysign(rounded, source, out=rounded)
        np.copyto(integers, rounded, casting="same_kind")
        accumulate()
        np.divide(largest, np.float32(INPUT_STEPS), out=largest)
        np.multiply(largest, weight_scale, out=largest)
        np.copyto(output, sums, casting="same_kind")
        np.multiply(output, largest, out=output)
        np.add(output, bias, out=output)
        clamp()

    return run
