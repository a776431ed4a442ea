"""One-layer networks with random int8 weights, the subjects of the kernel benchmarks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.quantize import quantize_graph
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Conv2d, Dense, Layer, Padding
from nettrim_runtime.shapes import infer_shape

Array = npt.NDArray[Any]

SMALLEST_WEIGHT = 0.1  # of a largest one of 1: no kept weight becomes zero in int8


@dataclass(frozen=True)
class LayerCase:
    """A fully connected layer, or a convolution with stride 1.

    Attributes
    ----------
    input_shape : tuple of int
        (n_inputs,) or (height, width, n_channels).
    weight_shape : tuple of int
        (n_outputs, n_inputs) or (n_outputs, kernel_height, kernel_width, n_channels / groups).
    pad : int
        Pixels added on each side of the image.
    """

    name: str
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    pad: int = 0
    groups: int = 1

    @property
    def kind(self) -> str:
        """The operator's name."""
        return "Conv2d" if len(self.input_shape) == 3 else "Dense"


def random_layer(case: LayerCase, density: float, rng: np.random.Generator) -> Graph:
    """Return a quantised graph of the one layer; each weight is kept with probability ``density``."""
    span = float(np.sqrt(1.0 + density * np.prod(case.weight_shape[1:])))  # about three deviations of a sum
    ranges = {"input": (-1.0, 1.0), "output": (-span, span)}
    return quantize_graph(random_float_layer(case, density, rng), ranges)


def random_float_layer(case: LayerCase, density: float, rng: np.random.Generator) -> Graph:
    """Return the same before it is quantised."""
    magnitude = rng.uniform(SMALLEST_WEIGHT, 1.0, case.weight_shape)
    sign = rng.choice([-1.0, 1.0], case.weight_shape)
    weight = np.where(rng.random(case.weight_shape) < density, sign * magnitude, 0.0).astype(np.float32)
    bias = rng.uniform(-1.0, 1.0, case.weight_shape[0]).astype(np.float32)
    layer = _layer(case)
    tensors = {
        "input": Tensor("input", case.input_shape),
        "weight": Tensor("weight", case.weight_shape, data=weight),
        "bias": Tensor("bias", bias.shape, data=bias),
        "output": Tensor("output", ()),
    }
    tensors["output"] = Tensor("output", infer_shape(layer, tensors))
    return Graph("layer", ("input",), ("output",), (layer,), tensors)


def _layer(case: LayerCase) -> Layer:
    names = ("layer", "input", "weight", "bias", "output")
    if case.kind == "Dense":
        return Dense(*names)
    pad = case.pad
    return Conv2d(*names, padding=Padding(pad, pad, pad, pad), groups=case.groups)
