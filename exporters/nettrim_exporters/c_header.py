"""A quantised graph as one C99 header, and the facts that the header states."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, assert_never

import jinja2
import numpy as np
import numpy.typing as npt

from nettrim_exporters.c_context import CStep
from nettrim_exporters.c_moves import MOST_PIXELS
from nettrim_exporters.c_steps import c_steps
from nettrim_exporters.c_values import CArray, c_float, c_identifier
from nettrim_exporters.memory_plan import MemoryPlan, Place, plan_memory
from nettrim_runtime.errors import DataError, GraphError, UnsupportedOperatorError
from nettrim_runtime.graph import Graph, layer_macs
from nettrim_runtime.log_softmax import LARGEST_LOG_DEPTH
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
from nettrim_runtime.softmax import LARGEST_DEPTH

Array = npt.NDArray[Any]

KERNELS_FILE = "nettrim_kernels.h"  # the name by which a model's header includes it


@dataclass(frozen=True)
class CModelFacts:
    """What a model's header states about itself, exact.

    Attributes
    ----------
    arena_bytes : int
        Working memory of a run beside the caller's input and output; at least 1, because C has no empty arrays.
    flash_bytes : int
        Constant data, each array up to the next multiple of 16; without the golden vector and without code, which
        holds the shapes of the operators.
    nnz : int
        Weights that are not zero, biases not counted.
    macs : int
        Multiply-accumulates of a dense run, zeros included.
    op_flash_bytes : mapping of str to int
        ``flash_bytes`` by the operator's name, for those that have constants.
    """

    arena_bytes: int
    flash_bytes: int
    nnz: int
    macs: int
    op_flash_bytes: Mapping[str, int]


def render_c_kernels() -> str:
    """Return the text of nettrim_kernels.h, which every model's header includes."""
    return (resources.files("nettrim_exporters") / "kernels" / KERNELS_FILE).read_text(encoding="utf-8")


def render_c_header(graph: Graph, name: str, golden: tuple[Array, Array] | None = None) -> str:
    """Return a quantised graph as a C99 header; the same graph gives the same text.

    Its ``nt_<name>_run`` gives the bits of ``nettrim_runtime.engine`` under every compiler and optimisation level.

    Parameters
    ----------
    name : str
        Of the model: ``nt_<name>_run`` and ``NT_<NAME>_ARENA_BYTES``, after ``c_identifier`` and in lower case.
    golden : tuple of Array, optional
        int8 input and output of one sample, with or without a batch axis of 1: ``nt_<name>_selftest`` compares them.

    Raises
    ------
    UnsupportedOperatorError
        As ``check_c``, or when a sum of a layer could leave int32.
    DataError
        When the golden vector does not fit the graph.
    """
    check_c(graph)
    identifier = c_identifier(name).lower()
    prefix = f"nt_{identifier}"
    plan = plan_memory(graph)
    steps = _quantized_steps(graph, plan, prefix)
    ports = [("INPUT", graph.inputs[0]), ("OUTPUT", graph.outputs[0])]
    return _template("model.h.j2").render(
        prefix=prefix,
        macro=identifier.upper(),
        facts=_facts(graph, plan, steps),
        ports=[_port(graph, role, tensor) for role, tensor in ports],
        golden=_golden_arrays(graph, prefix, golden) if golden else None,
        steps=steps,
        uses_arena=any(buffer.place is Place.ARENA for buffer in plan.buffers),
    )


def c_model_facts(graph: Graph) -> CModelFacts:
    """Return what the C header of a quantised graph needs of a board, without rendering it.

    Raises
    ------
    UnsupportedOperatorError
        As ``render_c_header``.
    """
    check_c(graph)
    plan = plan_memory(graph)
    return _facts(graph, plan, _quantized_steps(graph, plan, "nt"))


def check_c(graph: Graph) -> None:
    """Refuse a graph, float or quantised, that C cannot hold; before anything is solved.

    Raises
    ------
    UnsupportedOperatorError
        When it has several inputs or outputs, a pooling window that lies in the padding alone, a softmax whose sum
        does not fit its fixed-point number, or a resized image whose rows or columns 16 bits cannot count.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UnsupportedOperatorError(
            f"{graph.name}: inputs {graph.inputs} and outputs {graph.outputs}, "
            "the C header supports one of each; export one network for each output"
        )
    for name in (*graph.inputs, *graph.outputs):
        if graph.tensors[name].dtype == "int16":
            raise UnsupportedOperatorError(f"{graph.name}: {name!r} is int16, the C header's input and output are int8")
    for op in graph.ops:
        match op:
            case MaxPool2d() | AveragePool2d():
                _check_pool(op)
            case Softmax() | LogSoftmax():
                _check_softmax(op, graph.tensors[op.input].shape[-1])
            case (
                Dense()
                | Conv2d()
                | Add()
                | Sub()
                | Mul()
                | Concat()
                | Activation()
                | UnaryFunction()
                | PRelu()
                | Reshape()
                | Requantize()
            ):
                pass
            case ResizeNearest():
                _check_resize(op, graph.tensors[op.input].shape)
            case Pad() | Slice() | Transpose() | Mean():
                pass
            case _:
                assert_never(op)


def _check_pool(op: MaxPool2d | AveragePool2d) -> None:
    kernel, padding = op.kernel_size, op.padding
    if max(padding.top, padding.bottom) >= kernel.height or max(padding.left, padding.right) >= kernel.width:
        raise UnsupportedOperatorError(
            f"{type(op).__name__} {op.name!r}: padding {tuple(padding)} (top, bottom, left, right) for windows of "
            f"{tuple(kernel)}, supported is padding smaller than the window"
        )


def _check_softmax(op: Softmax | LogSoftmax, depth: int) -> None:
    largest = LARGEST_DEPTH if isinstance(op, Softmax) else LARGEST_LOG_DEPTH
    if depth > largest:
        raise UnsupportedOperatorError(
            f"{type(op).__name__} {op.name!r}: {depth} values in a row, supported are {largest} (the sum is Q12.19); "
            "leave the softmax out, the largest value is the same without it"
        )


def _check_resize(op: ResizeNearest, shape: tuple[int, ...]) -> None:
    if max(shape[:2]) > MOST_PIXELS:
        raise UnsupportedOperatorError(
            f"ResizeNearest {op.name!r}: an image of {shape[0]} x {shape[1]} pixels, supported are {MOST_PIXELS} along "
            "each axis"
        )


def _quantized_steps(graph: Graph, plan: MemoryPlan, prefix: str) -> tuple[CStep, ...]:
    if not graph.is_quantized:
        raise GraphError(f"{graph.name}: a float graph, expected a quantised one for C; quantise it first")
    return c_steps(graph, plan, prefix)


def _facts(graph: Graph, plan: MemoryPlan, steps: tuple[CStep, ...]) -> CModelFacts:
    flash = {step.op_name: sum(array.flash_bytes for array in step.arrays) for step in steps if step.arrays}
    return CModelFacts(
        arena_bytes=max(plan.arena_bytes, 1),
        flash_bytes=sum(flash.values()),
        nnz=sum(graph.tensors[layer.weight].nnz for layer in graph.layers),
        macs=sum(layer_macs(graph, layer) for layer in graph.layers),
        op_flash_bytes=flash,
    )


def _port(graph: Graph, role: str, tensor: str) -> tuple[str, tuple[int, ...], int, str, int]:
    quantization = graph.quantization(tensor)
    scale = c_float(float(quantization.scale[0]))
    return role, graph.tensors[tensor].shape, graph.tensors[tensor].size, scale, quantization.zero_point


def _golden_arrays(graph: Graph, prefix: str, golden: tuple[Array, Array]) -> tuple[CArray, CArray]:
    names = (graph.inputs[0], graph.outputs[0])
    for values, name in zip(golden, names, strict=True):
        if values.dtype != np.int8 or values.size != graph.tensors[name].size:
            raise DataError(
                f"golden vector of {name!r}: {values.dtype} {values.shape}, "
                f"expected int8 {graph.tensors[name].shape}, one sample"
            )
    return (
        CArray(f"{prefix}_golden_input", np.ravel(golden[0])),
        CArray(f"{prefix}_golden_output", np.ravel(golden[1])),
    )


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nettrim_exporters"),
        autoescape=jinja2.select_autoescape(),  # HTML only: not for C
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)
