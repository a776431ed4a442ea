"""Functions that a file spells out in several nodes, recognised by their values: Gelu by Erf, HardSwish by Clip."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import onnx

from nettrim.importers.function_recognition import curves_on_grid, known_functions
from nettrim.importers.onnx_constants import fold_node
from nettrim.importers.onnx_node import Node, RefusedNodeError, needed_nodes
from nettrim_runtime.ops import Function

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
KNOWN: Mapping[Function, tuple[str, Mapping[str, Any]]] = {  # the node that stands for a function
    Function.GELU: ("Gelu", {}),
    Function.GELU_TANH: ("Gelu", {"approximate": b"tanh"}),
    Function.HARD_SWISH: ("HardSwish", {}),
    Function.SIGMOID: ("Sigmoid", {}),
    Function.TANH: ("Tanh", {}),
}


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
            compute = functools.partial(_compute, node, opsets)
            curves[node.outputs[0]] = curves_on_grid(node.inputs, scalars, curves, compute)
            known = _known(node, curves[node.outputs[0]])
        found.append(known or node)
    count = sum(known is not node for known, node in zip(found, nodes, strict=True))
    return needed_nodes(found, outputs), count


def _compute(node: Node, opsets: Sequence[onnx.OperatorSetIdProto], inputs: Sequence[Array | None]) -> Array | None:
    try:
        return fold_node(node, inputs, opsets)
    except RefusedNodeError:
        return None


def _known(node: Node, curves: Mapping[str, Array]) -> Node | None:
    """Return the one node that computes the same as this one and those before it; None if there is none."""
    for source, function in known_functions(curves):
        op_type, attributes = KNOWN[function]
        if node.op_type != op_type:
            return replace(node, op_type=op_type, inputs=(source,), attributes=attributes)
    return None
