"""The search for the sparsest network within a drop."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.calibrate import Quantize, quantizer
from nettrim.goal_search import MAX_TRIALS, judge_on, measure_drop, prune_to_drop, search_density
from nettrim.progress import Progress
from nettrim.prune import PruneSettings
from nettrim.samples import Samples
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph
from tests.graphs import RELU, GraphBuilder, random_mlp


@given(st.floats(0.8, 3.0), st.floats(-3.0, 0.5), st.floats(1e-3, 0.1))
@settings(max_examples=60)
def test_a_power_law_is_met_in_few_trials(exponent: float, log_scale: float, aim: float) -> None:
    tried: list[tuple[float, float]] = []

    def attempt(density: float) -> float:
        drop = min(1.0, 1e-2 * np.exp(log_scale) * density**-exponent)
        tried.append((density, drop))
        return float(drop)

    search_density(attempt, aim, floor=1e-6)
    assert len(tried) <= MAX_TRIALS
    assert all(0 < density <= 1 for density, _ in tried)
    best = min((density for density, drop in tried if drop <= aim), default=None)
    possible = (1e-2 * np.exp(log_scale) / aim) ** (1 / exponent)
    if best is not None and possible > 1e-3:
        assert best >= possible * 0.999
    if 0.02 < possible < 0.5:
        assert best is not None
        assert best <= 2 * possible


def test_a_drop_that_no_sparsity_keeps_ends() -> None:
    tried = []

    def attempt(density: float) -> float:
        tried.append(density)
        return 1.0

    search_density(attempt, 0.01, floor=1e-3)
    assert len(tried) <= MAX_TRIALS
    assert tried == sorted(tried)


def test_the_network_found_keeps_the_drop_on_the_samples_it_was_judged_by() -> None:
    rng = np.random.default_rng(0)
    graph = random_mlp(rng)
    samples = Samples(rng.standard_normal((400, 20)).astype(np.float32), None, "random")
    found = prune_to_drop(graph, samples, 0.1, PruneSettings(), rng=rng, quantizer=quantizer)
    best = next(trial for trial in found.trials if trial.sparsity == found.sparsity)
    assert found.is_within
    assert best.drop <= 0.1
    assert 0 < found.sparsity < 1
    weights = [found.result.graph.tensors[layer.weight] for layer in graph.layers]
    assert 1 - sum(w.nnz for w in weights) / sum(w.size for w in weights) == pytest.approx(found.sparsity, abs=0.02)


def test_a_drop_of_nothing_is_missed_and_says_so() -> None:
    rng = np.random.default_rng(1)
    graph = random_mlp(rng)
    samples = Samples(rng.standard_normal((400, 20)).astype(np.float32), None, "random")
    found = prune_to_drop(graph, samples, 0.0, PruneSettings(), rng=rng, quantizer=quantizer)
    assert found.trials[-1].sparsity == 0
    assert found.is_within == (min(trial.drop for trial in found.trials) == 0)


def test_the_trial_taken_is_named_where_all_miss_the_aim_and_one_keeps_the_drop() -> None:
    rng = np.random.default_rng(1)
    graph, said = _autoencoder(rng), list[str]()
    samples = Samples(rng.standard_normal((400, 20)).astype(np.float32), None, "random")
    progress = Progress(lambda _: None, said.append)
    quantized = partial(_with_one_error, graph)
    found = prune_to_drop(graph, samples, 0.1, PruneSettings(), rng=rng, quantizer=quantized, progress=progress)
    assert found.is_within
    assert not any(trial.is_kept for trial in found.trials)
    place = 1 + [trial.sparsity for trial in found.trials].index(found.sparsity)
    assert (
        said[-1] == f"trial {place} is taken, which keeps the goal: an output error of at most 10% of the output's norm"
    )


def _with_one_error(original: Graph, network: Graph, _samples: Array) -> Quantize:
    """Return a pruned network as the original with outputs 8 % larger, whatever was pruned; the original as it is."""
    last = original.layers[-1]
    larger = original.with_tensors(
        replace(original.tensors[name], data=original.tensors[name].values() * np.float32(1.08))
        for name in (last.weight, last.bias)
    )
    return lambda _: original if network is original else larger


def test_a_drop_is_of_accuracy_with_labels_and_of_agreement_without() -> None:
    rng = np.random.default_rng(2)
    graph = random_mlp(rng)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    deployed = _deploy(graph, x)
    unlabelled = Samples(x, None, "random")
    agreement_drop = measure_drop(graph, deployed, unlabelled)
    classes = run_graph(graph, x).argmax(axis=1)
    assert 0 <= agreement_drop < 0.1
    assert measure_drop(graph, deployed, Samples(x, classes, "the network's own")) == pytest.approx(agreement_drop)
    assert measure_drop(graph, deployed, Samples(x, np.full(200, 9), "no class of the network")) == 0.0


def _deploy(graph: Graph, samples: Array) -> Graph:
    return quantizer(graph, samples)(frozenset())


def _loud(rng: np.random.Generator) -> Graph:
    """Return a network one of whose hidden neurons is a thousand times as large as the others, and read as softly."""
    builder = GraphBuilder(rng, (20,))
    builder.dense(16, RELU)
    builder.dense(3)
    graph = builder.build()
    first, second = graph.layers
    rows = np.ones((16, 1), np.float32)
    rows[3] = 1000
    return graph.with_tensors(
        replace(graph.tensors[name], data=(graph.tensors[name].values() * factor).astype(np.float32))
        for name, factor in ((first.weight, rows), (first.bias, rows[:, 0]), (second.weight, 1 / rows.T))
    )


def test_a_layer_that_int8_is_too_coarse_for_becomes_int16() -> None:
    rng = np.random.default_rng(4)
    graph = _loud(rng)
    samples = Samples(rng.standard_normal((600, 20)).astype(np.float32), None, "random")
    found, narrow = (
        prune_to_drop(
            graph, samples, 0.1, PruneSettings(), rng=np.random.default_rng(5), quantizer=quantizer, may_widen=may_widen
        )
        for may_widen in (True, False)
    )
    hidden = graph.layers[0].output
    assert found.wide == {hidden}
    assert found.is_within
    assert narrow.wide == frozenset()
    assert not narrow.is_within


def test_nothing_is_widened_where_int8_keeps_the_drop() -> None:
    rng = np.random.default_rng(6)
    graph = random_mlp(rng)
    samples = Samples(rng.standard_normal((400, 20)).astype(np.float32), None, "random")
    assert not prune_to_drop(graph, samples, 0.2, PruneSettings(), rng=rng, quantizer=quantizer).wide


def _autoencoder(rng: np.random.Generator) -> Graph:
    """Return a network whose answer is a reconstruction, an output error; half the weights hardly count."""
    builder = GraphBuilder(rng, (20,))
    builder.dense(12, RELU)
    builder.dense(20)
    graph = builder.build()
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    return graph.with_tensors(
        replace(weight, data=np.where(rng.random(weight.shape) < 0.5, weight.values(), 1e-4 * weight.values()))
        for weight in weights
    )


def test_an_output_error_that_int8_nearly_uses_up_leaves_room_for_pruning() -> None:
    rng = np.random.default_rng(7)
    graph = _autoencoder(rng)
    samples = Samples(rng.standard_normal((600, 20)).astype(np.float32), None, "random")
    least = measure_drop(graph, _deploy(graph, samples.x), samples)
    found = prune_to_drop(graph, samples, 1.3 * least, PruneSettings(), rng=rng, quantizer=quantizer, may_widen=False)
    assert found.is_within
    assert found.sparsity > 0
    assert all(trial.sparsity > 0 for trial in found.trials)


def test_a_drop_of_one_original_is_the_same_for_any_number_of_networks() -> None:
    rng = np.random.default_rng(8)
    graph, other = random_mlp(rng), random_mlp(rng)
    samples = Samples(rng.standard_normal((100, 20)).astype(np.float32), None, "random")
    drop_of = judge_on(graph, samples)
    for deployed in (other, _deploy(other, samples.x), graph):
        assert drop_of(deployed) == measure_drop(graph, deployed, samples)
    assert drop_of(graph) == 0.0
