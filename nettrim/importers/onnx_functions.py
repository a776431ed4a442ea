"""ONNX nodes that apply a function of one value to every value: Sigmoid, Tanh, HardSwish, LeakyRelu, PRelu, Gelu."""

import math

import numpy as np

from nettrim.importers.onnx_conversion import Conversion
from nettrim.importers.onnx_layers import per_output
from nettrim.importers.onnx_node import Node, refuse
from nettrim_runtime.ops import Function, PRelu, UnaryFunction

FUNCTIONS = {"Sigmoid": Function.SIGMOID, "Tanh": Function.TANH, "HardSwish": Function.HARD_SWISH}


def convert_function(node: Node, conversion: Conversion) -> None:
    """Sigmoid, Tanh and HardSwish, which have no attributes."""
    add_function(node, conversion, FUNCTIONS[node.op_type])


def convert_leaky_relu(node: Node, conversion: Conversion) -> None:
    """LeakyRelu that rises everywhere."""
    alpha = node.number("alpha", 0.01)
    if not 0 <= alpha < math.inf:
        refuse(node, f"alpha {alpha}, expected zero or more")
    add_function(node, conversion, Function.LEAKY_RELU, alpha)


def convert_prelu(node: Node, conversion: Conversion) -> None:
    """PRelu with a slope a channel, or one for all: then it is a LeakyRelu."""
    slope = conversion.constant(node, 1, "slope")
    value, builder = conversion.value(node), conversion.builder
    n_channels = (builder.tensors[value.tensor].shape or (1,))[-1]
    try:
        slopes = per_output(value, np.broadcast_to(slope, (1, *value.shape))[0], n_channels)
    except ValueError:
        refuse(node, f"slopes of shape {slope.shape} for an input of shape {('batch', *value.shape)}")
    if slopes is None:
        refuse(node, f"slopes of shape {slope.shape} that differ within a channel, expected one a channel")
    if (slopes == slopes[0]).all() and 0 <= slopes[0] < math.inf:
        add_function(node, conversion, Function.LEAKY_RELU, float(slopes[0]))
        return
    name, output = builder.op_name(node.name), builder.tensor_name(node.outputs[0])
    slope_name = builder.add_constant(f"{node.name}.slope", slopes)
    conversion.put(node, builder.add(PRelu(name, value.tensor, slope_name, output)), value.positions)


def convert_gelu(node: Node, conversion: Conversion) -> None:
    """Gelu of either form."""
    approximate = node.text("approximate", "none")
    if approximate not in {"none", "tanh"}:
        refuse(node, f"approximate {approximate!r}, expected 'none' or 'tanh'")
    add_function(node, conversion, Function.GELU if approximate == "none" else Function.GELU_TANH)


def add_function(node: Node, conversion: Conversion, function: Function, alpha: float = 0.0) -> None:
    """Append a function of a node's input as its output."""
    value, builder = conversion.value(node), conversion.builder
    name, output = builder.op_name(node.name), builder.tensor_name(node.outputs[0])
    op = UnaryFunction(name, value.tensor, output, function, alpha)
    conversion.put(node, builder.add(op), value.positions)
