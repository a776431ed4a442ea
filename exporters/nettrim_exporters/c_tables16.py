"""Functions on int16 as C: their kernels, and the tables that these read."""

from typing import assert_never

from nettrim_exporters.c_context import Context, CStep, call_text, struct_text
from nettrim_exporters.c_values import CArray
from nettrim_runtime.ops import Function, Softmax, UnaryFunction
from nettrim_runtime.softmax_int16 import exponential_table, reciprocal_table, wide_distance_multiplier
from nettrim_runtime.unary_int16 import leaky_relu_multipliers, sigmoid_multiplier, sigmoid_table

Multiplier = tuple[int, int]  # and its shift


def wide_function(context: Context, op: UnaryFunction, comment: str) -> CStep:
    """Return the step of a function of one value on int16."""
    source, target = (context.graph.quantization(name) for name in (op.input, op.output))
    pointers = (context.size(op.output), context.pointer(op.input), context.pointer(op.output))
    match op.function:
        case Function.SIGMOID | Function.TANH:
            table = CArray(f"{context.prefix}_table", sigmoid_table())
            multiplier = sigmoid_multiplier(source.scale[0])
            call = call_text(f"nt_{op.function.value}16", table.name, *multiplier, *pointers)
            return CStep(op.name, comment, (table,), (call,))
        case Function.LEAKY_RELU:
            scales = slope_scales(leaky_relu_multipliers(op, source, target))
            return CStep(op.name, comment, (), (scales, call_text("nt_leaky_relu16", "&scales", *pointers)))
        case Function.HARD_SWISH | Function.GELU | Function.GELU_TANH | Function.RSQRT:
            raise AssertionError("the graph refuses them on int16")
        case _:
            assert_never(op.function)


def wide_softmax(context: Context, op: Softmax, comment: str) -> CStep:
    """Return the step of a softmax on int16."""
    tables = (
        CArray(f"{context.prefix}_exponentials", exponential_table()),
        CArray(f"{context.prefix}_reciprocals", reciprocal_table()),
    )
    depth = context.graph.tensors[op.input].shape[-1]
    call = call_text(
        "nt_softmax16",
        *(table.name for table in tables),
        *wide_distance_multiplier(context.graph.quantization(op.input).scale[0]),
        context.size(op.input) // depth,
        depth,
        context.pointer(op.input),
        context.pointer(op.output),
    )
    return CStep(op.name, comment, tables, (call,))


def slope_scales(multipliers: tuple[Multiplier, Multiplier], zero_point: int = 0, output_zero_point: int = 0) -> str:
    """Return the scales of an operator that multiplies values below zero by a slope."""
    above, below = multipliers
    return struct_text(
        "nt_prelu_scales scales",
        input_zero_point=zero_point,
        multiplier=above[0],
        shift=above[1],
        slope_multiplier=below[0],
        slope_shift=below[1],
        zero_point=output_zero_point,
    )
