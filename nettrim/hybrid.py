"""Networks that compute in floats on a board: as they are, or with the weights of dense layers in int8."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.quantize import WEIGHT_LIMIT
from nettrim_runtime.graph import Graph, Quantization, Tensor
from nettrim_runtime.ops import Dense

Precision = Literal["int8", "hybrid", "float32"]


def deployed_floats(pruned: Graph, precision: Precision) -> Graph:
    """Return a pruned float network as a board runs it, with all channels."""
    return with_integer_weights(pruned, weight_scales(pruned)) if precision == "hybrid" else pruned


def shipped_floats(pruned: Graph, precision: Precision) -> Graph:
    """Return the same network without dead channels."""
    if precision != "hybrid":
        return remove_dead_channels(pruned)
    scales = weight_scales(pruned)
    return with_integer_weights(remove_dead_channels(with_rounded_weights(pruned, scales)), scales)


def weight_scales(graph: Graph) -> dict[str, np.float32]:
    """Return one scale a dense layer, by the name of its weight."""
    weights = (graph.tensors[layer.weight] for layer in graph.layers if isinstance(layer, Dense))
    return {tensor.name: np.float32(np.abs(tensor.values()).max() / WEIGHT_LIMIT or 1) for tensor in weights}


def with_integer_weights(graph: Graph, scales: Mapping[str, np.float32]) -> Graph:
    """Return the graph with these weights as int8; activations and biases stay floats."""
    return graph.with_tensors(
        _rounded(graph.tensors[name], scale) for name, scale in scales.items() if name in graph.tensors
    )


def with_rounded_weights(graph: Graph, scales: Mapping[str, np.float32]) -> Graph:
    """Return the graph with these weights as the floats that their integers stand for."""
    rounded = with_integer_weights(graph, scales)
    names = [name for name in scales if name in graph.tensors]
    return graph.with_tensors(replace(graph.tensors[name], data=rounded.tensors[name].real_values()) for name in names)


def _rounded(weight: Tensor, scale: np.float32) -> Tensor:
    integers = np.clip(np.rint(weight.values() / scale), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return replace(weight, dtype="int8", data=integers, quantization=Quantization(np.array([scale], np.float32)))
