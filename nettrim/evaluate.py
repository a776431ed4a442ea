"""The original, the pruned and the deployed network on the same samples: accuracy, agreement, errors layer by layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.propagation import Propagation, logits_tensor, propagate
from nettrim.samples import Samples
from nettrim.statistics import answers_with_a_class, clopper_pearson_lower, predicted_classes, share_equal
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Graph, layer_macs

Array = npt.NDArray[Any]

BATCH_SIZE = 64
UPPER_QUANTILE = 0.95
PROOF_MACS = 10**10  # multiply-accumulates of the samples that bounds are computed on: seconds
FEWEST_PROOF_SAMPLES = 64


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
    pruned, deployed : float or None
        Shares of 1; None, as their bounds, where the outputs are no classes.
    pruned_lower, deployed_lower : float or None
        Exact lower bounds at 95 % confidence (Clopper-Pearson, one-sided).
    relative_output_error, relative_output_error_quantile : float
        ||deployed - original|| / ||original|| over all samples; its 95 % quantile over single samples.
    """

    pruned: float | None
    pruned_lower: float | None
    deployed: float | None
    deployed_lower: float | None
    relative_output_error: float
    relative_output_error_quantile: float
    samples: int


@dataclass(frozen=True, eq=False)
class ProvenBounds:
    """What operator norms prove of the pruned and the deployed network, on fitted and on held-out samples.

    Attributes
    ----------
    kept_pruned, kept_deployed : int or None
        Held-out samples, of those that were looked at (the first ones of a large network), whose class is kept by
        proof; None where the outputs are no classes or, of the deployed network, where a softmax in int8 may round
        two of them to one value.
    """

    pruned_fit: Propagation
    pruned_held_out: Propagation
    deployed_fit: Propagation
    deployed_held_out: Propagation
    kept_pruned: int | None
    kept_deployed: int | None


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
    classes = predicted_classes(original) if has_classes(networks.original, samples) else None
    pruned_share, pruned_lower = _equal_classes(pruned, classes)
    deployed_share, deployed_lower = _equal_classes(deployed, classes)
    difference = np.linalg.norm((deployed - original).reshape(len(samples), -1), axis=1)
    norms = np.linalg.norm(original.reshape(len(samples), -1), axis=1)
    whole = float(np.linalg.norm(norms))
    single = difference / np.maximum(norms, np.finfo(np.float32).tiny)
    return Agreement(
        pruned=pruned_share,
        pruned_lower=pruned_lower,
        deployed=deployed_share,
        deployed_lower=deployed_lower,
        relative_output_error=float(np.linalg.norm(difference)) / whole if whole else 0.0,
        relative_output_error_quantile=float(np.quantile(single, UPPER_QUANTILE)),
        samples=len(samples),
    )


def has_classes(graph: Graph, samples: Samples) -> bool:
    """Return whether a network's answer is a class, by its shapes; labels make a network of several outputs one."""
    shapes = graph.tensors[graph.inputs[0]].shape, graph.tensors[graph.outputs[0]].shape
    return answers_with_a_class(*shapes) or (samples.labels is not None and max(shapes[1], default=1) > 1)


def prove_bounds(networks: Networks, fit: Array, held_out: Samples) -> ProvenBounds:
    """Bound how far the outputs of pruned and deployed network lie from the original's, sample by sample.

    Parameters
    ----------
    fit : Array
        (n_samples, *graph input shape) float32, of the calibration samples.
    """
    original = networks.original
    macs = sum(layer_macs(original, layer) for layer in original.layers)
    most = max(FEWEST_PROOF_SAMPLES, PROOF_MACS // max(macs, 1))
    sets = (fit[:most], held_out.x[:most])
    pruned, deployed = (propagate(original, graph, sets) for graph in (networks.pruned, networks.deployed))
    classes = has_classes(original, held_out)
    ends_in_softmax = logits_tensor(original) != original.outputs[0]
    return ProvenBounds(
        pruned_fit=pruned[0],
        pruned_held_out=pruned[1],
        deployed_fit=deployed[0],
        deployed_held_out=deployed[1],
        kept_pruned=pruned[1].kept if classes else None,
        kept_deployed=deployed[1].kept if classes and not ends_in_softmax else None,
    )


def layer_errors(networks: Networks, samples: Array) -> dict[str, tuple[float, float]]:
    """Return, for every layer's output, how far (pruned, deployed) lies from the original network.

    Each as a share of the norm of the original output over all samples, and all steps that share a weight.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    """
    original = networks.original
    outputs = [(layer.name, step.output) for layer in original.layers for step in original.sharing(layer.weight)]
    sums = {name: np.zeros(3) for name, _ in outputs}  # squared: original, pruned - original, deployed - original
    deployed_graph = networks.deployed
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        programs = [prepare(graph, len(batch)) for graph in (original, networks.pruned, deployed_graph)]
        for program, values in zip(programs, (batch, batch, port_values(deployed_graph, batch)), strict=True):
            program.run(values)
        for name, tensor in outputs:
            wanted, pruned, found = (program.buffers[tensor] for program in programs)
            deployed = real_values(deployed_graph, tensor, found)
            parts = (wanted, pruned - wanted, deployed - wanted)
            sums[name] += [float(np.sum(np.square(part, dtype=np.float64))) for part in parts]
    return {
        name: (_root_share(square[1], square[0]), _root_share(square[2], square[0])) for name, square in sums.items()
    }


def run_deployed(graph: Graph, samples: Array) -> Array:
    """Run a graph, quantised or of floats, on real values, and return real values."""
    return real_values(graph, graph.outputs[0], run_graph(graph, port_values(graph, samples)))


def port_values(graph: Graph, samples: Array) -> Array:
    """Return real values as a graph's input takes them."""
    return graph.quantization(graph.inputs[0]).quantize(samples) if graph.is_quantized else samples


def real_values(graph: Graph, tensor: str, values: Array) -> Array:
    """Return what an activation's values stand for."""
    return graph.quantization(tensor).dequantize(values) if graph.is_quantized else values


def _three_outputs(networks: Networks, samples: Array) -> tuple[Array, Array, Array]:
    return (
        run_graph(networks.original, samples),
        run_graph(networks.pruned, samples),
        run_deployed(networks.deployed, samples),
    )


def _equal_classes(outputs: Array, classes: Array | None) -> tuple[float | None, float | None]:
    """Return the share of outputs of the given classes and its lower bound; None for both without classes."""
    if classes is None:
        return None, None
    hits = int(np.sum(predicted_classes(outputs) == classes))
    return hits / len(classes), clopper_pearson_lower(hits, len(classes))


def _root_share(part: float, whole: float) -> float:
    return float(np.sqrt(part / whole)) if whole else (0.0 if part == 0 else float("inf"))
