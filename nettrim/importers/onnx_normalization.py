"""ONNX LayerNormalization, also where a file spells it out: operators that TFLite has on int8."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.layer_normalization import add_normalization
from nettrim.importers.normalization_pattern import POWERS, Expression, Normalization, expression, find_normalizations
from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_layers import scale_values
from nettrim.importers.onnx_node import Node, axis_place, needed_nodes, refuse

Array = npt.NDArray[Any]

KINDS = {
    "Add": "add",
    "Div": "div",
    "Mul": "mul",
    "Reciprocal": "reciprocal",
    "ReduceMean": "mean",
    "Sqrt": "root",
    "Sub": "sub",
}
AXES = "axes"  # of a LayerNormalization that was spelled out; ONNX's own has the first of the last ones


def convert_layer_normalization(node: Node, conversion: Conversion) -> None:
    """LayerNormalization over the last axes: (x - mean) / sqrt(variance + epsilon) * scale + bias."""
    value = conversion.value(node)
    scale, bias = (_read_factors(node, conversion, value, place) for place in (1, 2))
    axes = _read_axes(node, value)
    size = int(np.prod([value.shape[axis - 1] for axis in axes])) if 0 not in axes else 0
    if not size or not _lie_together(value, axes, size):
        refuse(node, f"axes {axes} of {('batch', *value.shape)}, expected values that lie side by side in the graph")
    tensor = add_normalization(conversion.builder, node.name, value.tensor, size, node.number("epsilon", 1e-5))
    before = replace(node, outputs=(conversion.between(node, "normalized"),))
    conversion.put(before, tensor, value.positions)
    after = replace(node, inputs=before.outputs)
    factors = np.ones(()) if scale is None else scale
    offsets = np.zeros(()) if bias is None else bias
    scale_values(after, conversion, conversion.value(after), factors, offsets, what="factors of normalisations")


def recognise_normalizations(
    nodes: Sequence[Node], constants: Mapping[str, Array], outputs: Iterable[str]
) -> tuple[list[Node], int]:
    """Return the nodes with each spelled-out layer normalisation as one node, and how many there are.

    Parameters
    ----------
    constants : Mapping
        Initializers and Constant nodes.
    outputs : iterable of str
        What the network computes: other tensors that nothing reads any more go.
    """
    if not any(node.op_type == "ReduceMean" for node in nodes):
        return list(nodes), 0
    file = _File({node.outputs[0]: node for node in nodes if len(node.outputs) == 1}, constants)
    found = find_normalizations(file.nodes, file)
    changed = [_as_node(node, found[node.outputs[0]]) if node.outputs[0] in found else node for node in nodes]
    kept = needed_nodes(changed, outputs)
    count = sum(node.op_type == "LayerNormalization" and AXES in node.attributes for node in kept)
    return kept if count else list(nodes), count


@dataclass(frozen=True)
class _File:
    """The nodes by the tensor that they alone write, as `normalization_pattern.Expressions`."""

    nodes: Mapping[str, Node]
    constants: Mapping[str, Array]

    def find(self, name: str) -> Expression | None:
        node = self.nodes.get(name)
        if node is None:
            return None
        kind: str | None = KINDS.get(node.op_type)
        if node.op_type == "Pow" and len(node.inputs) == 2:
            return expression(POWERS.get(self.number(node.inputs[1]) or 0.0), node.inputs[:1])
        return self._mean(node) if kind == "mean" else expression(kind, node.inputs)

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def number(self, name: str) -> float | None:
        values = self.constants.get(name)
        is_number = values is not None and values.size == 1 and values.dtype.kind in "fiu"
        return float(values.reshape(-1)[0]) if values is not None and is_number else None

    def _mean(self, node: Node) -> Expression | None:
        axes: Any = node.attributes.get("axes")
        if len(node.inputs) > 1:
            axes = self.constants.get(node.inputs[1])
        if axes is None or np.asarray(axes).dtype.kind != "i" or not node.integer("keepdims", 1):
            return None
        return expression("mean", node.inputs[:1], tuple(int(axis) for axis in np.ravel(axes)))


def _as_node(node: Node, found: Normalization) -> Node:
    inputs = (found.source, found.scale or "", found.offset or "")
    attributes = {AXES: found.axes, "epsilon": found.epsilon}
    return replace(node, op_type="LayerNormalization", inputs=inputs, attributes=attributes)


def _read_factors(node: Node, conversion: Conversion, value: Value, place: int) -> Array | None:
    """Return scale or bias, float64, in the shape of the input; None where it is left out."""
    values = conversion.optional_constant(node, place, ("scale", "bias")[place - 1])
    if values is None:
        return None
    try:
        spread: Array = np.broadcast_to(values.astype(np.float64), (1, *value.shape))[0]
    except ValueError:
        refuse(node, f"a scale or bias of shape {values.shape} for an input of shape {('batch', *value.shape)}")
    return spread


def _read_axes(node: Node, value: Value) -> list[int]:
    rank = len(value.shape) + 1
    listed = node.attributes.get(AXES)
    if listed is not None:
        return sorted({axis_place(node, axis, rank) for axis in listed})
    return list(range(axis_place(node, node.integer("axis", -1), rank), rank))


def _lie_together(value: Value, axes: Sequence[int], size: int) -> bool:
    """Whether each ``size`` values that are normalised together are a stretch of the graph's tensor."""
    behind = np.moveaxis(value.positions, [axis - 1 for axis in axes], range(-len(axes), 0))
    rows = behind.reshape(-1, size)
    return bool((rows // size == rows[:, :1] // size).all())
