"""The second .tflite of a Linux board: which layers gain there with sparse weights, and what it then computes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.evaluate import port_values
from nettrim.sparse_convolutions import sparse_convolutions
from nettrim.statistics import predicted_classes
from nettrim_boards.board import Board
from nettrim_exporters.tflite_blocks import block_density, block_width, can_block
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Conv2d, Dense, Op, Reshape, op_constants

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DenseCost:
    """Instructions of FULLY_CONNECTED in LiteRT's stock interpreter, batch 1."""

    per_mac: float  # of a dense matrix
    per_output: float  # of one in blocks
    per_block: float


# By core and by types of activations and weights, fitted to the counts of `python -m benchmarks.sparse_tflite`
# (benchmarks/results/sparse_tflite.json). Cores with SDOT multiply a dense int8 matrix in less than half the
# instructions: there blocks of int8 gain nothing.
COSTS = {
    "cortex-a72": {
        ("int8", "int8"): DenseCost(per_mac=0.309, per_output=65.9, per_block=18.1),
        ("float32", "int8"): DenseCost(per_mac=0.317, per_output=21.1, per_block=9.23),
        ("float32", "float32"): DenseCost(per_mac=0.456, per_output=21.1, per_block=13.0),
    }
}


@dataclass(frozen=True, eq=False)
class SparseTflite:
    """What model.sparse.tflite is, beside model.tflite.

    Attributes
    ----------
    layers : tuple of str
        Those whose weights are sparse.
    description : str
        How they are stored, in words.
    reference : Graph
        Its outputs are the file's: bit for bit of integers, else up to the rounding of floats.
    largest_step : int or None
    changed_classes, samples : int
        How far its outputs lie from model.tflite's on held-out samples, in steps of int8, and how many classes change;
        None and 0 of floats, where it is the same network.
    """

    layers: tuple[str, ...]
    description: str
    reference: Graph
    largest_step: int | None
    changed_classes: int
    samples: int


def describe_sparse_tflite(graph: Graph, board: Board, x: Array) -> SparseTflite | None:
    """Return what a deployed graph's sparse file would be, None where it would not gain.

    Parameters
    ----------
    x : Array
        Float samples (n_samples, *input shape) to compare it with the dense file on.
    """
    layers = sparse_layers(graph, board)
    if not layers:
        return None
    description = _describe(graph, layers)
    if not graph.is_quantized:
        return SparseTflite(layers, description, graph, None, 0, len(x))
    reference = with_two_roundings(graph, layers)
    integers = port_values(graph, x)
    dense, sparse = run_graph(graph, integers), run_graph(reference, integers)
    largest = int(np.abs(dense.astype(int) - sparse).max(initial=0))
    changed = int(np.sum(predicted_classes(dense) != predicted_classes(sparse)))
    return SparseTflite(layers, description, reference, largest, changed, len(x))


def sparse_layers(graph: Graph, board: Board) -> tuple[str, ...]:
    """Return the layers of a graph that run faster with sparse weights in the board's stock interpreter.

    None where the interpreter's kernels were not measured on the board's core, and none on int16, which has no such
    kernel.
    """
    costs = COSTS.get(board.cpu)
    if costs is None or board.os != "linux":
        return ()
    gaining = {op.name for op in graph.ops if isinstance(op, Dense) and _gains(graph, op, costs)}
    gaining.update(sparse_convolutions(graph))
    return tuple(op.name for op in graph.ops if op.name in gaining)


def _gains(graph: Graph, layer: Dense, costs: Mapping[tuple[str, str], DenseCost]) -> bool:
    weight = graph.tensors[layer.weight]
    cost = costs.get((graph.tensors[layer.input].dtype, weight.dtype))
    if cost is None or not can_block(graph, layer):
        return False
    width, n_inputs = block_width(graph, layer), weight.shape[1]
    blocked = cost.per_output + cost.per_block * block_density(weight.values(), width) * n_inputs / width
    return bool(blocked < cost.per_mac * n_inputs)


def _describe(graph: Graph, layers: Collection[str]) -> str:
    """Say how layers are stored: "layer fc1 in blocks of 1x16 and layers conv2, conv3 in single weights"."""
    found = [op for op in graph.layers if op.name in layers]
    dense, others = ([op for op in found if isinstance(op, Dense) == wanted] for wanted in (True, False))
    forms = ((dense, f"blocks of 1x{block_width(graph, dense[0])}" if dense else ""), (others, "single weights"))
    return " and ".join(
        f"layer{'s' if len(ops) > 1 else ''} {', '.join(op.name for op in ops)} in {form}" for ops, form in forms if ops
    )


def with_two_roundings(graph: Graph, layers: Collection[str]) -> Graph:
    """Return a graph whose outputs are those of the file with ``layers`` in blocks, bit for bit.

    The interpreter scales the sums of blocked weights as it does a convolution's, with two roundings, and those of a
    dense matrix with one; so the layers become convolutions of one pixel.
    """
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    for op in graph.ops:
        if isinstance(op, Dense) and op.name in layers:
            names = [f"{op.name}/{part}" for part in ("pixel", "weight", "outputs")]
            rewritten, added = _as_convolution(graph, op, names)
            ops += rewritten
            tensors |= {tensor.name: tensor for tensor in added}
        else:
            ops.append(op)
    used = {name for op in ops for name in op_constants(op)}
    kept = {name: tensor for name, tensor in tensors.items() if tensor.data is None or name in used}
    return replace(graph, ops=tuple(ops), tensors=kept)


def _as_convolution(graph: Graph, op: Dense, names: list[str]) -> tuple[list[Op], list[Tensor]]:
    source, weight, output = (graph.tensors[name] for name in (op.input, op.weight, op.output))
    n_outputs, n_inputs = weight.shape
    pixel, filters, pixels = names
    added = [
        replace(source, name=pixel, shape=(1, 1, n_inputs)),
        replace(weight, name=filters, shape=(n_outputs, 1, 1, n_inputs), data=_filters(weight)),
        replace(output, name=pixels, shape=(1, 1, n_outputs)),
    ]
    return [
        Reshape(f"{op.name}/to_pixel", op.input, pixel),
        Conv2d(op.name, pixel, filters, op.bias, pixels, activation=op.activation),
        Reshape(f"{op.name}/from_pixel", pixels, op.output),
    ], added


def _filters(weight: Tensor) -> Array:
    values: Array = np.ascontiguousarray(weight.values()).reshape(weight.shape[0], 1, 1, weight.shape[1])
    return values
