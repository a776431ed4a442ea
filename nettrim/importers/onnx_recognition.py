"""Functions that a file spells out in several nodes, recognised by their values: Gelu by Erf, HardSwish by Clip."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nettrim.importers.onnx_constants import fold_node
from nettrim.importers.onnx_node import Node, RefusedNodeError, needed_nodes
from nettrim_runtime.ops import Function, UnaryFunction
from nettrim_runtime.unary import evaluate

Array = npt.NDArray[Any]

# Without one of these nothing is spelled out.
SPELLING = frozenset({"Clip", "Erf", "Exp", "HardSigmoid", "Max", "Min", "Pow", "Tanh"})
POINTWISE = SPELLING | {
    "Add",
    "Div",
    "Mul",
    "Neg",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Sub",
}
GRID = np.concatenate([np.linspace(-7, 7, 281), [-20, 20]]).astype(np.float32)
TOLERANCE = 2e-5  # float32 at 20, in several steps; the two forms of Gelu differ by 4e-4
MOST_SOURCES = 8  # tensors that one may be a function of: as many nodes as Gelu takes


@dataclass(frozen=True)
class _Spelled:
    """The node that stands for a function."""

    function: Function
    op_type: str
    attributes: Mapping[str, Any]


KNOWN = (
    _Spelled(Function.GELU, "Gelu", {}),
    _Spelled(Function.GELU_TANH, "Gelu", {"approximate": b"tanh"}),
    _Spelled(Function.HARD_SWISH, "HardSwish", {}),
    _Spelled(Function.SIGMOID, "Sigmoid", {}),
    _Spelled(Function.TANH, "Tanh", {}),
)


def recognise_functions(
    nodes: Sequence[Node],
    constants: Mapping[str, Array],
    outputs: Iterable[str],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> tuple[list[Node], int]:
    """Return the nodes with each spelled-out function as one node, and how many there are.

    Parameters
    ----------
    constants : Mapping
        Initializers and Constant nodes.
    outputs : iterable of str
        What the network computes: other tensors that nothing reads any more go.
    """
    if not any(node.op_type in SPELLING for node in nodes):
        return list(nodes), 0
    scalars = {name: values for name, values in constants.items() if values.size == 1}
    curves: dict[str, dict[str, Array]] = {}  # tensor -> tensor it is a function of -> its values on GRID
    found: list[Node] = []
    for node in nodes:
        known = None
        if node.op_type in POINTWISE:
            curves[node.outputs[0]] = _curves(node, scalars, curves, opsets)
            known = _known(node, curves[node.outputs[0]])
        found.append(known or node)
    count = sum(known is not node for known, node in zip(found, nodes, strict=True))
    return needed_nodes(found, outputs), count


def _curves(
    node: Node,
    scalars: Mapping[str, Array],
    curves: Mapping[str, Mapping[str, Array]],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> dict[str, Array]:
    """Return a node's values on GRID as a function of each tensor that alone, with numbers, decides them."""
    variables = [name for name in node.inputs if name and name not in scalars]
    candidates = [{**curves.get(name, {}), name: GRID} for name in variables]
    if not candidates:
        return {}
    shared = [source for source in candidates[0] if all(source in each for each in candidates)]
    results = {}
    for source in shared[-MOST_SOURCES:]:
        given = {**scalars, **{name: each[source] for name, each in zip(variables, candidates, strict=True)}}
        try:
            results[source] = fold_node(node, [given[name] if name else None for name in node.inputs], opsets)
        except RefusedNodeError:
            return {}
    return results


def _known(node: Node, curves: Mapping[str, Array]) -> Node | None:
    """Return the one node that computes the same as this one and those before it; None if there is none."""
    for source, values in curves.items():
        for spelled in KNOWN:
            expected = evaluate(UnaryFunction("", "", "", spelled.function), GRID)
            same = values.shape == GRID.shape and np.allclose(values, expected, rtol=0, atol=TOLERANCE)
            if same and node.op_type != spelled.op_type:
                return replace(node, op_type=spelled.op_type, inputs=(source,), attributes=spelled.attributes)
    return None
