"""Values moved forward through a network are those of a whole run, and none is kept longer than needed."""

import numpy as np
import pytest

import nettrim.frontier
from nettrim.frontier import Frontier, graph_between, live_bytes, run_bytes
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Graph
from tests.graphs import random_cnn, random_inputs


def _frontier(graph: Graph, rng: np.random.Generator, n_samples: int = 70, batch_bytes: int = 1 << 20) -> Frontier:
    return Frontier(graph, random_inputs(graph, rng, n_samples), batch_bytes)


def test_every_tensor_is_that_of_a_whole_run(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    frontier = _frontier(graph, rng)
    program = prepare(graph, 70)
    program.run(frontier.values["input"])
    for op in graph.ops:
        np.testing.assert_allclose(frontier.value(graph, op.output), program.buffers[op.output], atol=1e-6)


def test_released_values_are_never_needed_again(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def counting(part: Graph, batch_size: int) -> object:
        ran.extend(op.name for op in part.ops)
        return prepare(part, batch_size)

    monkeypatch.setattr(nettrim.frontier, "prepare", counting)
    graph = random_cnn(rng)
    frontier = _frontier(graph, rng, n_samples=8)
    wanted = [layer.input for layer in graph.layers]
    while wanted:
        frontier.value(graph, wanted.pop(0))
        frontier.release(graph, wanted)
    assert len(ran) == len(set(ran))
    assert frontier.values == {}


def test_memory_kept_is_at_most_what_live_bytes_says(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    frontier = _frontier(graph, rng, n_samples=10)
    wanted = [op.output for op in graph.ops]
    most = 0
    while wanted:
        frontier.value(graph, wanted.pop(0))
        most = max(most, sum(values.nbytes for values in frontier.values.values()))
        frontier.release(graph, wanted)
    assert most <= 10 * live_bytes(graph)


def test_small_batches_give_the_same_values_in_little_memory(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    samples = random_inputs(graph, rng, 13)
    one_by_one = Frontier(graph, samples, batch_bytes=1).value(graph, graph.outputs[0])
    np.testing.assert_allclose(one_by_one, run_graph(graph, samples), atol=1e-6)  # float32, other sum order
    assert Frontier(graph, samples, 5 * run_bytes(graph)).value(graph, graph.outputs[0]).shape == (13, 5)


def test_run_bytes_are_those_of_the_buffers(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    buffers = prepare(graph, 1).buffers
    activations = sum(values.nbytes for values in buffers.values())
    assert activations < run_bytes(graph) < 20 * activations  # patches of 3 x 3 on top


def test_a_part_of_the_graph_starts_at_what_is_known(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    last = graph.layers[-1]
    part = graph_between(graph, graph.inputs, last.output)
    assert len(part.ops) == len(graph.ops) - 1
    assert run_graph(part, random_inputs(graph, rng, 3)).shape == (3, 5)
    tail = graph_between(graph, {last.input, "input"}, last.output)
    assert (tail.inputs, [op.name for op in tail.ops]) == ((last.input,), [last.name])
