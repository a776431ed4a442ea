"""The second .tflite of a Linux board: which dense layers gain as blocks of 1x16, and the integers they then give."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.statistics import predicted_classes
from nettrim_boards.board import Board
from nettrim_exporters.tflite_blocks import BLOCK_WIDTH, block_density, can_block
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Conv2d, Dense, Op, Reshape, op_constants

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DenseCost:
    """Instructions of FULLY_CONNECTED on int8 in LiteRT's stock interpreter, batch 1."""

    per_mac: float  # of a dense matrix
    per_output: float  # of one in blocks
    per_block: float


# Fitted to the counts of `python -m benchmarks.sparse_tflite` (benchmarks/results/sparse_tflite.json). Cores with SDOT
# multiply a dense matrix in less than half the instructions: there blocks of int8 gain nothing.
COSTS = {"cortex-a72": DenseCost(per_mac=0.311, per_output=66.0, per_block=18.1)}


@dataclass(frozen=True, eq=False)
class SparseTflite:
    """What model.sparse.tflite is, beside model.tflite.

    Attributes
    ----------
    layers : tuple of str
        The dense layers whose weights are in blocks.
    reference : Graph
        Its outputs are the file's, bit for bit.
    largest_step, changed_classes, samples : int
        How far its outputs lie from model.tflite's on held-out samples, in steps of int8; how many classes change.
    """

    layers: tuple[str, ...]
    reference: Graph
    largest_step: int
    changed_classes: int
    samples: int


def describe_sparse_tflite(graph: Graph, board: Board, x: Array) -> SparseTflite | None:
    """Return what a quantised graph's sparse file would be, None where it would not gain.

    Parameters
    ----------
    x : Array
        Float samples (n_samples, *input shape) to compare it with the dense file on.
    """
    layers = blocked_layers(graph, board)
    if not layers:
        return None
    reference = with_two_roundings(graph, layers)
    integers = graph.quantization(graph.inputs[0]).quantize(x)
    dense, sparse = run_graph(graph, integers), run_graph(reference, integers)
    largest = int(np.abs(dense.astype(int) - sparse).max(initial=0))
    changed = int(np.sum(predicted_classes(dense) != predicted_classes(sparse)))
    return SparseTflite(layers, reference, largest, changed, len(x))


def blocked_layers(graph: Graph, board: Board) -> tuple[str, ...]:
    """Return the dense layers of a quantised graph that run faster as blocks in the board's stock interpreter.

    None where the interpreter's kernels were not measured on the board's core, and none on int16, which has no such
    kernel.
    """
    cost = COSTS.get(board.cpu)
    if cost is None or board.os != "linux":
        return ()
    return tuple(op.name for op in graph.ops if isinstance(op, Dense) and _gains(graph, op, cost))


def _gains(graph: Graph, layer: Dense, cost: DenseCost) -> bool:
    weight = graph.tensors[layer.weight].values()
    if graph.tensors[layer.input].dtype != "int8" or not can_block(weight):
        return False
    n_inputs = weight.shape[1]
    blocked = cost.per_output + cost.per_block * block_density(weight) * n_inputs / BLOCK_WIDTH
    return bool(blocked < cost.per_mac * n_inputs)


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
