"""A quantised file deployed as it is: its own integers, bit for bit, beside the floats that they stand for."""

from dataclasses import replace

import numpy as np

from nettrim.goal import CHOICES
from nettrim.importers import ImportedModel
from nettrim.passes import simplify
from nettrim.prune import PrunedLayer, PruneResult
from nettrim.samples import SYNTHETIC_SAMPLES, Samples
from nettrim_runtime.graph import Graph, Tensor

AS_IN_FILE = "as in the file"  # the status of every layer
KEPT = "deployed as it is, every bit the file's; with a goal, such as --sparsity, it is pruned and quantised again"
KEPT_GOAL = f"the file's own integers, as they are (the default for a quantised file; {CHOICES} prune it)"
QUANTIZED_AGAIN = "the file's integers became the values that they stand for: they are pruned and quantised again"


def with_deployment_note(model: ImportedModel, *, is_kept: bool) -> ImportedModel:
    """Return a model whose notes say what becomes of a file's own integers, where it has some."""
    if model.quantized is None:
        return model
    return replace(model, notes=(*model.notes, KEPT if is_kept else QUANTIZED_AGAIN))


def dequantized(graph: Graph) -> Graph:
    """Return the float graph that a quantised one stands for."""
    return simplify(replace(graph, tensors={name: _dequantized(tensor) for name, tensor in graph.tensors.items()}))


def unpruned(graph: Graph) -> PruneResult:
    """Return the outcome of a float graph that nothing was taken from."""
    layers = (PrunedLayer(layer.name, AS_IN_FILE, None, response=layer.output) for layer in graph.layers)
    return PruneResult(graph, tuple(layers))


def integer_samples(graph: Graph, rng: np.random.Generator) -> Samples:
    """Return samples of all int8 inputs alike, for when there are no data."""
    name = graph.inputs[0]
    integers = rng.integers(-128, 128, (SYNTHETIC_SAMPLES, *graph.tensors[name].shape), dtype=np.int8)
    warning = (
        "no data: errors and agreement are measured on inputs drawn uniformly from int8, and say little of yours; "
        "the deployed bits are the file's on every input"
    )
    return Samples(graph.quantization(name).dequantize(integers), None, "int8 inputs", (warning,), is_synthetic=True)


def _dequantized(tensor: Tensor) -> Tensor:
    found = tensor.quantization
    if tensor.data is None or found is None:
        return replace(tensor, dtype="float32", quantization=None)
    scale = found.scale.astype(np.float64).reshape(-1, *(1,) * (len(tensor.shape) - 1))
    return replace(tensor, dtype="float32", quantization=None, data=(tensor.values() * scale).astype(np.float32))
