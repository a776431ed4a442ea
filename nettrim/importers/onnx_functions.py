"""ONNX nodes that apply a function of one value to every value: Sigmoid, Tanh, HardSwish, LeakyRelu, Gelu."""

import math

from nettrim.importers.onnx_conversion import Conversion
from nettrim.importers.onnx_node import Node, refuse
from nettrim_runtime.ops import Function, UnaryFunction

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
