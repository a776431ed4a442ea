from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettrim.prune import Mode, PruneSettings, is_prunable, kept_counts, prune
from nettrim_runtime.engine import run_graph
from nettrim_runtime.ops import Conv2d
from tests.graphs import random_cnn, random_inputs, random_mlp

PATHS = {
    "first": ((0.01, 900), (0.1, 500), (0.5, 50)),
    "second": ((0.01, 95), (0.1, 80), (0.5, 40)),
}
SIZES = {"first": 1000, "second": 100}


@given(st.integers(0, 1200))
def test_kept_counts_add_up_to_what_is_asked(total: int) -> None:
    counts = kept_counts(PATHS, SIZES, total)
    assert sum(counts.values()) == min(total, 1100)
    assert all(0 <= counts[name] <= SIZES[name] for name in SIZES)


def test_a_layer_that_resists_pruning_keeps_a_larger_share() -> None:
    counts = kept_counts(PATHS, SIZES, 500)
    assert counts["second"] / 100 > counts["first"] / 1000


@pytest.mark.parametrize("mode", list(Mode))
def test_a_network_pruned_to_a_sparsity_has_exactly_that(mode: Mode, rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    settings = PruneSettings(sparsity=0.4, mode=mode)
    result = prune(graph, random_inputs(graph, rng, 200), settings, rng)
    total = sum(graph.tensors[layer.weight].size for layer in graph.layers)
    kept = sum(result.graph.tensors[layer.weight].nnz for layer in graph.layers)
    assert kept <= round(0.6 * total)
    assert kept >= round(0.6 * total) - 20  # inputs that are always zero get no weights


def test_depthwise_layers_stay_as_they_are_and_say_why(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    result = prune(graph, random_inputs(graph, rng, 100), PruneSettings(relative_epsilon=0.1), rng)
    for layer, outcome in zip(graph.layers, result.layers, strict=True):
        if isinstance(layer, Conv2d) and layer.groups > 1:
            assert not is_prunable(layer)
            assert outcome.solution is None
            assert "kept dense" in outcome.status
            np.testing.assert_array_equal(
                result.graph.tensors[layer.weight].values(), graph.tensors[layer.weight].values()
            )


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
