"""What torch exported of a module to a Graph, checked to compute what the module computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.imported_model import ImportedModel
from nettrim.importers.onnx_import import import_onnx
from nettrim.importers.torch_export import EXAMPLE_BATCH
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

RELATIVE_TOLERANCE = 1e-3  # of the largest output: float32 sums in another order stay below a tenth of it


@dataclass(frozen=True, eq=False)
class ExportedModule:
    """A module and its ONNX bytes.

    Attributes
    ----------
    run : callable
        Returns the module's outputs for `example_samples`.
    data : bytes
        What torch exported of it.
    input_shape : tuple of int
        The shape of one sample as the module takes it.
    n_samples : int
        How many samples the module takes at once, where it does not take any number.
    """

    run: Callable[[Array], Array]
    data: bytes
    input_shape: tuple[int, ...]
    n_samples: int = EXAMPLE_BATCH


def import_exported(
    path: Path, exported: ExportedModule, input_shape: tuple[int, ...] | None, source: str | None = None
) -> ImportedModel:
    """Return the network of a module.

    Parameters
    ----------
    path : Path
        The file that the module comes from.
    input_shape : tuple of int or None
        The shape of users' samples, where it is another than the module's.
    source : str, optional
        What to call the file in error messages, its path if left out.

    Raises
    ------
    ModelFileError
        When torch exported another function than the module's.
    UnsupportedOperatorError
        When the network holds operators that cannot be carried over: the message names all of them.
    """
    model = import_onnx(exported.data, source or str(path), path.stem, input_shape)
    samples = example_samples(exported.n_samples, exported.input_shape)
    expected, outputs = exported.run(samples), _run(model, samples)
    channels_first = np.moveaxis(outputs, -1, 1)  # images come channels last
    error = min(_difference(outputs, expected), _difference(channels_first, expected))
    if not error <= RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0))):
        raise ModelFileError(
            f"{source or path}: exported to ONNX the network has outputs of shape {outputs.shape[1:]} that differ by"
            f" {error:.2g} from those in torch, of shape {expected.shape[1:]}: torch's exporter does not know one of"
            " its layers, for instance an LSTM with proj_size; replace that layer"
        )
    return model


def example_samples(n_samples: int, input_shape: tuple[int, ...]) -> Array:
    """Return the samples that a module and its graph are compared on: (n_samples, *input_shape)."""
    return np.random.default_rng(0).normal(size=(n_samples, *input_shape)).astype(np.float32)


def _run(model: ImportedModel, samples: Array) -> Array:
    values = samples.transpose(0, 2, 3, 1) if model.input_layout == "NCHW" else samples
    shape = model.graph.tensors[model.graph.inputs[0]].shape
    return run_graph(model.graph, np.ascontiguousarray(values).reshape(len(samples), *shape))


def _difference(outputs: Array, expected: Array) -> float:
    if outputs.shape != expected.shape:
        return float("inf")
    return float(np.abs(outputs - expected).max(initial=0.0))
