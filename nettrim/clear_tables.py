"""Scales moved a little until every C library rounds a function's table alike.

The reference kernels compute tables in float32. Where an entry lies next to a rounding border, the last digit of the
library's exponential, tanh or erfc would decide (`nettrim_runtime.unary.lookup_table`).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from nettrim_runtime.fixed_output import fixed_output
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import UnaryFunction
from nettrim_runtime.unary import border_distance

CLEAR = 2.0**-13  # of a step: four times what an error in the last digit of 24 moves the largest entry by
MOVE = np.float32(1 + 2.0**-14)
TRIALS = 64


def clear_tables(
    graph: Graph, family: Mapping[str, str], chosen: Mapping[str, Quantization], wide: Collection[str] = ()
) -> dict[str, Quantization]:
    """Return quantizations by family in which no table entry of a function lies next to a rounding border.

    The scale of the function's output moves, or of its input where TFLite fixes the output's; a table stays where it
    fixes both. On int16 (``wide``) functions are integer arithmetic.
    """
    moved = dict(chosen)
    fixed = {family[op.output] for op in graph.ops if fixed_output(op) is not None}
    functions = [op for op in graph.ops if isinstance(op, UnaryFunction) and op.output not in wide]
    movable = {op: family[op.output] if fixed_output(op) is None else family[op.input] for op in functions}
    movable = {op: name for op, name in movable.items() if name not in fixed}
    for _ in range(TRIALS):
        unclear = {
            name
            for op, name in movable.items()
            if border_distance(op, moved[family[op.input]], moved[family[op.output]]) < CLEAR
        }
        if not unclear:
            break
        moved |= {name: replace(moved[name], scale=moved[name].scale * MOVE) for name in unclear}
    return moved
