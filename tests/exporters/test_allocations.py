"""Running allocates nothing that grows with the batch: NumPy's casting buffers and a block's temporaries are all."""

import tracemalloc

import numpy as np
import pytest
from graphs import RELU6, GraphBuilder, quantized, random_inputs, widened
from test_tflite import SINGLE, Build, build

from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Graph

BATCH_SIZE = 1024
LARGEST_BYTES = 200_000  # two casting buffers of 8,192 values, or the temporaries of a block of 4,096


def allocated_bytes(graph: Graph) -> int:
    """Return the most bytes that the third run of a program has allocated at a time."""
    x = random_inputs(graph, np.random.default_rng(0), BATCH_SIZE)
    program = prepare(graph, BATCH_SIZE)
    program.run(x)
    program.run(x)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        program.run(x)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_a_run_allocates_nothing_that_grows_with_the_batch(operators: Build, shape: tuple[int, ...]) -> None:
    graph = build(operators, shape=shape)
    assert allocated_bytes(graph) < LARGEST_BYTES
    assert allocated_bytes(quantized(graph, np.random.default_rng(0))) < LARGEST_BYTES


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_a_run_on_int16_allocates_nothing_that_grows_with_the_batch(operators: Build, shape: tuple[int, ...]) -> None:
    def inside(net: GraphBuilder) -> None:
        net.activation(RELU6)
        operators(net)
        net.activation(RELU6)
        net.flatten()
        net.dense(9)

    assert allocated_bytes(widened(build(inside, shape=shape), np.random.default_rng(5))) < LARGEST_BYTES
