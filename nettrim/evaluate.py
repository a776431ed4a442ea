"""The original, the pruned and the int8 network on the same samples: accuracy, agreement, errors layer by layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.samples import Samples
from nettrim.statistics import clopper_pearson_lower, predicted_classes, share_equal
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

BATCH_SIZE = 64
UPPER_QUANTILE = 0.95


@dataclass(frozen=True, eq=False)
class Networks:
    """One network three times: as it was trained, pruned, and as it is deployed."""

    original: Graph
    pruned: Graph
    deployed: Graph


@dataclass(frozen=True)
class Accuracy:
    """Shares of right classes on labelled samples."""

    original: float
    pruned: float
    deployed: float
    samples: int


@dataclass(frozen=True)
class Agreement:
    """How often pruned and deployed network give the original's class on samples held out of every fit.

    Attributes
    ----------
    pruned_lower, deployed_lower : float
        Exact lower bounds at 95 % confidence (Clopper-Pearson, one-sided).
    relative_output_error, relative_output_error_quantile : float
        ||deployed - original|| / ||original|| over all samples; its 95 % quantile over single samples.
    """

    pruned: float
    pruned_lower: float
    deployed: float
    deployed_lower: float
    relative_output_error: float
    relative_output_error_quantile: float
    samples: int


def measure_accuracy(networks: Networks, samples: Samples) -> Accuracy | None:
    """Return the three accuracies, or None without labels."""
    if samples.labels is None:
        return None
    labels = samples.labels
    original, pruned, deployed = (
        share_equal(predicted_classes(outputs), labels) for outputs in _three_outputs(networks, samples.x)
    )
    return Accuracy(original, pruned, deployed, len(samples))


def measure_agreement(networks: Networks, samples: Samples) -> Agreement:
    """Compare pruned and deployed network with the original one; no labels needed."""
    original, pruned, deployed = _three_outputs(networks, samples.x)
    classes = predicted_classes(original)
    hits = [int(np.sum(predicted_classes(outputs) == classes)) for outputs in (pruned, deployed)]
    difference = np.linalg.norm((deployed - original).reshape(len(samples), -1), axis=1)
    norms = np.linalg.norm(original.reshape(len(samples), -1), axis=1)
    whole = float(np.linalg.norm(norms))
    single = difference / np.maximum(norms, np.finfo(np.float32).tiny)
    return Agreement(
        pruned=hits[0] / len(samples),
        pruned_lower=clopper_pearson_lower(hits[0], len(samples)),
        deployed=hits[1] / len(samples),
        deployed_lower=clopper_pearson_lower(hits[1], len(samples)),
        relative_output_error=float(np.linalg.norm(difference)) / whole if whole else 0.0,
        relative_output_error_quantile=float(np.quantile(single, UPPER_QUANTILE)),
        samples=len(samples),
    )


def layer_errors(networks: Networks, samples: Array) -> dict[str, tuple[float, float]]:
    """Return, for every layer's output, how far (pruned, deployed) lies from the original network.

    Each as a share of the norm of the original output over all samples.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    """
    outputs = {layer.name: layer.output for layer in networks.original.layers}
    sums = {name: np.zeros(3) for name in outputs}  # squared: original, pruned - original, deployed - original
    entry = networks.deployed.quantization(networks.deployed.inputs[0])
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        programs = [prepare(graph, len(batch)) for graph in (networks.original, networks.pruned, networks.deployed)]
        for program, values in zip(programs, (batch, batch, entry.quantize(batch)), strict=True):
            program.run(values)
        for name, tensor in outputs.items():
            original, pruned, integers = (program.buffers[tensor] for program in programs)
            deployed = networks.deployed.quantization(tensor).dequantize(integers)
            parts = (original, pruned - original, deployed - original)
            sums[name] += [float(np.sum(np.square(part, dtype=np.float64))) for part in parts]
    return {
        name: (_root_share(square[1], square[0]), _root_share(square[2], square[0])) for name, square in sums.items()
    }


def run_deployed(graph: Graph, samples: Array) -> Array:
    """Run a quantised graph on real values: quantise, run, and return real values."""
    integers = run_graph(graph, graph.quantization(graph.inputs[0]).quantize(samples))
    return graph.quantization(graph.outputs[0]).dequantize(integers)


def _three_outputs(networks: Networks, samples: Array) -> tuple[Array, Array, Array]:
    return (
        run_graph(networks.original, samples),
        run_graph(networks.pruned, samples),
        run_deployed(networks.deployed, samples),
    )


def _root_share(part: float, whole: float) -> float:
    return float(np.sqrt(part / whole)) if whole else (0.0 if part == 0 else float("inf"))
