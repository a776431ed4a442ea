"""Which layers int8 is too coarse for: their activations become int16, one class after the other, while it helps."""

from collections.abc import Callable

from nettrim.calibrate import Quantize
from nettrim.evaluate import run_deployed
from nettrim.statistics import relative_error
from nettrim.widen import widenable_together
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

ORDER_SAMPLES = 256  # that tell which class to widen first


def widen_until(
    graph: Graph, samples: Array, quantize: Quantize, judge: Callable[[Graph], float], aim: float
) -> tuple[frozenset[str], float]:
    """Return the activations that need int16 for a drop within ``aim``, or the best ones there are, and the drop.

    The class whose widening alone brings the output nearest to the float network's goes first.

    Parameters
    ----------
    graph : Graph
        Float, as it is quantised.
    samples : Array
        (n_samples, *graph input shape) float32.
    judge : callable
        quantised graph -> its drop.
    """
    wide, best = frozenset[str](), (frozenset[str](), judge(quantize(frozenset())))
    for found in _by_gain(graph, samples[:ORDER_SAMPLES], quantize):
        if best[1] <= aim:
            break
        wide |= found
        drop = judge(quantize(wide))
        if drop < best[1]:
            best = wide, drop
    return best


def _by_gain(graph: Graph, samples: Array, quantize: Quantize) -> list[frozenset[str]]:
    exact = run_graph(graph, samples)

    def error(found: frozenset[str]) -> float:
        return relative_error(run_deployed(quantize(found), samples), exact)

    return sorted(widenable_together(graph), key=error)
