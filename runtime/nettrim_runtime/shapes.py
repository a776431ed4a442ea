"""The shape of every operator's output, from the shapes of what it reads."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from nettrim_runtime.errors import GraphError
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
    Move,
    Mul,
    Op,
    Pad,
    Pairwise,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
    window_count,
)

if TYPE_CHECKING:
    from nettrim_runtime.graph import Tensor

LARGEST_RANK = 4  # axes of what is padded or sliced, one more of a transpose: what TFLite takes behind the batch
LARGEST_MEAN = 1 << 16  # values: the sum of as many int16 stays in int32


def infer_shape(op: Op, tensors: Mapping[str, "Tensor"]) -> tuple[int, ...]:
    """Return the shape of an operator's output, from its inputs and constants.

    Raises
    ------
    GraphError
        When the shapes of its inputs do not fit together.
    """
    match op:
        case Dense():
            n_outputs, n_inputs = _rank(op, tensors[op.weight], 2)
            require(
                tensors[op.input].shape == (n_inputs,), op, f"input {tensors[op.input].shape} for {n_inputs} inputs"
            )
            return (n_outputs,)
        case Conv2d():
            return _conv_shape(op, tensors)
        case MaxPool2d() | AveragePool2d():
            return (*_windows(op, tensors[op.input], op.kernel_size, (1, 1)), tensors[op.input].shape[2])
        case Add() | Sub() | Mul():
            return _broadcast_shape(op, tensors[op.first].shape, tensors[op.second].shape)
        case Concat():
            return _joined_shape(op, tensors)
        case Activation() | UnaryFunction() | Softmax() | LogSoftmax() | Requantize():
            return tensors[op.input].shape
        case PRelu():
            shape, slope = tensors[op.input].shape, tensors[op.slope].shape
            require(slope == shape[-1:] != (), op, f"slopes {slope} for an input of shape {shape}")
            return shape
        case Reshape():
            require(tensors[op.input].size == tensors[op.output].size, op, "input and output differ in size")
            return tensors[op.output].shape
        case Pad() | Slice() | Transpose() | ResizeNearest():
            return _moved_shape(op, tensors[op.input])
        case Mean():
            return _mean_shape(op, tensors[op.input].shape)
        case _:
            assert_never(op)


def _conv_shape(op: Conv2d, tensors: Mapping[str, "Tensor"]) -> tuple[int, ...]:
    n_outputs, kernel_height, kernel_width, n_group_channels = _rank(op, tensors[op.weight], 4)
    _, _, n_channels = _rank(op, tensors[op.input], 3)
    require(n_channels == n_group_channels * op.groups, op, f"{n_channels} channels for {op.groups} groups")
    require(n_outputs % op.groups == 0, op, f"{n_outputs} outputs for {op.groups} groups")
    kernel_size = (kernel_height, kernel_width)
    return (*_windows(op, tensors[op.input], kernel_size, op.dilation), n_outputs)


def _broadcast_shape(op: Pairwise, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    fits = len(first) == len(second) and all(a == b or 1 in {a, b} for a, b in zip(first, second, strict=True))
    require(fits, op, f"inputs of shapes {first} and {second}, expected equal axes, or one of them of length 1")
    return tuple(map(max, first, second))


def _joined_shape(op: Concat, tensors: Mapping[str, "Tensor"]) -> tuple[int, ...]:
    shapes = [tensors[name].shape for name in op.inputs]
    require(len(shapes) >= 2 and all(shapes), op, f"inputs of shapes {shapes}, expected two or more with channels")
    require(len({shape[:-1] for shape in shapes}) == 1, op, f"inputs of shapes {shapes} differ beside their channels")
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


def _moved_shape(op: Move, source: "Tensor") -> tuple[int, ...]:
    shape, rank = source.shape, len(source.shape)
    require(rank <= LARGEST_RANK + isinstance(op, Transpose), op, f"an input of shape {shape}, expected fewer axes")
    match op:
        case Pad():
            sizes = (*op.before, *op.after)
            require(len(op.before) == len(op.after) == rank, op, f"{op.before}, {op.after} around {shape}")
            require(min(sizes, default=0) >= 0, op, f"{op.before}, {op.after}, expected zero or more")
            return tuple(sum(parts) for parts in zip(op.before, shape, op.after, strict=True))
        case Slice():
            parts = (op.begin, op.end, op.stride)
            require(all(len(part) == rank for part in parts), op, f"{parts} of {shape}, expected one each an axis")
            bounds = list(zip(*parts, shape, strict=True))
            sound = all(0 <= begin < end <= size and step >= 1 for begin, end, step, size in bounds)
            require(sound, op, f"{parts} (begin, end, stride) leave {shape} or nothing of it")
            return tuple(len(range(begin, end, step)) for begin, end, step, _ in bounds)
        case Transpose():
            require(sorted(op.permutation) == list(range(rank)), op, f"permutation {op.permutation} of {shape}")
            return tuple(shape[axis] for axis in op.permutation)
        case ResizeNearest():
            require(min(op.size) >= 1, op, f"size {tuple(op.size)}, expected at least one pixel")
            return (*op.size, _rank(op, source, 3)[2])
        case _:
            assert_never(op)


def _mean_shape(op: Mean, shape: tuple[int, ...]) -> tuple[int, ...]:
    in_order = list(op.axes) == sorted(set(op.axes) & set(range(len(shape))))
    sound = 0 < len(op.axes) <= len(shape) - (not op.keep_dims) and len(shape) <= LARGEST_RANK and in_order
    require(sound, op, f"axes {op.axes} of {shape}, expected some in increasing order, all of them with keep_dims")
    count = math.prod(shape[axis] for axis in op.axes)
    require(count <= LARGEST_MEAN, op, f"a mean of {count} values, expected at most {LARGEST_MEAN}")
    kept = tuple(1 if axis in op.axes else size for axis, size in enumerate(shape))
    return kept if op.keep_dims else tuple(size for axis, size in enumerate(shape) if axis not in op.axes)


def _windows(
    op: Conv2d | MaxPool2d | AveragePool2d, image: "Tensor", kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    height, width, _ = _rank(op, image, 3)
    pad = op.padding
    require(min(*op.stride, *kernel, *dilation) >= 1 and min(pad) >= 0, op, "a size below one or a padding below zero")
    rows = window_count(height, kernel[0], op.stride[0], dilation[0], pad.top + pad.bottom)
    columns = window_count(width, kernel[1], op.stride[1], dilation[1], pad.left + pad.right)
    require(rows >= 1 and columns >= 1, op, f"a window larger than the image {image.shape}")
    return rows, columns


def _rank(op: Op, tensor: "Tensor", rank: int) -> tuple[int, ...]:
    require(len(tensor.shape) == rank, op, f"tensor {tensor.name!r} has shape {tensor.shape}, expected {rank} axes")
    return tensor.shape


def require(holds: bool, op: Op, finding: str) -> None:
    """Raise a GraphError that names the operator, unless something holds."""
    if not holds:
        raise GraphError(f"{type(op).__name__} {op.name!r}: {finding}")
