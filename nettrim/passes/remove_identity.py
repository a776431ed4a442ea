"""Operators that change nothing are left out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from nettrim.passes.rewiring import replace_input, with_ops
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    NO_PADDING,
    Activation,
    ActivationFunction,
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
    op_inputs,
)


def remove_identity(graph: Graph) -> Graph:
    """Return the graph without reshapes to the same shape, 1x1 pools, clamps that let everything through.

    Nor moves and means that leave all values where they are.

    One that joins an input or another output of the graph directly to an output stays.
    """
    ops: dict[str, Op] = {}  # by the tensor they write
    renamed: dict[str, str] = {}
    for original in graph.ops:
        op = original
        for name in op_inputs(original):
            op = replace_input(op, name, _resolve(name, renamed))
        source = _same_as_output(graph, op)
        if source is not None and op.output not in graph.outputs:
            renamed[op.output] = source
        elif source is not None and source in ops and source not in graph.outputs:
            ops = _with_output(ops, source, op.output)  # the name of an output stays
            renamed[source] = op.output
        else:
            ops[op.output] = op
    return with_ops(graph, ops.values())


def _resolve(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _with_output(ops: dict[str, Op], old: str, new: str) -> dict[str, Op]:
    changed = [replace_input(op, old, new) for op in ops.values()]
    renamed = [replace(op, output=new) if op.output == old else op for op in changed]
    return {op.output: op for op in renamed}


def _same_as_output(graph: Graph, op: Op) -> str | None:
    """Return the input that an operator passes on unchanged, None if it computes something."""
    match op:
        case Reshape():
            return op.input if graph.tensors[op.input].shape == graph.tensors[op.output].shape else None
        case MaxPool2d() | AveragePool2d():
            keeps_shape = graph.tensors[op.input].shape == graph.tensors[op.output].shape
            single_pixel = op.kernel_size == (1, 1) and op.padding == NO_PADDING
            return op.input if single_pixel and keeps_shape else None
        case Activation():
            return op.input if op.activation is ActivationFunction.NONE else None
        case Requantize():
            return None if graph.is_quantized else op.input  # floats have one type
        case Mean() if graph.is_quantized:
            return None  # it may rescale
        case Pad() | Slice() | ResizeNearest() | Mean():
            return op.input if graph.tensors[op.input].shape == graph.tensors[op.output].shape else None
        case Transpose():
            return op.input if list(op.permutation) == sorted(op.permutation) else None
        case (
            Dense() | Conv2d() | Add() | Sub() | Mul() | Concat() | UnaryFunction() | PRelu() | Softmax() | LogSoftmax()
        ):
            return None
        case _:
            assert_never(op)
