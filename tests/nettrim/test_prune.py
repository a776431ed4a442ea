"""Whole networks: exact counts, kept distances, targets behind Adds and pools, groups, and a memory budget."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.frontier import live_bytes
from nettrim.layer_memory import solver_bytes
from nettrim.prune import ALREADY_SPARSE, FRONTIER_SHARE, KEPT_DENSE, Mode, PruneSettings, is_prunable, prune
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Conv2d, Padding, Size2d
from tests.graphs import NONE, RELU, GraphBuilder, random_branches, random_cnn, random_inputs, random_mlp

SAME = Padding(1, 1, 1, 1)


def _residual_net(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (8, 8, 3))
    shortcut = builder.conv(6, (3, 3), RELU, padding=SAME)
    for _ in range(2):
        builder.conv(6, (3, 3), RELU, padding=SAME)
        builder.conv(6, (3, 3), NONE, padding=SAME)
        shortcut = builder.add(shortcut, RELU)
    builder.max_pool()
    builder.flatten()
    builder.dense(5)
    return builder.build()


def _grouped_net(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (6, 6, 4))
    builder.conv(8, (3, 3), RELU, groups=2)
    builder.conv(8, (3, 3), RELU, groups=8, padding=SAME)
    builder.flatten()
    builder.dense(3)
    return builder.build()


def _net_with_padded_shortcut(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (8, 8, 3))
    image = builder.conv(4, (3, 3), RELU, padding=SAME)
    shortcut = builder.conv(8, (1, 1), NONE, stride=Size2d(2, 2))
    builder.output = image
    builder.conv(8, (3, 3), NONE, padding=SAME, stride=Size2d(2, 2))
    builder.add(shortcut, RELU)
    builder.flatten()
    builder.dense(5)
    graph = builder.build()
    weight = graph.tensors[graph.layers[1].weight]
    return graph.with_tensors((replace(weight, data=np.eye(8, 4, -2, dtype=np.float32).reshape(8, 1, 1, 4)),))


def _tensor(graph: Graph, samples: Array, tensor: str) -> Array:
    program = prepare(graph, len(samples))
    program.run(samples)
    return program.buffers[tensor].astype(np.float64)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("make", [random_cnn, random_branches, _grouped_net])
def test_a_network_pruned_to_a_sparsity_has_exactly_that(make: type, mode: Mode, rng: np.random.Generator) -> None:
    graph = make(rng)
    settings = PruneSettings(sparsity=0.4, mode=mode)
    result = prune(graph, random_inputs(graph, rng, 200), settings, rng)
    total = sum(graph.tensors[layer.weight].size for layer in graph.layers)
    kept = sum(result.graph.tensors[layer.weight].nnz for layer in graph.layers)
    assert kept <= round(0.6 * total)
    assert kept >= round(0.6 * total) - 20  # inputs that are always zero get no weights


def test_depthwise_layers_stay_as_they_are_and_say_why(rng: np.random.Generator) -> None:
    graph, settings = random_cnn(rng), PruneSettings(relative_epsilon=0.1)
    result = prune(graph, random_inputs(graph, rng, 100), settings, rng)
    for layer, outcome in zip(graph.layers, result.layers, strict=True):
        assert is_prunable(graph, layer, settings) == (not isinstance(layer, Conv2d) or layer.groups == 1)
        if isinstance(layer, Conv2d) and layer.groups > 1:
            assert (outcome.solution, outcome.status) == (None, KEPT_DENSE)
            np.testing.assert_array_equal(
                result.graph.tensors[layer.weight].values(), graph.tensors[layer.weight].values()
            )


@pytest.mark.parametrize("settings", [PruneSettings(sparsity=0.4), PruneSettings(depthwise=True)])
def test_a_shortcut_with_one_input_an_output_stays_and_does_not_count(
    settings: PruneSettings, rng: np.random.Generator
) -> None:
    graph = _net_with_padded_shortcut(rng)
    result = prune(graph, random_inputs(graph, rng, 60), settings, rng)
    shortcut = graph.layers[1]
    assert [outcome.status == ALREADY_SPARSE for outcome in result.layers] == [False, True, False, False]
    assert not is_prunable(graph, shortcut, settings)
    assert result.graph.tensors[shortcut.weight] is graph.tensors[shortcut.weight]
    if settings.sparsity is not None:
        others = [graph.tensors[layer.weight] for layer in graph.layers if layer is not shortcut]
        kept = sum(result.graph.tensors[weight.name].nnz for weight in others)
        wanted = round(0.6 * sum(weight.size for weight in others))
        assert wanted - 20 <= kept <= wanted  # inputs that are always zero get no weights


def test_a_layer_with_a_single_input_can_lose_its_outputs(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (1,))
    builder.dense(8, RELU)
    builder.dense(2)
    graph = builder.build()
    assert is_prunable(graph, graph.layers[0], PruneSettings())


def test_depthwise_layers_are_pruned_channel_by_channel_when_asked_to(rng: np.random.Generator) -> None:
    graph = _grouped_net(rng)
    settings = PruneSettings(relative_epsilon=0.3, depthwise=True)
    outcome = prune(graph, random_inputs(graph, rng, 60), settings, rng).layers[1]
    assert outcome.solution is not None
    assert outcome.solution.W.shape == (9, 8)
    assert outcome.solution.nnz < 72
    assert outcome.solution.distance <= outcome.solution.epsilon


def test_groups_of_a_convolution_are_pruned_within_their_epsilon(rng: np.random.Generator) -> None:
    graph = _grouped_net(rng)
    samples = random_inputs(graph, rng, 60)
    result = prune(graph, samples, PruneSettings(relative_epsilon=0.2), rng)
    solution = result.layers[0].solution
    assert solution is not None
    assert solution.nnz < graph.tensors[graph.layers[0].weight].size
    output = graph.layers[0].output  # every pixel was drawn
    error = np.linalg.norm(_tensor(result.graph, samples, output) - _tensor(graph, samples, output))
    assert error <= solution.distance * (1 + 1e-5)  # float32 convolutions
    assert solution.distance <= solution.epsilon


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("constraint", ["distance", "hard"])
def test_every_layer_stays_within_its_epsilon(mode: Mode, constraint: str, rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    settings = replace(PruneSettings(relative_epsilon=0.15, mode=mode), constraint=constraint)
    result = prune(graph, random_inputs(graph, rng, 300), settings, rng)
    for outcome in result.layers:
        assert outcome.solution is not None
        assert outcome.solution.distance <= outcome.solution.epsilon
    assert sum(outcome.solution.nnz for outcome in result.layers if outcome.solution) < 20 * 16 + 16 * 12 + 12 * 5


def test_the_cascade_keeps_the_output_closer_than_the_parallel_scheme() -> None:
    errors = dict.fromkeys(Mode, 0.0)
    for seed in range(4):
        graph = random_mlp(np.random.default_rng(seed))
        samples = random_inputs(graph, np.random.default_rng(seed + 100), 1000)
        expected = run_graph(graph, samples)
        for mode in Mode:
            settings = PruneSettings(sparsity=0.5, mode=mode)
            pruned = prune(graph, samples, settings, np.random.default_rng(0)).graph
            errors[mode] += float(np.linalg.norm(run_graph(pruned, samples) - expected))
    assert errors[Mode.CASCADE] < errors[Mode.PARALLEL]


def test_the_cascades_distances_bound_the_pruned_networks_own_responses(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    samples = random_inputs(graph, rng, 40)
    result = prune(graph, samples, PruneSettings(relative_epsilon=0.15), rng)
    responses = [outcome.response for outcome in result.layers]
    layers = [layer.output for layer in graph.layers]
    assert responses == [layers[0], layers[1], "add3.out", layers[3], "max_pool7.out", layers[5]]
    for outcome in result.layers:  # every pixel of every sample was drawn, and all that comes before is settled
        assert outcome.solution is not None
        original, pruned = (_tensor(network, samples, outcome.response) for network in (graph, result.graph))
        assert np.linalg.norm(pruned - original) <= outcome.solution.distance * (1 + 1e-4)  # float32 network
        assert np.linalg.norm(original) == pytest.approx(
            outcome.solution.distance / outcome.solution.relative_distance, rel=1e-4
        )


def test_one_epsilon_removes_more_weights_where_a_response_is_followed(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    samples = random_inputs(graph, rng, 40)
    kept = {}
    for follow in (True, False):
        settings = PruneSettings(relative_epsilon=0.15, mode=Mode.PARALLEL, follow=follow)
        layers = prune(graph, samples, settings, np.random.default_rng(0)).layers
        kept[follow] = [layers[number].solution.nnz for number in (2, 4) if layers[number].solution]
    assert all(further < own for further, own in zip(kept[True], kept[False], strict=True))


def test_the_published_form_and_follow_off_hold_each_layers_own_output(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    for settings in (PruneSettings(constraint="hard"), PruneSettings(follow=False)):
        layers = prune(graph, random_inputs(graph, rng, 20), replace(settings, relative_epsilon=0.3), rng).layers
        assert [outcome.response for outcome in layers] == [layer.output for layer in graph.layers]


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("make", [random_cnn, _residual_net])
def test_following_a_response_makes_no_worse_networks_at_one_sparsity(make: type, mode: Mode) -> None:
    errors = {True: 0.0, False: 0.0}
    for seed in range(4):
        graph = make(np.random.default_rng(seed))
        samples, fresh = (random_inputs(graph, np.random.default_rng(seed + start), 300) for start in (100, 200))
        expected = run_graph(graph, fresh)
        for follow in errors:
            settings = PruneSettings(sparsity=0.3, mode=mode, follow=follow, max_rows=3000)
            pruned = prune(graph, samples, settings, np.random.default_rng(0)).graph
            errors[follow] += float(np.linalg.norm(run_graph(pruned, fresh) - expected))
    assert errors[True] <= errors[False]


def test_rows_shrink_to_the_memory_budget(rng: np.random.Generator) -> None:
    graph = random_mlp(rng)
    samples = random_inputs(graph, rng, 400)
    budget = 1_000_000
    settings = PruneSettings(relative_epsilon=0.2, memory_budget_bytes=budget)
    for layer, outcome in zip(graph.layers, prune(graph, samples, settings, rng).layers, strict=True):
        n_outputs, n_inputs = graph.tensors[layer.weight].shape
        share = (1 - FRONTIER_SHARE) * budget
        assert solver_bytes(n_inputs, n_outputs, outcome.fit_rows) <= share
        assert outcome.fit_rows == 400 or solver_bytes(n_inputs, n_outputs, outcome.fit_rows + 1) > share


def test_images_shrink_to_the_memory_budget_and_give_more_patches_each(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    samples = random_inputs(graph, rng, 100)
    budget = 4 * 60 * 2 * live_bytes(graph)  # a quarter of it holds 60 images of two networks
    settings = PruneSettings(relative_epsilon=0.3, max_rows=600, memory_budget_bytes=budget)
    outcomes = prune(graph, samples, settings, rng).layers
    assert outcomes[0].fit_rows == 60 * 2 * 4  # two pooling windows of four patches each
    assert outcomes[-1].fit_rows == 60


def test_a_budget_too_small_names_what_it_misses(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    samples = random_inputs(graph, rng, 50)
    few_images = PruneSettings(memory_budget_bytes=10 * live_bytes(graph))
    with pytest.raises(DataError, match=r"cnn: keeping the activations of 8 samples .* raise memory_budget_bytes"):
        prune(graph, samples, few_images, rng)
    dense = random_mlp(rng)
    with pytest.raises(DataError, match=r"layer 'dense0' .* bytes .* raise memory_budget_bytes"):
        prune(dense, random_inputs(dense, rng, 50), PruneSettings(memory_budget_bytes=30_000), rng)


def test_means_and_scalings_of_one_channel_are_not_pruned(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 4, 6))
    builder.conv(1, (1, 1))
    builder.conv(1, (1, 1))
    graph = builder.build()
    mean, scaling = graph.layers
    equal = replace(graph.tensors[mean.weight], data=np.full((1, 1, 1, 6), 1 / 6, np.float32))
    assert is_prunable(graph, mean, PruneSettings())
    assert not is_prunable(graph.with_tensors([equal]), mean, PruneSettings())
    assert not is_prunable(graph, scaling, PruneSettings())
