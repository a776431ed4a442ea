"""How errors pass through operators that work value by value: what their arithmetic adds, what they hand on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.operator_norm import ROUND_UP
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Function, Mul, Op, Pairwise, UnaryFunction
from nettrim_runtime.unary import evaluate, lookup_table

Array = npt.NDArray[Any]


def table_error(graph: Graph, op: UnaryFunction) -> float:
    """Return the largest distance of all a function's integer outputs from its real ones, saturated ones included."""
    source, target = graph.quantization(op.input), graph.quantization(op.output)
    dtype = graph.tensors[op.output].dtype
    limits = np.iinfo(dtype)
    inputs = (np.arange(limits.min, limits.max + 1.0) - source.zero_point) * float(source.scale[0])
    outputs = (lookup_table(op, source, target, dtype).astype(np.float64) - target.zero_point) * float(target.scale[0])
    return float(np.abs(outputs - evaluate(op, inputs)).max()) * ROUND_UP


def carried_by_pair(
    op: Pairwise, bounds: Sequence[Array], values: Sequence[Array], tensors: Mapping[str, Tensor]
) -> Array:
    """Return how far errors of two inputs move their sum, difference or product at most.

    A product moves by d1 * x2 + x1 * d2 + d1 * d2; an input that is broadcast counts once a copy.

    Parameters
    ----------
    bounds : sequence of Array
        (n_samples,) each: the Euclidean norms of d1 and d2 at most.
    values : sequence of Array
        (n_samples, *shape) each: x1 and x2.
    """
    size = tensors[op.output].size
    copies = (math.sqrt(size / tensors[name].size) for name in (op.first, op.second))
    first, second = (bound * factor for bound, factor in zip(bounds, copies, strict=True))
    if not isinstance(op, Mul):
        total: Array = first + second
        return total
    largest_first, largest_second = (np.abs(value).reshape(len(value), -1).max(axis=1) for value in values)
    moved: Array = (first * largest_second + second * largest_first + bounds[0] * second) * ROUND_UP
    moved[np.isnan(moved)] = np.inf  # an infinite bound beside zeros
    return moved


def output_span(op: Op, size: int) -> float:
    """Return the largest distance of two outputs of an operator whose values are bounded, else infinity."""
    spans = {Function.SIGMOID: 1.0, Function.TANH: 2.0}
    return spans.get(op.function, math.inf) * math.sqrt(size) if isinstance(op, UnaryFunction) else math.inf


def scaled(factors: Array | float, bounds: Array) -> Array:
    """Return factors times bounds; what a factor of 0 leaves of any bound, even an infinite one, is 0."""
    products: Array = np.where(np.asarray(factors) > 0, factors * bounds, 0.0)
    return products
