"""The sparsest network within a drop: sparsities are tried, and judged on samples that no layer is fitted to."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nettrim.calibrate import Quantize
from nettrim.evaluate import has_classes, run_deployed
from nettrim.goal import Measure, allowed_text, lost_text
from nettrim.precision import widen_until
from nettrim.progress import SILENT, Progress
from nettrim.prune import PruneResult, PruneSettings, measure_budget, prune
from nettrim.samples import Samples, split_held_out
from nettrim.statistics import predicted_classes, relative_error, share_equal
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

AIM = 0.7  # of the drop: what the chosen samples show is not quite what others will
NEAR = 0.6  # of the aim: no sparser network is looked for from there
MAX_TRIALS = 5
FIRST_DENSITY, LEAST_DENSITY = 0.12, 1e-3
EXPONENT = 1.5  # drop ~ density^-1.5, until two trials tell
EXPONENT_RANGE = (0.7, 4.0)
LARGEST_STEP = 3.0  # from one density to the next
CLOSE = 1.1  # densities of the bracket's ends that are not worth another trial


class Trial(NamedTuple):
    """A sparsity that was tried, the drop of the deployed network there, and whether that is within the aim."""

    sparsity: float
    drop: float
    is_kept: bool


class Found(NamedTuple):
    """The sparsest network within the drop, else the best one; its int16 activations; and every trial in order."""

    result: PruneResult
    sparsity: float
    is_within: bool
    trials: tuple[Trial, ...]
    wide: frozenset[str] = frozenset()


class _Tried(NamedTuple):
    trial: Trial
    result: PruneResult
    wide: frozenset[str]


def prune_to_drop(
    graph: Graph,
    samples: Samples,
    max_drop: float,
    settings: PruneSettings,
    *,
    rng: np.random.Generator,
    quantizer: Callable[[Graph, Array], Quantize],
    wide: frozenset[str] = frozenset(),
    may_widen: bool = True,
    progress: Progress = SILENT,
) -> Found:
    """Prune as far as the deployed network's drop allows, judged on a fifth of the samples, the rest fits.

    Parameters
    ----------
    max_drop : float
        As `measure_drop` counts; the search aims at 0.7 of it. Of an output error, at 0.7 of what quantising the
        original network leaves of it, where that is more.
    quantizer : callable
        As `nettrim.calibrate.quantizer`.
    wide : frozenset of str
        Activations that are int16 in any case.
    may_widen : bool
        Whether others become int16 where the pruned network keeps the drop and its int8 version does not
        (`nettrim.precision`).
    """
    fit, judged = split_held_out(samples, rng)
    drop_of, measure = judge_on(graph, judged), measure_of(graph, judged)
    budget = measure_budget(graph, fit.x, settings, rng, progress)
    seed = int(rng.integers(1 << 31))

    def judge(network: Graph, aim: float) -> tuple[frozenset[str], float]:
        """Return which activations of a float network are int16, and what it then loses."""
        quantize = quantizer(network, fit.x)
        drop = drop_of(quantize(wide))
        if not may_widen or not drop > aim >= drop_of(network):
            return wide, drop
        progress("looking for layers that need int16")
        return widen_until(network, fit.x, quantize, drop_of, aim)

    least = judge(graph, AIM * max_drop)[1] if measure == "output error" else 0.0
    least = least if least < max_drop else 0.0
    aim, tried = least + AIM * (max_drop - least), list[_Tried]()
    progress.keep(f"looking for the sparsest network: {allowed_text(aim, measure)} on {len(judged)} samples set apart")

    def attempt(density: float) -> float:
        number, sparsity = len(tried) + 1, 1 - density
        progress.start_trial(number, max(number, MAX_TRIALS))
        progress(f"trying sparsity {sparsity:.1%}")
        wanted = replace(settings, sparsity=sparsity)
        result = prune(graph, fit.x, wanted, np.random.default_rng(seed), progress, budget=budget)
        needed, drop = judge(result.graph, aim)
        progress.end_trial()
        tried.append(_Tried(Trial(sparsity, drop, drop <= aim), result, needed))
        verdict = "kept" if drop <= aim else "missed"
        progress.keep(f"trial {number}: at sparsity {sparsity:.1%} {lost_text(drop, measure)}: {verdict}")
        return drop

    def excess(drop: float) -> float:
        """Return what pruning adds to the error of int8: independent errors add up in squares."""
        return math.sqrt(max(drop**2 - least**2, 0.0))

    search_density(lambda density: excess(attempt(density)), excess(aim), floor=0.5 / len(judged))
    if all(one.trial.drop > max_drop for one in tried):
        attempt(1.0)
    within = [one for one in tried if one.trial.drop <= aim]
    best = max(within, key=_sparsity) if within else min(tried, key=lambda one: (one.trial.drop, one.trial.sparsity))
    if not within and best.trial.drop <= max_drop:
        progress.keep(
            f"trial {tried.index(best) + 1} is taken, which keeps the goal: {allowed_text(max_drop, measure)}"
        )
    trials = tuple(one.trial for one in tried)
    return Found(best.result, best.trial.sparsity, best.trial.drop <= max_drop, trials, best.wide)


def search_density(attempt: Callable[[float], float], aim: float, floor: float) -> None:
    """Try densities until a drop lies a little below ``aim``: secant steps in logarithms within a bracket.

    Parameters
    ----------
    floor : float
        The least drop that can be told from none.
    """
    low, high = math.log(LEAST_DENSITY), 0.0  # too few weights at low, enough at high
    x, exponent = math.log(FIRST_DENSITY), EXPONENT
    last: tuple[float, float] | None = None
    for _ in range(MAX_TRIALS):
        drop = attempt(math.exp(x))
        low, high = (x, high) if drop > aim else (low, x)
        if NEAR * aim <= drop <= aim or high - low < math.log(CLOSE):
            return
        point = x, math.log(max(drop, floor, np.finfo(float).tiny))
        if last is not None and x != last[0]:
            exponent = min(max((last[1] - point[1]) / (x - last[0]), EXPONENT_RANGE[0]), EXPONENT_RANGE[1])
        last = point
        wanted = math.log(max((1 + NEAR) / 2 * aim, floor / 2))
        step = (point[1] - wanted) / exponent
        x += min(max(step, -math.log(LARGEST_STEP)), math.log(LARGEST_STEP))
        if not low < x < high:
            x = (low + high) / 2


def measure_drop(original: Graph, deployed: Graph, samples: Samples) -> float:
    """Return what a network, pruned or deployed, loses: accuracy with labels, else agreement, else output error."""
    return judge_on(original, samples)(deployed)


def measure_of(graph: Graph, samples: Samples) -> Measure:
    """Return what a network's drop is counted in on samples."""
    if not has_classes(graph, samples):
        return "output error"
    return "agreement" if samples.labels is None else "accuracy"


def judge_on(original: Graph, samples: Samples) -> Callable[[Graph], float]:
    """Return `measure_drop` for any network beside one original on the same samples, which is run once."""
    before, measure = run_graph(original, samples.x), measure_of(original, samples)

    def drop_of(deployed: Graph) -> float:
        after = run_deployed(deployed, samples.x)
        if measure == "output error":
            return relative_error(after, before)
        classes = predicted_classes(before), predicted_classes(after)
        if samples.labels is None:
            return 1 - share_equal(*classes)
        right = [share_equal(found, samples.labels) for found in classes]
        return max(0.0, right[0] - right[1])

    return drop_of


def _sparsity(tried: _Tried) -> float:
    return tried.trial.sparsity
