"""A state dict whose tensors form Linear, ReLU, ..., Linear: the one network that needs no code."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.graph_builder import GraphBuilder
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction, Dense

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NotAChain:
    """Why a state dict is not a plain Linear/ReLU chain."""

    reason: str


def find_linear_chain(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...] | NotAChain:
    """Return the layers' names in order of execution, or why there is no such order.

    Both the natural order of the names (fc2 before fc10) and the order in the file are
    tried; each layer must take as many inputs as the one before it has outputs.

    Parameters
    ----------
    shapes : Mapping of str to tuple of int
        Shapes of "NAME.weight" (n_outputs, n_inputs) and "NAME.bias" (n_outputs,).
    """
    layers = [name.removesuffix("weight") for name in shapes if name == "weight" or name.endswith(".weight")]
    reason = _foreign_tensor(shapes, layers)
    if reason:
        return NotAChain(reason)
    orders = {order for order in (tuple(layers), tuple(sorted(layers, key=_natural))) if _chains(order, shapes)}
    if len(orders) == 1:
        return tuple(layer.removesuffix(".") for layer in orders.pop())
    if orders:
        return NotAChain("its layers fit together in the order of the file and in the order of their names")
    return NotAChain("the shapes of its layers do not follow one from the other")


def build_linear_chain(source: Path, layers: Iterable[str], arrays: Mapping[str, Array]) -> Graph:
    """Return the graph of Linear layers with ReLU between them; the last one stays linear.

    Parameters
    ----------
    source : Path
        The file; its stem names the graph.
    layers : iterable of str
        Names in order of execution, as `find_linear_chain` returns them.
    arrays : Mapping of str to Array
        float32, "NAME.weight" (n_outputs, n_inputs) and, unless zero, "NAME.bias" (n_outputs,).
    """
    builder = GraphBuilder(str(source))
    names = tuple(layers)
    weights = [arrays[_key(layer, "weight")] for layer in names]
    tensor = builder.add_input("input", (weights[0].shape[1],))
    for layer, weight in zip(names, weights, strict=True):
        is_last = layer == names[-1]
        title = layer or "linear"
        bias = arrays.get(_key(layer, "bias"), np.zeros(weight.shape[0], np.float32))
        tensor = builder.add(
            Dense(
                builder.op_name(title),
                tensor,
                builder.add_constant(f"{title}.weight", weight),
                builder.add_constant(f"{title}.bias", bias),
                builder.tensor_name("output" if is_last else f"{title}.output"),
                ActivationFunction.NONE if is_last else ActivationFunction.RELU,
            )
        )
    return builder.build(source.stem, ("input",), (tensor,))


def describe_linear_chain(graph: Graph) -> str:
    """Return, for instance, "Linear 784-300, ReLU, Linear 300-10"."""
    shapes = [graph.tensors[layer.weight].shape for layer in graph.layers]
    return ", ReLU, ".join(f"Linear {n_inputs}-{n_outputs}" for n_outputs, n_inputs in shapes)


def _foreign_tensor(shapes: Mapping[str, tuple[int, ...]], layers: list[str]) -> str | None:
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        prefix = f"{layer}." if layer else ""
        if prefix not in layers or part not in {"weight", "bias"}:
            return f"tensor {name!r} is not the weight or bias of a Linear layer"
        if part == "weight" and (len(shape) != 2 or 0 in shape):
            return f"tensor {name!r} has shape {shape}, a Linear layer has (n_outputs, n_inputs)"
        if part == "bias" and shape != shapes[f"{prefix}weight"][:1]:
            return f"tensor {name!r} has shape {shape}, its layer has {shapes[f'{prefix}weight'][:1]} outputs"
    return None if layers else "it holds no weights"


def _chains(order: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    weights = [shapes[f"{layer}weight"] for layer in order]
    return all(before[0] == after[1] for before, after in itertools.pairwise(weights))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _key(layer: str, part: str) -> str:
    return f"{layer}.{part}" if layer else part
