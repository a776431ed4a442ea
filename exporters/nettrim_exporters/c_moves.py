"""Operators of a quantised graph that copy values to other places as C: runs of bytes in nested loops."""

import math
from textwrap import indent
from typing import assert_never

import numpy as np

from nettrim_exporters.c_context import Context, CStep, call_text, struct_text
from nettrim_exporters.c_values import CArray
from nettrim_exporters.memory_plan import value_bytes
from nettrim_runtime.moves import nearest_pixels
from nettrim_runtime.ops import Concat, Move, Pad, ResizeNearest, Slice, Transpose

Axis = tuple[int, int, int]  # how many values, and bytes from one to the next where they are read and written

MOST_PIXELS = 1 << 16  # along an axis that is resized: the places of its rows or columns are uint16
NESTED_LOOPS = 5  # nettrim_kernels.h: NT_AXES


def move_step(context: Context, op: Move, comment: str) -> CStep:
    """Return the step of an operator that moves the values of one tensor."""
    shape, new_shape = (context.graph.tensors[name].shape for name in (op.input, op.output))
    strides, new_strides = value_strides(shape), value_strides(new_shape)
    pointers, item = (context.bytes(op.input), context.bytes(op.output)), value_bytes(context.graph, op.input)
    match op:
        case Pad():
            first = sum(before * stride for before, stride in zip(op.before, new_strides, strict=True))
            fill = fill_statement(context, op.input, pointers[1], context.size(op.output))
            move = copy_statements(pointers, item, shape, (strides, new_strides), (0, first))
            return CStep(op.name, comment, (), (fill, *move))
        case Slice():
            steps = tuple(stride * step for stride, step in zip(strides, op.stride, strict=True))
            first = sum(begin * stride for begin, stride in zip(op.begin, strides, strict=True))
            move = copy_statements(pointers, item, new_shape, (steps, new_strides), (first, 0))
            return CStep(op.name, comment, (), move)
        case Transpose():
            steps = tuple(strides[axis] for axis in op.permutation)
            return CStep(op.name, comment, (), copy_statements(pointers, item, new_shape, (steps, new_strides)))
        case ResizeNearest():
            return _resize(context, op, comment)
        case _:
            assert_never(op)


def concat_step(context: Context, op: Concat, comment: str) -> CStep:
    """Return the step that copies each input of a concatenation, pixel by pixel, into its place."""
    strides, item = value_strides(context.graph.tensors[op.output].shape), value_bytes(context.graph, op.output)
    statements, first = [], 0
    for name in op.inputs:
        shape, pointers = context.graph.tensors[name].shape, (context.bytes(name), context.bytes(op.output))
        struct, call = copy_statements(pointers, item, shape, (value_strides(shape), strides), (0, first))
        statements.append("\n".join(["{", indent(f"{struct}\n{call}", " " * 4), "}"]))
        first += shape[-1]
    return CStep(op.name, comment, (), tuple(statements))


def fill_statement(context: Context, tensor: str, pointer: str, size: int) -> str:
    """Return the C that fills ``size`` values with a tensor's zero point, which is 0 in int16."""
    n_bytes = size * value_bytes(context.graph, tensor)
    return f"memset({pointer}, {context.graph.quantization(tensor).zero_point}, {n_bytes}u);"


def copy_statements(
    pointers: tuple[str, str],
    item: int,
    shape: tuple[int, ...],
    steps: tuple[tuple[int, ...], tuple[int, ...]],
    first: tuple[int, int] = (0, 0),
) -> tuple[str, str]:
    """Return the C that copies values from a source to a target, addresses of bytes.

    Parameters
    ----------
    item : int
        Bytes of a value.
    shape : tuple of int
        How many values along each axis.
    steps, first : tuple
        Of the source and of the target: values from one to the next along each axis, and from the start to the first.
    """
    source, target = (
        pointer + (f" + {start * item}" if start else "") for pointer, start in zip(pointers, first, strict=True)
    )
    return runs_text("runs", shape, *steps, item), call_text("nt_move", "&runs", source, target)


def runs_text(
    variable: str, shape: tuple[int, ...], source_steps: tuple[int, ...], target_steps: tuple[int, ...], item: int
) -> str:
    """Return an nt_runs struct: neighbouring axes that lie alike are one, values side by side a run of bytes.

    Parameters
    ----------
    source_steps, target_steps : tuple of int
        In values of ``item`` bytes.
    """
    axes: list[Axis] = [(item, 1, 1)]
    for count, *steps in reversed(list(zip(shape, source_steps, target_steps, strict=True))):
        source, target = (step * item for step in steps)
        inner_count, *inner_steps = axes[0]
        if [source, target] == [inner_count * step for step in inner_steps]:
            axes[0] = (count * inner_count, inner_steps[0], inner_steps[1])
        elif count != 1:
            axes.insert(0, (count, source, target))
    run = axes.pop()[0]
    axes = [(1, 0, 0)] * (NESTED_LOOPS - len(axes)) + axes
    counts, sources, targets = map(_braced, zip(*axes, strict=True))
    return struct_text(f"nt_runs {variable}", count=counts, in_step=sources, out_step=targets, run=run)


def mean_loops(shape: tuple[int, ...], axes: tuple[int, ...]) -> dict[str, str]:
    """Return the loops of an nt_reduction, over what is kept and over what is added up: two of each are enough."""
    loops: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    last = None
    for axis, (count, step) in enumerate(zip(shape, value_strides(shape), strict=True)):
        if count == 1:
            continue
        kind = axis in axes
        outer = loops[kind].pop()[0] if kind is last else 1
        loops[kind].append((outer * count, step))
        last = kind
    kept, summed = ([(1, 0)] * (2 - len(found)) + found for found in (loops[False], loops[True]))
    names = (("kept", "kept_step"), ("summed", "summed_step"))
    loops_of = zip(names, (kept, summed), strict=True)
    return {
        name: _braced(part) for pair, of in loops_of for name, part in zip(pair, zip(*of, strict=True), strict=True)
    }


def value_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many values lie from one to the next along each axis of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _resize(context: Context, op: ResizeNearest, comment: str) -> CStep:
    height, width, channels = context.graph.tensors[op.input].shape
    rows, columns = (
        CArray(f"{context.prefix}_{name}", nearest_pixels(size, new_size, op.rule).astype(np.uint16))
        for name, size, new_size in zip(("rows", "columns"), (height, width), op.size, strict=True)
    )
    pixel = channels * value_bytes(context.graph, op.input)
    pointers = (context.bytes(op.input), context.bytes(op.output))
    call = call_text("nt_resize", *op.size, rows.name, columns.name, width, pixel, *pointers)
    return CStep(op.name, comment, (rows, columns), (call,))


def _braced(values: tuple[int, ...]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"
