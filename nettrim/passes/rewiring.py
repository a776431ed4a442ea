"""Small edits that passes share: how often a tensor is read, other inputs, other operators."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Concat, Op, Pairwise, op_constants, op_inputs


def count_reads(graph: Graph) -> Counter[str]:
    """Return how often each activation is read; being an output of the graph counts as once."""
    return Counter([*graph.outputs, *(name for op in graph.ops for name in op_inputs(op))])


def replace_input(op: Op, old: str, new: str) -> Op:
    """Return an operator that reads ``new`` where it read ``old``."""
    if isinstance(op, Pairwise):
        return replace(op, first=new if op.first == old else op.first, second=new if op.second == old else op.second)
    if isinstance(op, Concat):
        return replace(op, inputs=tuple(new if name == old else name for name in op.inputs))
    return replace(op, input=new) if op.input == old else op


def with_ops(graph: Graph, ops: Iterable[Op]) -> Graph:
    """Return a graph of fewer operators, tensors that none of them uses dropped; the same graph if none is gone."""
    kept = tuple(ops)
    if len(kept) == len(graph.ops):
        return graph
    used = set(graph.inputs).union(*((*op_inputs(op), *op_constants(op), op.output) for op in kept))
    return replace(graph, ops=kept, tensors={name: tensor for name, tensor in graph.tensors.items() if name in used})
