"""Operators on two activations, value by value, as C: one kernel call a run of values, loops around it to broadcast."""

from dataclasses import dataclass
from itertools import groupby

from nettrim_exporters.c_context import Context, CStep, call_text, struct_text
from nettrim_runtime.fixed_point import activation_range, add_parameters, product_multiplier
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Add, Mul, Pairwise, Sub


@dataclass(frozen=True)
class _Axis:
    """Places along one axis of the output, and the values from one to the next in each input: 0 where it is copied."""

    length: int
    first_step: int
    second_step: int


def pair_step(context: Context, op: Pairwise, comment: str) -> CStep:
    """Return an addition, subtraction or multiplication."""
    suffix = context.suffix(op.output)
    if isinstance(op, Mul):
        return CStep(op.name, comment, (), (_product(context.graph, op), *_loops(context, op, f"nt_multiply{suffix}")))
    return CStep(op.name, comment, (), (_addition(context.graph, op), *_loops(context, op, f"nt_add{suffix}")))


def _addition(graph: Graph, op: Add | Sub) -> str:
    parameters = add_parameters(graph, op)
    return struct_text(
        "nt_addition pair",
        left_shift=parameters.left_shift,
        first_zero_point=parameters.first_zero_point,
        first_multiplier=parameters.first_multiplier,
        first_shift=parameters.first_shift,
        second_zero_point=parameters.second_zero_point,
        second_multiplier=parameters.second_multiplier,
        second_shift=parameters.second_shift,
        multiplier=parameters.output_multiplier,
        shift=parameters.output_shift,
        zero_point=parameters.output_zero_point,
        lower=parameters.lower,
        upper=parameters.upper,
    )


def _product(graph: Graph, op: Mul) -> str:
    multiplier, shift = product_multiplier(graph, op)
    output = graph.quantization(op.output)
    lower, upper = activation_range(output, op.activation, graph.tensors[op.output].dtype)
    return struct_text(
        "nt_product pair",
        first_zero_point=graph.quantization(op.first).zero_point,
        second_zero_point=graph.quantization(op.second).zero_point,
        multiplier=multiplier,
        shift=shift,
        zero_point=output.zero_point,
        lower=lower,
        upper=upper,
    )


def _loops(context: Context, op: Pairwise, kernel: str) -> list[str]:
    """Return the lines of nested loops around the call of a kernel for the last axis."""
    *outer, last = _axes(context.graph.tensors[op.first].shape, context.graph.tensors[op.second].shape)
    first, second, out = (context.pointer(name) for name in (op.first, op.second, op.output))
    inside = last.length
    for depth in reversed(range(len(outer))):
        axis = outer[depth]
        first, second = (
            f"{pointer} + {step} * i{depth}" if step else pointer
            for pointer, step in ((first, axis.first_step), (second, axis.second_step))
        )
        out = f"{out} + {inside} * i{depth}"
        inside *= axis.length
    heads = [
        f"{'    ' * depth}for (int32_t i{depth} = 0; i{depth} < {axis.length}; ++i{depth}) {{"
        for depth, axis in enumerate(outer)
    ]
    call = call_text(kernel, "&pair", last.length, first, last.first_step, second, last.second_step, out)
    return [*heads, f"{'    ' * len(outer)}{call}", *(f"{'    ' * depth}}}" for depth in reversed(range(len(outer))))]


def _axes(first: tuple[int, ...], second: tuple[int, ...]) -> list[_Axis]:
    """Return the output's axes, outermost first: those of length 1 left out, neighbours that move alike merged."""
    sizes = [(a, b) for a, b in zip(first, second, strict=True) if max(a, b) > 1]
    axes: list[_Axis] = []
    inside_first = inside_second = 1
    for (moves_first, moves_second), group in groupby(reversed(sizes), key=lambda pair: (pair[0] > 1, pair[1] > 1)):
        length = 1
        for pair in group:
            length *= max(pair)
        axes.append(_Axis(length, inside_first * moves_first, inside_second * moves_second))
        inside_first *= length if moves_first else 1
        inside_second *= length if moves_second else 1
    return axes[::-1] or [_Axis(1, 1, 1)]
