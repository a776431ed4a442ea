"""One ONNX node with its attributes read, and the ways to refuse it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx

from nettrim.importers.onnx_file import DEFAULT_DOMAINS


@dataclass(frozen=True, eq=False)
class Node:
    """An ONNX node.

    Attributes
    ----------
    op_type : str
        With the domain in front when it is not ONNX's own.
    name : str
        The node's name, or its first output's when it has none.
    inputs, outputs : tuple of str
        Tensor names; "" stands for an optional one left out.
    attributes : Mapping of str to Any
        Numbers, lists, text and onnx.TensorProto.
    opset : int
        Version of the operator set.
    proto : onnx.NodeProto
        The node itself.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    proto: onnx.NodeProto

    def number(self, name: str, default: float) -> float:
        """Return a number among the attributes."""
        return float(self.attributes.get(name, default))

    def integer(self, name: str, default: int) -> int:
        """Return an integer among the attributes."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a list of integers among the attributes, which must have as many as the default."""
        values = tuple(int(value) for value in self.attributes.get(name, default))
        if len(values) != len(default):
            refuse(self, f"{name} has {len(values)} entries, expected {len(default)}: two-dimensional windows only")
        return values

    def text(self, name: str, default: str) -> str:
        """Return a text among the attributes."""
        value = self.attributes.get(name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class RefusedNodeError(Exception):
    """A node that cannot be carried over: which, and why."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(f"{node.op_type} {node.name!r}: {reason}")
        self.node = node
        self.reason = reason


class UnknownInputError(Exception):
    """A node reads what a refused node would have written: nothing can be said about it."""


def refuse(node: Node, reason: str) -> NoReturn:
    """Raise RefusedNodeError."""
    raise RefusedNodeError(node, reason)


def axis_place(node: Node, axis: int, rank: int) -> int:
    """Return which axis a node means, counted from the first; negative ones count from the last."""
    if not -rank <= axis < rank:
        refuse(node, f"axis {axis} of an input with {rank} axes, expected one of them")
    return axis % rank


def read_integers(node: Node, values: Any) -> list[int]:
    """Return the integers among an attribute or a constant; refuse the node when they are others."""
    entries = np.ravel(values)
    if entries.size and not np.issubdtype(entries.dtype, np.integer):
        refuse(node, f"bounds of type {entries.dtype}, expected integers")
    return [int(entry) for entry in entries]


def needed_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """Return the nodes that outputs depend on, in their order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def read_node(proto: onnx.NodeProto, opset: int) -> Node:
    """Return a node of the model as a Node."""
    domain = "" if proto.domain in DEFAULT_DOMAINS else f"{proto.domain}::"
    return Node(
        op_type=f"{domain}{proto.op_type}",
        name=proto.name or next(iter(proto.output), ""),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute},
        opset=opset,
        proto=proto,
    )
