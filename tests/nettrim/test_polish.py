"""The polish keeps zeros, never makes a block worse, and follows derivatives that agree with torch's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nettrim.differentiate import layer_slopes
from nettrim.importers import load_model
from nettrim.polish import PolishSettings, block_ends, polish
from nettrim.prune import PruneSettings, prune
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Padding, Size2d
from tests.graphs import NONE, RELU, GraphBuilder, random_inputs
from tests.shared_data import shared_data


def _network(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (7, 6, 4))
    shortcut = builder.conv(6, (1, 1), RELU)
    builder.conv(6, (3, 3), NONE, groups=2, padding=Padding(1, 1, 1, 1))
    builder.add(shortcut, RELU)
    builder.conv(8, (3, 2), RELU, stride=Size2d(2, 1))
    builder.max_pool()
    builder.flatten()
    builder.dense(3)
    return builder.build()


def _half(graph: Graph, rng: np.random.Generator) -> Graph:
    """Return the graph without half of each layer's weights."""
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    return graph.with_tensors(
        tuple(replace(weight, data=weight.values() * (rng.random(weight.shape) < 0.5)) for weight in weights)
    )


def test_derivatives_by_weights_agree_with_finite_differences(rng: np.random.Generator) -> None:
    graph = _network(rng)
    x = random_inputs(graph, rng, 5)
    program = prepare(graph, 5)
    program.run(x)
    seed = rng.standard_normal(program.buffers[graph.outputs[0]].shape).astype(np.float32)
    for layer, by_weight, by_bias in layer_slopes(graph, program.buffers, {graph.outputs[0]: seed}):
        for name, slope in ((layer.weight, by_weight), (layer.bias, by_bias)):
            values = graph.tensors[name].values()
            direction = rng.standard_normal(values.shape).astype(np.float32)
            step = np.float32(1e-3)
            ends = [_output(graph, name, values + sign * step * direction, x) for sign in (1, -1)]
            expected = np.sum((ends[0] - ends[1]) * seed, dtype=np.float64) / (2 * step)
            scale = np.linalg.norm(slope.astype(np.float64)) * np.linalg.norm(direction)
            assert abs(np.vdot(slope.astype(np.float64), direction) - expected) <= 5e-3 * scale


def _output(graph: Graph, name: str, values: Array, x: Array) -> Array:
    changed = graph.with_tensors((replace(graph.tensors[name], data=values.astype(np.float32)),))
    return run_graph(changed, x).astype(np.float64)


def test_dense_derivatives_agree_with_torch(rng: np.random.Generator) -> None:
    graph = load_model(shared_data("models/lenet_300_100_mnist.pt")).graph
    x = rng.random((8, 784), np.float32)
    program = prepare(graph, 8)
    program.run(x)
    seed = rng.standard_normal((8, 10)).astype(np.float32)
    names = [name for layer in graph.layers for name in (layer.weight, layer.bias)]
    leaves = {name: torch.from_numpy(graph.tensors[name].values().copy()).requires_grad_() for name in names}
    value = torch.from_numpy(x)
    for number, layer in enumerate(graph.layers):
        value = value @ leaves[layer.weight].T + leaves[layer.bias]
        value = torch.relu(value) if number < 2 else value
    torch.autograd.backward((value * torch.from_numpy(seed)).sum())
    for layer, by_weight, by_bias in layer_slopes(graph, program.buffers, {graph.outputs[0]: seed}):
        for name, slope in ((layer.weight, by_weight), (layer.bias, by_bias)):
            expected = leaves[name].grad
            assert expected is not None
            np.testing.assert_allclose(slope, expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers_per_block", [1, 2, 9])
def test_zeros_stay_and_the_output_comes_nearer_on_samples_never_seen(
    rng: np.random.Generator, layers_per_block: int
) -> None:
    graph = _network(rng)
    pruned = _half(graph, rng)
    settings = PolishSettings(layers_per_block=layers_per_block)
    tuned = polish(graph, pruned, random_inputs(graph, rng, 600), rng, settings)
    for layer in graph.layers:
        before, after = (net.tensors[layer.weight].values() for net in (pruned, tuned))
        np.testing.assert_array_equal(after[before == 0], 0)
    new = random_inputs(graph, rng, 200)
    wanted = run_graph(graph, new)
    errors = [np.linalg.norm(run_graph(net, new) - wanted) for net in (pruned, tuned)]
    assert errors[1] < 0.9 * errors[0]


def test_a_network_that_is_right_already_stays_as_it_is(rng: np.random.Generator) -> None:
    graph = _network(rng)
    tuned = polish(graph, graph, random_inputs(graph, rng, 50), rng)
    for name, tensor in graph.tensors.items():
        if tensor.data is not None:
            np.testing.assert_array_equal(tuned.tensors[name].values(), tensor.values())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_samples_are_enough_to_run(rng: np.random.Generator, count: int) -> None:
    graph = _network(rng)
    tuned = polish(graph, _half(graph, rng), random_inputs(graph, rng, count), rng)
    assert np.all(np.isfinite(run_graph(tuned, random_inputs(graph, rng, 4))))


def test_blocks_end_where_one_tensor_is_all_that_is_left(rng: np.random.Generator) -> None:
    graph = _network(rng)
    single = list(block_ends(graph, 1))
    assert single == [graph.layers[0].output, graph.ops[2].output, graph.layers[2].output, graph.outputs[0]]
    assert list(block_ends(graph, 2)) == [graph.ops[2].output, graph.outputs[0]]
    assert list(block_ends(graph, 9)) == [graph.outputs[0]]


def test_no_block_ends_between_layers_that_share_a_weight(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4,))
    for _ in range(4):
        builder.dense(4)
    graph = builder.build()
    first, second, third, last = graph.layers
    steps = tuple(replace(op, weight=second.weight, bias=second.bias) if op is third else op for op in graph.ops)
    used = {name: tensor for name, tensor in graph.tensors.items() if name not in {third.weight, third.bias}}
    shared = replace(graph, ops=steps, tensors=used)
    assert list(block_ends(graph, 1)) == [layer.output for layer in graph.layers]
    assert list(block_ends(shared, 1)) == [first.output, third.output, last.output]


def test_pruning_says_which_layers_were_polished(rng: np.random.Generator) -> None:
    graph = _network(rng)
    samples = random_inputs(graph, rng, 100)
    settings = PruneSettings(sparsity=0.5, polish=True, max_rows=400)
    result = prune(graph, samples, settings, rng)
    assert all(layer.is_polished for layer in result.layers)
    assert all(layer.status.endswith(", polished") for layer in result.layers)
