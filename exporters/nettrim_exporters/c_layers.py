"""The layers of a quantised graph as C: dense, convolutions, and how their sums become integers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_exporters.c_context import Context, CStep, call_text, struct_text, wide_pointer
from nettrim_exporters.c_conv import ConvImage, conv_image, window_offsets
from nettrim_exporters.c_moves import copy_statements, fill_statement
from nettrim_exporters.c_values import CArray
from nettrim_exporters.memory_plan import value_bytes
from nettrim_runtime.csr import CsrMatrix, index_dtype
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.fixed_point import (
    FRACTION_BITS,
    WIDE_FRACTION_BITS,
    Rounding,
    layer_requantization,
)
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    Conv2d,
    Dense,
    Layer,
)

Array = npt.NDArray[Any]

INT32_MAX = (1 << 31) - 1
WIDE_MAX = (1 << 47) - 1  # times a multiplier of 15 bits and a rounding this stays in int64
INPUT_LIMIT = {"int8": 128, "int16": 32768}  # |value| at most
LARGEST_SHIFT = 30  # of a multiplication that rounds once, by a right shift of at least one


def dense_layer(context: Context, op: Dense, comment: str) -> CStep:
    n_outputs, n_inputs = context.graph.tensors[op.weight].shape
    output_arrays, output = _output(context, op)
    pointers = ("&output", context.pointer(op.input), context.pointer(op.output))
    data = context.graph.tensors[op.weight].data
    if isinstance(data, CsrMatrix):
        arrays, matrix = _csr(context, data, data.indices)
        call = call_text(f"nt_dense_csr{context.suffix(op.output)}", n_outputs, "&matrix", *pointers)
        return CStep(op.name, f"{comment}, CSR", (*arrays, *output_arrays), (matrix, output, call))
    weight = CArray(f"{context.prefix}_weight", np.ravel(context.graph.tensors[op.weight].values()))
    call = call_text(f"nt_dense{context.suffix(op.output)}", n_outputs, n_inputs, weight.name, *pointers)
    return CStep(op.name, comment, (weight, *output_arrays), (output, call))


def conv_layer(context: Context, op: Conv2d, comment: str) -> CStep:
    graph = context.graph
    image = conv_image(graph, op)
    padding, source = _padding(context, op, image)
    output_arrays, output = _output(context, op)
    statements = (*padding, _conv_shape(graph, op, image), output)
    pointers = ("&output", source, context.pointer(op.output))
    data = graph.tensors[op.weight].data
    if isinstance(data, CsrMatrix):
        arrays, matrix = _csr(context, data, window_offsets(graph, op, data))
        call = call_text(f"nt_conv2d_csr{context.suffix(op.output)}", "&conv", "&matrix", *pointers)
        return CStep(op.name, f"{comment}, CSR", (*arrays, *output_arrays), (*statements, matrix, call))
    kernel, values = _conv_kernel(graph, op)
    weight = CArray(f"{context.prefix}_weight", np.ravel(values))
    call = call_text(kernel, "&conv", weight.name, *pointers)
    return CStep(op.name, comment, (weight, *output_arrays), (*statements, call))


def _conv_kernel(graph: Graph, op: Conv2d) -> tuple[str, Array]:
    """Return the kernel of a convolution with dense weights, and the weights in its order."""
    values = graph.tensors[op.weight].values()
    if graph.tensors[op.input].dtype == "int16":
        return "nt_conv2d16", values
    if op.groups == values.shape[0] and values.shape[3] == 1:
        return "nt_conv2d_depthwise", np.moveaxis(values[..., 0], 0, -1)
    if op.groups == 1 and op.dilation.width == 1:
        return "nt_conv2d", values
    return "nt_conv2d_grouped", values


def _padding(context: Context, op: Conv2d, image: ConvImage) -> tuple[tuple[str, ...], str]:
    """Return the statements that make the padded image, and the address of the image to read."""
    scratch = context.plan.scratch_of(op.name)
    if scratch is None:
        return (), context.pointer(op.input)
    _, width, channels = context.graph.tensors[op.input].shape
    target, item = f"bytes + {scratch.offset}", value_bytes(context.graph, op.input)
    fill = fill_statement(context, op.input, target, image.size)
    move = copy_statements(
        (context.bytes(op.input), target),
        item,
        (image.copied_height, image.copied_width * channels),
        ((width * channels, 1), (image.row, 1)),
        (0, image.top * image.row + image.left * channels),
    )
    return (fill, *move), wide_pointer(scratch) if context.suffix(op.input) else target


def _conv_shape(graph: Graph, op: Conv2d, image: ConvImage) -> str:
    n_outputs, kernel_height, kernel_width, group_channels = graph.tensors[op.weight].shape
    out_height, out_width, _ = graph.tensors[op.output].shape
    return struct_text(
        "nt_conv conv",
        out_height=out_height,
        out_width=out_width,
        n_outputs=n_outputs,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        group_outputs=n_outputs // op.groups,
        group_channels=group_channels,
        row_step=op.stride.height * image.row,
        column_step=op.stride.width * image.channels,
        tap_row_step=op.dilation.height * image.row,
        tap_step=op.dilation.width * image.channels,
    )


def _csr(context: Context, matrix: CsrMatrix, offsets: Array) -> tuple[tuple[CArray, ...], str]:
    """Return a sparse weight's arrays, indices and indptr in the smallest types that hold them, and its struct."""
    indices = CArray(f"{context.prefix}_indices", offsets.astype(index_dtype(int(offsets.max(initial=0)) + 1)))
    indptr = CArray(f"{context.prefix}_indptr", matrix.indptr.astype(index_dtype(matrix.nnz + 1)))
    values = CArray(f"{context.prefix}_values", matrix.data)
    struct = struct_text(
        "nt_csr matrix",
        values=values.name,
        indices=indices.name,
        indptr=indptr.name,
        index_bytes=indices.values.itemsize,
        indptr_bytes=indptr.values.itemsize,
    )
    return (values, indices, indptr), struct


def _output(context: Context, op: Layer) -> tuple[tuple[CArray, ...], str]:
    """Return the per-channel constants of a layer, its input's zero point folded into the bias, and their struct."""
    graph = context.graph
    scaling = layer_requantization(graph, op)
    weight = graph.tensors[op.weight].values().astype(np.int64).reshape(len(scaling.shift), -1)
    folded = graph.tensors[op.bias].values().astype(np.int64) - scaling.input_zero_point * weight.sum(axis=1)
    dtype = graph.tensors[op.input].dtype
    largest = np.abs(folded) + INPUT_LIMIT[dtype] * np.abs(weight).sum(axis=1)
    if dtype == "int16":
        return _wide_output(context, op, largest)
    is_used = largest > 0  # a row without weights and bias is 0 at any scale
    shift = np.where(is_used, scaling.shift, 0)
    _require_int32(op, largest, shift, rounds_once=scaling.rounding is Rounding.ONCE)
    arrays = (
        CArray(f"{context.prefix}_bias", folded.astype(np.int32)),
        CArray(f"{context.prefix}_multiplier", np.where(is_used, scaling.multiplier, 0).astype(np.int32)),
        CArray(f"{context.prefix}_shift", shift.astype(np.int8)),
    )
    struct = struct_text(
        "nt_output output",
        bias=arrays[0].name,
        multiplier=arrays[1].name,
        shift=arrays[2].name,
        zero_point=scaling.output_zero_point,
        lower=scaling.lower,
        upper=scaling.upper,
    )
    return arrays, struct


def _wide_output(context: Context, op: Layer, largest: Array) -> tuple[tuple[CArray, ...], str]:
    """Return the same for a layer on int16: its bias as it is, multipliers of 15 bits."""
    scaling = layer_requantization(context.graph, op)
    once = FRACTION_BITS - WIDE_FRACTION_BITS if scaling.rounding is Rounding.ONCE else 0
    shift = scaling.shift - once
    if largest.max() > WIDE_MAX or shift.max() >= WIDE_FRACTION_BITS:
        raise UnsupportedOperatorError(
            f"{type(op).__name__} {op.name!r} on int16: its sums could reach {int(largest.max())}, expected at most "
            f"{WIDE_MAX}, or its scale {int(shift.max())} bits to the left, expected fewer than {WIDE_FRACTION_BITS}; "
            "keep the layer in int8"
        )
    arrays = (
        CArray(f"{context.prefix}_bias", context.graph.tensors[op.bias].values()),
        CArray(f"{context.prefix}_multiplier", scaling.multiplier.astype(np.int16)),
        CArray(f"{context.prefix}_shift", shift.astype(np.int8)),
    )
    names = dict(zip(("bias", "multiplier", "shift"), (array.name for array in arrays), strict=True))
    return arrays, struct_text("nt_output16 output", **names, lower=scaling.lower, upper=scaling.upper)


def _require_int32(op: Layer, largest: Array, shift: Array, *, rounds_once: bool) -> None:
    """Prove that no partial sum leaves int32 whatever the input, nor what requantisation makes of it."""
    if rounds_once:  # in int64
        reached = np.where(shift > LARGEST_SHIFT, INT32_MAX + 1, largest)
    else:  # shifted to the left first, the zero point added afterwards
        reached = (largest << np.clip(shift, 0, 31)) + INPUT_LIMIT["int8"]
    if reached.max() > INT32_MAX:
        row = int(reached.argmax())
        raise UnsupportedOperatorError(
            f"{type(op).__name__} {op.name!r}: the sum of output {row} could reach {int(reached[row])}, expected at "
            f"most {INT32_MAX} (int32); enlarge this output's weight scale, or keep the layer out of int8"
        )
