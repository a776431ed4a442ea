"""ONNX nodes that work value by value: clamps, Softmax and LogSoftmax."""

from dataclasses import replace
from typing import Any

import numpy as np

from nettrim.importers.clamps import known_clamp, scaled_clamp
from nettrim.importers.onnx_conversion import Conversion
from nettrim.importers.onnx_layers import scale_values
from nettrim.importers.onnx_node import Node, axis_place, refuse
from nettrim_runtime.ops import Activation, ActivationFunction, LogSoftmax, Softmax

UNBOUNDED = float(np.finfo(np.float32).max)  # ONNX writes "no bound" as the largest float32 too


def convert_relu(node: Node, conversion: Conversion) -> None:
    """Relu."""
    _add_activation(node, conversion, ActivationFunction.RELU)


def convert_clip(node: Node, conversion: Conversion) -> None:
    """Clip to any bounds."""
    bounds: list[Any] = [node.attributes.get("min"), node.attributes.get("max")]
    if node.opset >= 11:
        bounds = [conversion.optional_constant(node, 1, "min"), conversion.optional_constant(node, 2, "max")]
    if any(bound is not None and np.size(bound) != 1 for bound in bounds):
        refuse(node, f"bounds {[np.shape(bound) for bound in bounds]}, expected single numbers")
    lower = float("-inf") if bounds[0] is None else float(np.ravel(bounds[0])[0])
    upper = float("inf") if bounds[1] is None else float(np.ravel(bounds[1])[0])
    lower, upper = (float("-inf") if lower <= -UNBOUNDED else lower), (float("inf") if upper >= UNBOUNDED else upper)
    if not lower < upper:
        refuse(node, f"bounds ({lower}, {upper}), expected the smaller one first")
    _add_clamp(node, conversion, lower, upper)


def convert_extreme(node: Node, conversion: Conversion) -> None:
    """Max or Min of an activation and one number: a clamp from one side, as torch exports clamp(min=0)."""
    numbers = [conversion.constants[name] for name in node.inputs if name in conversion.constants]
    activations = tuple(name for name in node.inputs if name not in conversion.constants)
    if len(numbers) != 1 or len(activations) != 1 or numbers[0].size != 1:
        refuse(node, f"{len(activations)} activations and {len(numbers)} constants, expected one and one number")
    bound, infinity = float(numbers[0].ravel()[0]), float("inf")
    bounds = (bound, infinity) if node.op_type == "Max" else (-infinity, bound)
    _add_clamp(replace(node, inputs=activations), conversion, *bounds)


def convert_hard_sigmoid(node: Node, conversion: Conversion) -> None:
    """HardSigmoid: alpha * x + beta, cut off at 0 and 1."""
    scaled = replace(node, name=f"{node.name}.scaled", outputs=(conversion.between(node, "scaled"),))
    alpha, beta = (np.array(node.number(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    scale_values(scaled, conversion, conversion.value(node), alpha, beta)
    _add_clamp(replace(node, inputs=scaled.outputs), conversion, 0.0, 1.0)


def convert_softmax(node: Node, conversion: Conversion) -> None:
    """Softmax and LogSoftmax over all features of a sample."""
    value = conversion.value(node)
    rank = len(value.shape) + 1
    axis = axis_place(node, node.integer("axis", -1 if node.opset >= 13 else 1), rank)
    covers_rest = node.opset < 13  # before opset 13 it took all axes from `axis` on as one
    n_covered = int(np.prod(value.shape[axis - 1 :])) if covers_rest else (axis > 0 and value.shape[axis - 1])
    if axis == 0 or n_covered != value.positions.size:
        refuse(node, f"axis {axis} of {('batch', *value.shape)}, expected the last axis of a flat input")
    builder = conversion.builder
    flat = builder.reshape(value.tensor, (value.positions.size,))
    name, output = builder.op_name(node.name), builder.tensor_name(node.outputs[0])
    operator = Softmax if node.op_type == "Softmax" else LogSoftmax
    conversion.put(node, builder.add(operator(name, flat, output)), value.positions)


def _add_clamp(node: Node, conversion: Conversion, lower: float, upper: float) -> None:
    """Append a clamp of TFLite's, between scalings where the bounds are others."""
    function = known_clamp(lower, upper)
    if function is not None:
        _add_activation(node, conversion, function)
        return
    known, scale, offset = scaled_clamp(lower, upper)
    before = replace(node, name=f"{node.name}.before", outputs=(conversion.between(node, "before"),))
    scale_values(before, conversion, conversion.value(node), np.array(scale), np.array(offset))
    clamp = replace(
        node, name=f"{node.name}.clamp", inputs=before.outputs, outputs=(conversion.between(node, "clamp"),)
    )
    _add_activation(clamp, conversion, known)
    after = replace(node, inputs=clamp.outputs)
    scale_values(after, conversion, conversion.value(after), np.array(1 / scale), np.array(-offset / scale))


def _add_activation(node: Node, conversion: Conversion, function: ActivationFunction) -> None:
    value = conversion.value(node)
    builder = conversion.builder
    name, output = builder.op_name(node.name), builder.tensor_name(node.outputs[0])
    op = Activation(name, value.tensor, output, function)
    conversion.put(node, builder.add(op), value.positions)
