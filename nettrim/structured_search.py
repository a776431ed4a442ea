"""From a convex screen to weights that keep a structure exactly: whole groups, N:M, bounds; then the refit."""

from dataclasses import dataclass, field, replace

import numpy as np

from nettrim.admm import prepare, solve_prepared
from nettrim.admm_loop import AdmmSettings
from nettrim.layer_problem import LayerProblem, neuron_distances
from nettrim.layer_solution import LayerSolution, evaluate
from nettrim.refit import RefitSettings, fit_on_support
from nettrim.structure import L1Norm, Structure
from nettrim.structure_names import NOfM, largest_of_every
from nettrim_runtime.graph import Array

MEDIAN_SHARE = 0.2  # of the weights' median beside |w| in the costs: bounds the cost of a zero by 5


@dataclass(frozen=True)
class PatternSettings:
    """How to find N:M weights.

    Attributes
    ----------
    admm : AdmmSettings
        Of each convex solve.
    refit : RefitSettings
        Of the fit on the chosen weights.
    reweighted_rounds : int
        Solves after the first, each with the costs that the one before gives.
    """

    admm: AdmmSettings = field(default_factory=AdmmSettings)
    refit: RefitSettings = field(default_factory=RefitSettings)
    reweighted_rounds: int = 1


def solve_n_of_m(problem: LayerProblem, pattern: NOfM, settings: PatternSettings | None = None) -> LayerSolution:
    """Keep n of every m weights: reweighted l1 screens at the problem's epsilon, then selection and refit.

    Candes, Wakin, Boyd, "Enhancing Sparsity by Reweighted l1 Minimization" (2008): each round is convex, the
    selection is not. It goes over n + 1 of m, refitted: on LeNet-300-100's first layer the distance is then
    5 to 25 % smaller, on its second it makes no difference. Where the screen keeps fewer than n, the largest
    original weights fill up: they cost no storage. Best with an epsilon near the distance that the pattern
    allows. The problem's own structure is not used.

    Returns
    -------
    LayerSolution
        ``status`` and ``relative_gaps`` are those of the last screen, before the selection; ``distance`` may
        exceed ``epsilon``, since the pattern comes first.
    """
    settings = settings or PatternSettings()
    layer = prepare(replace(problem, structure=L1Norm()), settings.admm)
    screen = solve_prepared(layer, settings.admm)
    iterations = screen.iterations
    for _ in range(settings.reweighted_rounds):
        if screen.nnz == 0:
            break
        costs = reweighted_costs(screen.W)
        weighted = replace(problem, structure=L1Norm(costs=costs))
        screen = solve_prepared(replace(layer, problem=weighted), settings.admm)
        iterations += screen.iterations
    W, bias = screen.W, screen.bias
    for n in (pattern.n + 1, pattern.n):
        support = largest_of_every(weight_sizes(problem, W) * layer.live_outputs, n, pattern.m)
        W, bias = fit_on_support(problem, np.where(support, W, np.float32(0)), bias, support, settings.refit)
    return evaluate(problem, W, bias, screen.status, iterations=iterations, gaps=screen.relative_gaps)


def reweighted_costs(W: Array) -> Array:
    """Return (n_inputs, n_outputs) float32 costs median / (|W| + 0.2 median), the median of weights that are not zero.

    Large weights become cheap and small ones dear; at least one weight must not be zero.
    """
    sizes = np.abs(W)
    median = np.median(sizes[sizes > 0])
    costs: Array = (median / (sizes + MEDIAN_SHARE * median)).astype(np.float32)
    return costs


def weight_sizes(problem: LayerProblem, W: Array) -> Array:
    """Return (n_inputs, n_outputs): what each weight is worth, |w| times its input's root mean square.

    Weights that are zero in W come after all others, in the order of the original weights; those that cannot
    matter are 0: an input that is always zero, an original weight of 0.
    """
    rms = problem.input_rms
    original = np.abs(problem.W) * rms
    sizes: Array = np.where(W != 0, np.abs(W) * rms + original.max(initial=0.0), original)
    return sizes


def support_of(structure: Structure, sizes: Array, nnz: int) -> Array:
    """Return (n_inputs, n_outputs) bool: at most ``nnz`` weights, in whole groups, largest mean square first.

    Parameters
    ----------
    sizes : Array
        (n_inputs, n_outputs), not negative, as `weight_sizes`. Those that are 0 are not kept and not counted.
    """
    counts = structure.block_norms((sizes > 0).astype(np.float64)) ** 2
    score = structure.block_norms(sizes) / np.sqrt(np.maximum(counts, 1.0))
    order = np.argsort(-score, axis=None, kind="stable")
    fits = np.cumsum(np.rint(counts.reshape(-1)[order])) <= nnz
    kept = np.zeros(score.size, bool)
    kept[order[fits]] = True
    support: Array = structure.spread(kept.reshape(score.shape), sizes.shape) & (sizes > 0)
    return support


def refit_within(
    problem: LayerProblem, W: Array, bias: Array, support: Array, settings: RefitSettings
) -> tuple[Array, Array]:
    """Do as `fit_on_support`, but keep the weights within the bounds of the problem's structure.

    An active set that only grows: weights that the fit moves out of their bounds stay at them, the rest is
    fitted again. A neuron whose distance would increase keeps W, moved into the bounds, and bias.
    """
    if not problem.structure.is_bounded:
        return fit_on_support(problem, W, bias, support, settings)
    W = problem.structure.project(W)
    fitted, offset, free = W, bias, support
    for _ in range(W.size + 1):
        fitted, offset = fit_on_support(problem, fitted, offset, free, settings)
        within = problem.structure.project(fitted)
        outside = within != fitted
        if not np.any(outside):
            break
        fitted, free = within, free & ~outside
    better = neuron_distances(problem, fitted, offset) < neuron_distances(problem, W, bias)
    return np.where(better, fitted, W), np.where(better, offset, bias)
