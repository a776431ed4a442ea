"""Transposes move behind what computes value by value, to where two of them are one, or none."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from nettrim.passes.rewiring import count_reads, replace_input
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import (
    Activation,
    Op,
    Pairwise,
    Requantize,
    Transpose,
    UnaryFunction,
    op_constants,
    op_inputs,
)

BY_VALUE = Activation | UnaryFunction | Requantize | Pairwise  # whatever the order of the axes


def sink_transposes(graph: Graph) -> Graph:
    """Return the graph with each transpose as far back as it can go, and two in a row as one.

    What others read as well stays as it is.
    """
    reads = count_reads(graph)
    ops: dict[str, Op] = {}  # by the tensor they write
    tensors = dict(graph.tensors)
    for op in graph.ops:
        before = _transposes_before(op, ops, reads)
        for transpose in before:
            del ops[transpose.output]
        if not before:
            ops[op.output] = op
        elif isinstance(op, Transpose):
            order = tuple(before[0].permutation[axis] for axis in op.permutation)
            ops[op.output] = replace(op, input=before[0].input, permutation=order)
        else:
            _swap(op, before, ops, tensors)
    used = {*graph.inputs, *ops}.union(*(op_constants(op) for op in ops.values()))
    return replace(graph, ops=tuple(ops.values()), tensors={name: tensors[name] for name in tensors if name in used})


def _transposes_before(op: Op, ops: Mapping[str, Op], reads: Counter[str]) -> list[Transpose]:
    """Return the transposes that write all inputs of an operator, which alone reads them; empty if it cannot change."""
    if not isinstance(op, BY_VALUE | Transpose):
        return []
    names = op_inputs(op)
    before = [ops.get(name) for name in dict.fromkeys(names)]
    found = [each for each in before if isinstance(each, Transpose)]
    is_whole = len(found) == len(before) and all(reads[name] == names.count(name) for name in names)
    return found if is_whole and len({each.permutation for each in found}) == 1 else []


def _swap(op: Op, before: list[Transpose], ops: dict[str, Op], tensors: dict[str, Tensor]) -> None:
    """Put an operator in front of the transposes of its inputs; one transpose is left."""
    first, changed = before[0], op
    for transpose in before:
        changed = replace_input(changed, transpose.output, transpose.input)
    shape = [0] * len(first.permutation)
    for axis, size in zip(first.permutation, tensors[op.output].shape, strict=True):
        shape[axis] = size
    between = first.output
    tensors[between] = replace(tensors[op.output], name=between, shape=tuple(shape))
    ops[between] = replace(changed, output=between)
    ops[op.output] = replace(first, input=between, output=op.output)
