"""A reshape of a reshape reads the first one's input."""

from dataclasses import replace

from nettrim.passes.rewiring import count_reads, with_ops
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Op, Reshape


def merge_reshapes(graph: Graph) -> Graph:
    """Return the graph with chains of reshapes, read by nothing else, merged into their last one."""
    reads = count_reads(graph)
    ops: dict[str, Op] = {}  # by the tensor they write
    for op in graph.ops:
        first = ops.get(op.input) if isinstance(op, Reshape) else None
        if isinstance(op, Reshape) and isinstance(first, Reshape) and reads[op.input] == 1:
            del ops[op.input]
            ops[op.output] = replace(op, input=first.input)
        else:
            ops[op.output] = op
    return with_ops(graph, ops.values())
