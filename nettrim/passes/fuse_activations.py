"""Clamps that stand alone move into the operator that computes their input."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from nettrim.passes.rewiring import count_reads, with_ops
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Activation, ActivationFunction, Clamping, MaxPool2d, Move, Op, Reshape

ORDER_KEEPING = MaxPool2d | Reshape | Move  # a clamp never decreases and keeps zero, so it may come before them


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with every clamp fused that has a layer, a sum, difference or product, or a clamp before it.

    Max pooling, reshaping and moves may lie between: clamp(max(x)) = max(clamp(x)). What others
    read as well stays as it is.
    """
    reads = count_reads(graph)
    ops: dict[str, Op] = {}  # by the tensor they write
    for op in graph.ops:
        path = _path_to_clamping(op, ops, reads) if isinstance(op, Activation) else ()
        if isinstance(op, Activation) and path:
            _fuse(op, path, ops)
        else:
            ops[op.output] = op
    return with_ops(graph, ops.values())


def compose_clamps(first: ActivationFunction, second: ActivationFunction) -> ActivationFunction | None:
    """Return the function that clamps as ``first`` and then ``second`` do; None when there is none."""
    bounds = tuple(min(max(bound, second.lower), second.upper) for bound in (first.lower, first.upper))
    return next((function for function in ActivationFunction if (function.lower, function.upper) == bounds), None)


def _path_to_clamping(activation: Activation, ops: Mapping[str, Op], reads: Counter[str]) -> tuple[Op, ...]:
    """Return the operators from the one that takes the clamp to the one right before it; empty if none takes it."""
    path: tuple[Op, ...] = ()
    tensor = activation.input
    while tensor in ops and reads[tensor] == 1:
        op = ops[tensor]
        path = (op, *path)
        if isinstance(op, Clamping):
            return path if compose_clamps(op.activation, activation.activation) else ()
        if not isinstance(op, ORDER_KEEPING):
            return ()
        tensor = op.input
    return ()


def _fuse(activation: Activation, path: tuple[Op, ...], ops: dict[str, Op]) -> None:
    first = path[0]
    composed = compose_clamps(first.activation, activation.activation) if isinstance(first, Clamping) else None
    if isinstance(first, Clamping) and composed:
        ops[first.output] = replace(first, activation=composed)
    ops[activation.output] = replace(ops.pop(path[-1].output), output=activation.output)
