"""One operator of a quantised graph as C: its constant arrays and the call of its kernel."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

import numpy as np

from nettrim_exporters.c_context import Context, CStep, call_text, struct_text
from nettrim_exporters.c_layers import conv_layer, dense_layer
from nettrim_exporters.c_moves import concat_step, mean_loops, move_step
from nettrim_exporters.c_pairs import pair_step
from nettrim_exporters.c_tables16 import slope_scales, wide_function, wide_softmax
from nettrim_exporters.c_values import CArray, c_identifier
from nettrim_exporters.memory_plan import MemoryPlan, Place
from nettrim_runtime.fixed_point import activation_range, mean_multiplier, prelu_multipliers, requantize_multiplier
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Mul,
    Op,
    Pad,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
)
from nettrim_runtime.softmax import distance_multiplier, softmax_exponentials
from nettrim_runtime.unary import lookup_table


def c_steps(graph: Graph, plan: MemoryPlan, prefix: str) -> tuple[CStep, ...]:
    """Return the operators of a quantised graph in execution order; a reshape is none, its bytes lie still.

    Parameters
    ----------
    prefix : str
        What the names of all arrays start with.

    Raises
    ------
    UnsupportedOperatorError
        When a sum of a layer could leave int32.
    """
    steps = _sharing_arrays(
        _c_step(Context(graph, plan, f"{prefix}_{position}"), op)
        for position, op in enumerate(graph.ops)
        if not isinstance(op, Reshape)
    )
    result = graph.outputs[0]
    if plan.buffer_of(result).place is Place.INPUT:  # nothing but reshapes between input and output
        copy = f"memcpy(out, in, {graph.tensors[result].size}u);"
        steps.append(CStep("", "the output is the input", (), (copy,)))
    return tuple(steps)


def _sharing_arrays(steps: Iterable[CStep]) -> list[CStep]:
    """Return steps in which no array has the values of an earlier one: they read that one."""
    names: dict[tuple[str, bytes], str] = {}
    shared = []
    for step in steps:
        own = {array.name: (array.values.dtype.name, array.values.tobytes()) for array in step.arrays}
        found = {name: names.setdefault(values, name) for name, values in own.items()}
        kept = tuple(array for array in step.arrays if found[array.name] == array.name)
        statements = tuple(_renamed(text, found) for text in step.statements)
        shared.append(replace(step, arrays=kept, statements=statements))
    return shared


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Return C text with other names."""
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text)


def _c_step(context: Context, op: Op) -> CStep:
    comment = f"{c_identifier(op.name)}: {type(op).__name__} -> {context.graph.tensors[op.output].shape}"
    match op:
        case Dense():
            return dense_layer(context, op, comment)
        case Conv2d():
            return conv_layer(context, op, comment)
        case MaxPool2d() | AveragePool2d():
            return _pool(context, op, comment)
        case Add() | Sub() | Mul():
            return pair_step(context, op, comment)
        case Concat():
            return concat_step(context, op, comment)
        case Activation():
            return _activation(context, op, comment)
        case UnaryFunction():
            return _function(context, op, comment)
        case PRelu():
            return _prelu(context, op, comment)
        case Pad() | Slice() | Transpose() | ResizeNearest():
            return move_step(context, op, comment)
        case Mean():
            return _mean(context, op, comment)
        case Requantize():
            return _requantize(context, op, comment)
        case Softmax():
            return _softmax(context, op, comment)
        case LogSoftmax():
            return _log_softmax(context, op, comment)
        case Reshape():
            raise AssertionError("a reshape runs nothing")
        case _:
            assert_never(op)


def _pool(context: Context, op: MaxPool2d | AveragePool2d, comment: str) -> CStep:
    height, width, channels = context.graph.tensors[op.input].shape
    out_height, out_width, _ = context.graph.tensors[op.output].shape
    pool = struct_text(
        "nt_pool pool",
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        kernel_height=op.kernel_size.height,
        kernel_width=op.kernel_size.width,
        stride_height=op.stride.height,
        stride_width=op.stride.width,
        pad_top=op.padding.top,
        pad_left=op.padding.left,
    )
    kernel = ("nt_max_pool" if isinstance(op, MaxPool2d) else "nt_average_pool") + context.suffix(op.output)
    return CStep(
        op.name, comment, (), (pool, call_text(kernel, "&pool", context.pointer(op.input), context.pointer(op.output)))
    )


def _activation(context: Context, op: Activation, comment: str) -> CStep:
    dtype = context.graph.tensors[op.output].dtype
    limits = activation_range(context.graph.quantization(op.output), op.activation, dtype)
    pointers = (context.pointer(op.input), context.pointer(op.output))
    call = call_text(f"nt_activation{context.suffix(op.output)}", context.size(op.output), *limits, *pointers)
    return CStep(op.name, comment, (), (call,))


def _function(context: Context, op: UnaryFunction, comment: str) -> CStep:
    if context.suffix(op.output):
        return wide_function(context, op, comment)
    source, target = (context.graph.quantization(name) for name in (op.input, op.output))
    table = CArray(f"{context.prefix}_table", lookup_table(op, source, target))
    pointers = (context.pointer(op.input), context.pointer(op.output))
    return CStep(op.name, comment, (table,), (call_text("nt_lookup", table.name, context.size(op.output), *pointers),))


def _prelu(context: Context, op: PRelu, comment: str) -> CStep:
    graph = context.graph
    slope = CArray(f"{context.prefix}_slope", graph.tensors[op.slope].values())
    zero_points = [graph.quantization(name).zero_point for name in (op.input, op.output)]
    prelu = slope_scales(prelu_multipliers(graph, op), *zero_points)
    n_channels = slope.values.size
    pointers = (context.pointer(op.input), context.pointer(op.output))
    kernel = f"nt_prelu{context.suffix(op.output)}"
    call = call_text(kernel, "&scales", slope.name, context.size(op.output) // n_channels, n_channels, *pointers)
    return CStep(op.name, comment, (slope,), (prelu, call))


def _requantize(context: Context, op: Requantize, comment: str) -> CStep:
    before, after = (context.graph.quantization(name).zero_point for name in (op.input, op.output))
    kernel, zero_points = {
        ("", ""): ("nt_rescale", [before, after]),
        ("", "16"): ("nt_widen", [before]),
        ("16", ""): ("nt_narrow", [after]),
        ("16", "16"): ("nt_rescale16", []),
    }[context.suffix(op.input), context.suffix(op.output)]
    pointers = (context.pointer(op.input), context.pointer(op.output))
    multiplier = requantize_multiplier(context.graph, op)
    call = call_text(kernel, context.size(op.output), *zero_points, *multiplier, *pointers)
    return CStep(op.name, comment, (), (call,))


def _mean(context: Context, op: Mean, comment: str) -> CStep:
    shape = context.graph.tensors[op.input].shape
    count = context.size(op.input) // context.size(op.output)
    multiplier, shift = mean_multiplier(context.graph, op)
    before, after = (context.graph.quantization(name).zero_point for name in (op.input, op.output))
    reduction = struct_text(
        "nt_reduction reduction",
        **mean_loops(shape, op.axes),
        zero_sum=before * count,
        multiplier=multiplier,
        shift=shift,
        zero_point=after,
    )
    pointers = (context.pointer(op.input), context.pointer(op.output))
    call = call_text(f"nt_reduce_mean{context.suffix(op.output)}", "&reduction", *pointers)
    return CStep(op.name, comment, (), (reduction, call))


def _softmax(context: Context, op: Softmax, comment: str) -> CStep:
    if context.suffix(op.output):
        return wide_softmax(context, op, comment)
    exponentials = softmax_exponentials(float(context.graph.quantization(op.input).scale[0]))
    table = CArray(f"{context.prefix}_table", exponentials.astype(np.int32))
    depth = context.graph.tensors[op.input].shape[-1]
    n_rows = context.size(op.input) // depth
    call = call_text("nt_softmax", table.name, n_rows, depth, context.pointer(op.input), context.pointer(op.output))
    return CStep(op.name, comment, (table,), (call,))


def _log_softmax(context: Context, op: LogSoftmax, comment: str) -> CStep:
    scale = float(context.graph.quantization(op.input).scale[0])
    multiplier, shift, farthest = distance_multiplier(scale)
    table = CArray(f"{context.prefix}_table", softmax_exponentials(scale).astype(np.int32))
    distance = struct_text("nt_distance distance", multiplier=multiplier, shift=shift, farthest=farthest)
    depth = context.graph.tensors[op.input].shape[-1]
    sizes = (context.size(op.input) // depth, depth)
    pointers = (context.pointer(op.input), context.pointer(op.output))
    call = call_text("nt_log_softmax", table.name, "&distance", *sizes, *pointers)
    return CStep(op.name, comment, (table,), (distance, call))
