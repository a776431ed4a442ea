"""One operator of a quantised graph as C: its constant arrays and the call of its kernel."""

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim_exporters.c_conv import ConvImage, conv_image, window_offsets
from nettrim_exporters.c_values import CArray, c_identifier
from nettrim_exporters.memory_plan import Buffer, MemoryPlan, Place
from nettrim_runtime.csr import CsrMatrix, index_dtype
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.fixed_point import (
    FRACTION_BITS,
    WIDE_FRACTION_BITS,
    Rounding,
    activation_range,
    add_parameters,
    layer_requantization,
    requantize_multiplier,
)
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
    Conv2d,
    Dense,
    Layer,
    MaxPool2d,
    Op,
    Requantize,
    Reshape,
    Softmax,
)
from nettrim_runtime.softmax import softmax_exponentials

Array = npt.NDArray[Any]

INT32_MAX = (1 << 31) - 1
WIDE_MAX = (1 << 47) - 1  # times a multiplier of 15 bits and a rounding this stays in int64
INPUT_LIMIT = {"int8": 128, "int16": 32768}  # |value| at most
LARGEST_SHIFT = 30  # of a multiplication that rounds once, by a right shift of at least one


@dataclass(frozen=True, eq=False)
class CStep:
    """One operator of the run function.

    Attributes
    ----------
    op_name : str
        The operator's name in the graph.
    comment : str
        What it is, safe inside a C comment.
    arrays : tuple of CArray
        Its constants.
    statements : tuple of str
        C statements of one block, the kernel call last.
    """

    op_name: str
    comment: str
    arrays: tuple[CArray, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Context:
    """What every operator of one graph needs: where tensors lie, and how its arrays are called."""

    graph: Graph
    plan: MemoryPlan
    prefix: str

    def pointer(self, tensor: str) -> str:
        """Return the C expression of an activation's address, of its type."""
        buffer = self.plan.buffer_of(tensor)
        if self.suffix(tensor):
            return _wide_pointer(buffer)
        match buffer.place:
            case Place.INPUT:
                return "in"
            case Place.OUTPUT:
                return "out"
            case Place.ARENA:
                return f"bytes + {buffer.offset}"
            case _:
                assert_never(buffer.place)

    def suffix(self, tensor: str) -> str:
        """Return what the names of kernels on an activation's type end in."""
        return "16" if self.graph.tensors[tensor].dtype == "int16" else ""

    def size(self, tensor: str) -> int:
        return self.graph.tensors[tensor].size


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
    steps = [
        _c_step(_Context(graph, plan, f"{prefix}_{position}"), op)
        for position, op in enumerate(graph.ops)
        if not isinstance(op, Reshape)
    ]
    result = graph.outputs[0]
    if plan.buffer_of(result).place is Place.INPUT:  # nothing but reshapes between input and output
        copy = f"memcpy(out, in, {graph.tensors[result].size}u);"
        steps.append(CStep("", "the output is the input", (), (copy,)))
    return tuple(steps)


def _c_step(context: _Context, op: Op) -> CStep:
    comment = f"{c_identifier(op.name)}: {type(op).__name__} -> {context.graph.tensors[op.output].shape}"
    match op:
        case Dense():
            return _dense(context, op, comment)
        case Conv2d():
            return _conv(context, op, comment)
        case MaxPool2d() | AveragePool2d():
            return _pool(context, op, comment)
        case Add():
            return _add(context, op, comment)
        case Activation():
            return _activation(context, op, comment)
        case Requantize():
            return _requantize(context, op, comment)
        case Softmax():
            return _softmax(context, op, comment)
        case Reshape():
            raise AssertionError("a reshape runs nothing")
        case _:
            assert_never(op)


def _dense(context: _Context, op: Dense, comment: str) -> CStep:
    n_outputs, n_inputs = context.graph.tensors[op.weight].shape
    output_arrays, output = _output(context, op)
    pointers = ("&output", context.pointer(op.input), context.pointer(op.output))
    data = context.graph.tensors[op.weight].data
    if isinstance(data, CsrMatrix):
        arrays, matrix = _csr(context, data, data.indices)
        call = _call(f"nt_dense_csr{context.suffix(op.output)}", n_outputs, "&matrix", *pointers)
        return CStep(op.name, f"{comment}, CSR", (*arrays, *output_arrays), (matrix, output, call))
    weight = CArray(f"{context.prefix}_weight", np.ravel(context.graph.tensors[op.weight].values()))
    call = _call(f"nt_dense{context.suffix(op.output)}", n_outputs, n_inputs, weight.name, *pointers)
    return CStep(op.name, comment, (weight, *output_arrays), (output, call))


def _conv(context: _Context, op: Conv2d, comment: str) -> CStep:
    graph = context.graph
    image = conv_image(graph, op)
    padding, source = _padding(context, op, image)
    output_arrays, output = _output(context, op)
    statements = (*padding, _conv_shape(graph, op, image), output)
    pointers = ("&output", source, context.pointer(op.output))
    data = graph.tensors[op.weight].data
    if isinstance(data, CsrMatrix):
        arrays, matrix = _csr(context, data, window_offsets(graph, op, data))
        call = _call(f"nt_conv2d_csr{context.suffix(op.output)}", "&conv", "&matrix", *pointers)
        return CStep(op.name, f"{comment}, CSR", (*arrays, *output_arrays), (*statements, matrix, call))
    kernel, values = _conv_kernel(graph, op)
    weight = CArray(f"{context.prefix}_weight", np.ravel(values))
    call = _call(kernel, "&conv", weight.name, *pointers)
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


def _padding(context: _Context, op: Conv2d, image: ConvImage) -> tuple[tuple[str, ...], str]:
    """Return the statements that make the padded image, and the address of the image to read."""
    source = context.pointer(op.input)
    scratch = context.plan.scratch_of(op.name)
    if scratch is None:
        return (), source
    _, width, channels = context.graph.tensors[op.input].shape
    padding = _struct(
        "nt_padding padding",
        source_height=image.copied_height,
        source_row=width * channels,
        copied=image.copied_width * channels,
        height=image.height,
        row=image.row,
        top=image.top,
        left=image.left * channels,
        zero_point=context.graph.quantization(op.input).zero_point,
    )
    suffix = context.suffix(op.input)
    target = _wide_pointer(scratch) if suffix else f"bytes + {scratch.offset}"
    return (padding, _call(f"nt_pad{suffix}", "&padding", source, target)), target


def _conv_shape(graph: Graph, op: Conv2d, image: ConvImage) -> str:
    n_outputs, kernel_height, kernel_width, group_channels = graph.tensors[op.weight].shape
    out_height, out_width, _ = graph.tensors[op.output].shape
    return _struct(
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


def _csr(context: _Context, matrix: CsrMatrix, offsets: Array) -> tuple[tuple[CArray, ...], str]:
    """Return a sparse weight's arrays, indices and indptr in the smallest types that hold them, and its struct."""
    indices = CArray(f"{context.prefix}_indices", offsets.astype(index_dtype(int(offsets.max(initial=0)) + 1)))
    indptr = CArray(f"{context.prefix}_indptr", matrix.indptr.astype(index_dtype(matrix.nnz + 1)))
    values = CArray(f"{context.prefix}_values", matrix.data)
    struct = _struct(
        "nt_csr matrix",
        values=values.name,
        indices=indices.name,
        indptr=indptr.name,
        index_bytes=indices.values.itemsize,
        indptr_bytes=indptr.values.itemsize,
    )
    return (values, indices, indptr), struct


def _output(context: _Context, op: Layer) -> tuple[tuple[CArray, ...], str]:
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
    struct = _struct(
        "nt_output output",
        bias=arrays[0].name,
        multiplier=arrays[1].name,
        shift=arrays[2].name,
        zero_point=scaling.output_zero_point,
        lower=scaling.lower,
        upper=scaling.upper,
    )
    return arrays, struct


def _wide_output(context: _Context, op: Layer, largest: Array) -> tuple[tuple[CArray, ...], str]:
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
    return arrays, _struct("nt_output16 output", **names, lower=scaling.lower, upper=scaling.upper)


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


def _pool(context: _Context, op: MaxPool2d | AveragePool2d, comment: str) -> CStep:
    height, width, channels = context.graph.tensors[op.input].shape
    out_height, out_width, _ = context.graph.tensors[op.output].shape
    pool = _struct(
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
        op.name, comment, (), (pool, _call(kernel, "&pool", context.pointer(op.input), context.pointer(op.output)))
    )


def _add(context: _Context, op: Add, comment: str) -> CStep:
    parameters = add_parameters(context.graph, op)
    addition = _struct(
        "nt_addition addition",
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
    pointers = (context.pointer(op.first), context.pointer(op.second), context.pointer(op.output))
    call = _call(f"nt_add{context.suffix(op.output)}", "&addition", context.size(op.output), *pointers)
    return CStep(op.name, comment, (), (addition, call))


def _activation(context: _Context, op: Activation, comment: str) -> CStep:
    dtype = context.graph.tensors[op.output].dtype
    limits = activation_range(context.graph.quantization(op.output), op.activation, dtype)
    pointers = (context.pointer(op.input), context.pointer(op.output))
    call = _call(f"nt_activation{context.suffix(op.output)}", context.size(op.output), *limits, *pointers)
    return CStep(op.name, comment, (), (call,))


def _requantize(context: _Context, op: Requantize, comment: str) -> CStep:
    kernel, narrow = ("nt_widen", op.input) if context.suffix(op.output) else ("nt_narrow", op.output)
    zero_point = context.graph.quantization(narrow).zero_point
    pointers = (context.pointer(op.input), context.pointer(op.output))
    multiplier = requantize_multiplier(context.graph, op)
    return CStep(op.name, comment, (), (_call(kernel, context.size(op.output), zero_point, *multiplier, *pointers),))


def _softmax(context: _Context, op: Softmax, comment: str) -> CStep:
    exponentials = softmax_exponentials(float(context.graph.quantization(op.input).scale[0]))
    table = CArray(f"{context.prefix}_table", exponentials.astype(np.int32))
    depth = context.graph.tensors[op.input].shape[-1]
    n_rows = context.size(op.input) // depth
    call = _call("nt_softmax", table.name, n_rows, depth, context.pointer(op.input), context.pointer(op.output))
    return CStep(op.name, comment, (table,), (call,))


def _wide_pointer(buffer: Buffer) -> str:
    """Return the address of int16 values in the arena, whose buffers start at multiples of 16."""
    return f"(int16_t *)(void *)(bytes + {buffer.offset})"


def _call(kernel: str, *arguments: object) -> str:
    return f"{kernel}({', '.join(map(str, arguments))});"


def _struct(declaration: str, **fields: object) -> str:
    """Return a constant struct; positional, because C++ has no designated initializers before C++20."""
    values = [f"    {value}, /* {name} */" for name, value in fields.items()]
    return "\n".join([f"const {declaration} = {{", *values, "};"])
