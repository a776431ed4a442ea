"""The densest network that a board's flash holds: sizes are predicted, then one network is pruned and measured."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from nettrim.errors import DoesNotFitError
from nettrim.goal_search import Found
from nettrim.progress import SILENT, Progress
from nettrim.prune import KEPT_DENSE, PrunedLayer, PruneResult, PruneSettings, measure_budget, prune
from nettrim_runtime.graph import Array, Graph

STEPS = 1024  # sparsities that are told apart
MAX_TRIALS = 3
CLOSER = 0.995  # times the prediction that fits, when what was pruned to it does not


def prune_to_fit(
    graph: Graph,
    samples: Array,
    flash_bytes: int,
    settings: PruneSettings,
    *,
    rng: np.random.Generator,
    size: Callable[[Graph], int],
    progress: Progress = SILENT,
) -> Found:
    """Prune no more than needed for the finished network to take ``flash_bytes`` at most.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    size : callable
        float graph -> bytes of flash of what is shipped. It takes the original with small weights left out, too:
        how many weights a layer keeps decides its size, which ones hardly matters.

    Returns
    -------
    Found
        Without trials: no drop was judged.

    Raises
    ------
    DoesNotFitError
        When not even one weight in `STEPS` would fit, or no network that was pruned to a size kept it.
    """
    if size(graph) <= flash_bytes:
        layers = tuple(PrunedLayer(layer.name, KEPT_DENSE, None, response=layer.output) for layer in graph.layers)
        return Found(PruneResult(graph, layers), 0.0, is_within=True, trials=())
    budget = measure_budget(graph, samples, settings, rng, progress)
    seed, target = int(rng.integers(1 << 31)), float(flash_bytes)
    for number in range(1, MAX_TRIALS + 1):
        sparsity = _least_sparsity(lambda sparsity: size(_thinned(graph, budget.share(sparsity))), target)
        if sparsity is None:
            break
        progress.start_trial(number, MAX_TRIALS)
        progress(f"trying sparsity {sparsity:.1%}")
        wanted = replace(settings, sparsity=sparsity)
        result = prune(graph, samples, wanted, np.random.default_rng(seed), progress, budget=budget)
        found = size(result.graph)
        progress.end_trial()
        verdict = "fits" if found <= flash_bytes else "too large"
        progress.keep(f"trial {number}: sparsity {sparsity:.1%}, {found} bytes of {flash_bytes}: {verdict}")
        if found <= flash_bytes:
            return Found(result, sparsity, is_within=True, trials=())
        target *= CLOSER * flash_bytes / found
    raise DoesNotFitError(
        f"{graph.name} does not fit {flash_bytes} bytes of flash at any sparsity: its biases and tables alone take "
        f"about {size(_thinned(graph, budget.share(1.0)))} bytes; choose a larger board"
    )


def _least_sparsity(predict: Callable[[float], int], target: float) -> float | None:
    """Return the smallest of `STEPS` sparsities whose predicted size is within the target, by bisection."""
    low, high = 0, STEPS - 1  # too large at low, small enough at high
    if predict(high / STEPS) > target:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if predict(middle / STEPS) <= target else (middle, high)
    return high / STEPS


def _thinned(graph: Graph, counts: Mapping[str, int]) -> Graph:
    """Return the graph with each layer's ``counts`` largest weights, the others zero; layers not named stay whole."""
    thinned = []
    for layer in graph.layers:
        if layer.name not in counts:
            continue
        weight = graph.tensors[layer.weight]
        values = weight.values()
        order = np.argsort(-np.abs(values), axis=None, kind="stable")
        mask = np.zeros(values.size, bool)
        mask[order[: counts[layer.name]]] = True
        thinned.append(replace(weight, data=np.where(mask.reshape(values.shape), values, np.float32(0))))
    return graph.with_tensors(thinned)
