"""How much a network's output moves with each channel of a tensor: squared derivatives, by reverse differentiation."""

from collections.abc import Iterable

import numpy as np

from nettrim.differentiate import tensor_slopes
from nettrim.propagation import logits_tensor
from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Array, Graph

BATCH_SIZE = 64
PROBES = 16  # directions of the output, where it has more


def output_sensitivity(
    graph: Graph, samples: Array, tensors: Iterable[str], rng: np.random.Generator
) -> dict[str, Array]:
    """Return by tensor (n_channels,) float64: the mean over samples and pixels of sum_c (d logit_c / d value)^2.

    The diagonal of the Gauss-Newton matrix of the squared output error, as far as channels go. Outputs are those
    before a final softmax; where there are more than `PROBES`, random signs stand for them, which leaves the mean
    as it is.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    """
    wanted, logits = set(tensors), logits_tensor(graph)
    sums = {name: np.zeros(graph.tensors[name].shape[-1]) for name in wanted}
    size = min(BATCH_SIZE, len(samples))
    program = prepare(graph, size)
    used = len(samples) // size * size
    for start in range(0, used, size):
        program.run(samples[start : start + size])
        for seed in _probes(program.buffers[logits].shape, rng):
            for name, slope in tensor_slopes(graph, program.buffers, {logits: seed}, wanted):
                channels = slope.reshape(-1, slope.shape[-1])
                sums[name] += np.einsum("ij,ij->j", channels, channels, dtype=np.float64)
    counts = {name: used * graph.tensors[name].size // graph.tensors[name].shape[-1] for name in wanted}
    return {name: sums[name] / counts[name] for name in wanted}


def _probes(shape: tuple[int, ...], rng: np.random.Generator) -> list[Array]:
    """Return directions whose squared derivatives add up to those of all outputs, in the mean at least."""
    n_outputs = int(np.prod(shape[1:]))
    if n_outputs > PROBES:
        return [
            rng.choice(np.array([-1.0, 1.0], np.float32), shape) / np.float32(np.sqrt(PROBES)) for _ in range(PROBES)
        ]
    basis = np.eye(n_outputs, dtype=np.float32).reshape(n_outputs, *shape[1:])
    return [np.broadcast_to(row, shape) for row in basis]
