"""What the activations of a float network are on calibration samples: their ranges."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]

BATCH_SIZE = 64


def activation_ranges(graph: Graph, samples: Array) -> dict[str, tuple[float, float]]:
    """Return (smallest, largest) value of every activation, by name.

    Parameters
    ----------
    samples : Array
        (n_samples, *graph input shape) float32.
    """
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    program = prepare(graph, min(BATCH_SIZE, len(samples)))
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        if len(batch) != program.batch_size:
            program = prepare(graph, len(batch))
        program.run(batch)
        for name, values in program.buffers.items():
            lowest[name] = min(lowest.get(name, np.inf), float(values.min()))
            highest[name] = max(highest.get(name, -np.inf), float(values.max()))
    return {name: (lowest[name], highest[name]) for name in lowest}
