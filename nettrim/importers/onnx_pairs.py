"""ONNX nodes of two operands, value by value: sums, products, Pow, Neg and Swish, of activations or with a constant."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion
from nettrim.importers.onnx_functions import add_function
from nettrim.importers.onnx_layers import scale_values
from nettrim.importers.onnx_node import Node, refuse
from nettrim.importers.onnx_transposes import natural_order
from nettrim_runtime.ops import Add, Function, Mul, Pairwise, Sub

Array = npt.NDArray[Any]

OPERATORS: Mapping[str, type[Pairwise]] = {"Add": Add, "Sub": Sub, "Mul": Mul}


def convert_pair(node: Node, conversion: Conversion) -> None:
    """Add, Sub, Mul and Div; a constant operand is folded into the layer before or becomes a 1x1 convolution."""
    constants = [conversion.constants.get(name) for name in node.inputs]
    for index, constant in enumerate(constants):
        if constant is not None:
            _combine_with_constant(node, conversion, 1 - index, constant)
            return
    if node.op_type == "Div":
        refuse(node, "a division by what the network computes, expected one by a constant")
    first, second = conversion.value(node, 0), conversion.value(node, 1)
    if len(first.shape) != len(second.shape):
        refuse(node, f"inputs of shapes {first.shape} and {second.shape}, expected equally many axes")
    if first.shape == second.shape:
        other = conversion.arrange_as(node, second, first)
        conversion.put(node, _add(node, conversion, first.tensor, other), first.positions)
        return
    order = natural_order(max((first, second), key=lambda value: value.positions.size).positions)
    tensors = [conversion.arrange(node, value, order) for value in (first, second)]
    conversion.put_ordered(node, _add(node, conversion, *tensors), order)


def convert_swish(node: Node, conversion: Conversion) -> None:
    """Swish, also called SiLU: x * sigmoid(x)."""
    if node.number("alpha", 1.0) != 1:
        refuse(node, f"alpha {node.number('alpha', 1.0)}, expected 1")
    gate = replace(node, name=f"{node.name}.gate", outputs=(conversion.between(node, "gate"),))
    add_function(gate, conversion, Function.SIGMOID)
    convert_pair(replace(node, op_type="Mul", inputs=(*node.inputs, *gate.outputs)), conversion)


def convert_negation(node: Node, conversion: Conversion) -> None:
    """Neg: times minus one."""
    _combine_with_constant(replace(node, op_type="Mul"), conversion, 0, np.array(-1.0))


def convert_power(node: Node, conversion: Conversion) -> None:
    """Pow by two: a product with itself."""
    exponent = conversion.constant(node, 1, "exponent")
    if exponent.size != 1 or exponent.reshape(-1)[0] != 2:
        refuse(node, f"a power of {exponent.reshape(-1)[:4].tolist()}, expected 2")
    convert_pair(replace(node, op_type="Mul", inputs=node.inputs[:1] * 2), conversion)


def _combine_with_constant(node: Node, conversion: Conversion, index: int, constant: Array) -> None:
    value = conversion.value(node, index)
    try:
        operand = np.broadcast_to(constant.astype(np.float64), (1, *value.shape))[0]
    except ValueError:
        refuse(node, f"a constant of shape {constant.shape} with an input of shape {('batch', *value.shape)}")
    ones, zeros = np.ones(()), np.zeros(())
    match node.op_type:
        case "Add":
            scale_values(node, conversion, value, ones, operand)
        case "Sub" if index == 0:
            scale_values(node, conversion, value, ones, -operand)
        case "Sub":
            scale_values(node, conversion, value, -ones, operand)
        case "Mul":
            scale_values(node, conversion, value, operand, zeros)
        case _ if index == 1 or not operand.all():
            refuse(node, "a division by zero or by what the network computes, expected one by a constant")
        case _:
            scale_values(node, conversion, value, 1 / operand, zeros)


def _add(node: Node, conversion: Conversion, first: str, second: str) -> str:
    builder = conversion.builder
    operator = OPERATORS[node.op_type]
    return builder.add(operator(builder.op_name(node.name), first, second, builder.tensor_name(node.outputs[0])))
