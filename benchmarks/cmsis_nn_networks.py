"""Small random quantised networks that hold every operator for which CMSIS-NN has a function."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nettrim.quantize import quantize_graph
from nettrim.widen import widenable
from nettrim_runtime.engine import prepare
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import (
    ActivationFunction,
    Add,
    AveragePool2d,
    Conv2d,
    Dense,
    MaxPool2d,
    Mul,
    Op,
    Padding,
    Reshape,
    Size2d,
    Softmax,
)
from nettrim_runtime.shapes import infer_shape

N_RANGE_SAMPLES = 32
SHARE_OF_ONE_SCALE = 0.5  # of the dense layers: the largest weights of all their rows are equal
RANGE_FACTORS = (0.5, 1.5)  # of what the samples reach: some outputs saturate, some scales are coarse
SAME = Padding(1, 1, 1, 1)
NONE, RELU, RELU6, _ = ActivationFunction


@dataclass(frozen=True)
class Step:
    """An operator behind the one before; ``weight`` is (n_outputs, kernel_height, kernel_width), or (n_outputs,)."""

    op: Op
    weight: tuple[int, ...] = ()


def _conv(n_outputs: int, height: int = 3, width: int = 3, **options: Any) -> Step:
    return Step(Conv2d("", "", "", "", "", **options), (n_outputs, height, width))


def _dense(n_outputs: int, activation: ActivationFunction = NONE) -> Step:
    return Step(Dense("", "", "", "", "", activation), (n_outputs,))


def _max_pool(size: int, stride: int, padding: Padding = SAME) -> Step:
    return Step(MaxPool2d("", "", "", Size2d(size, size), Size2d(stride, stride), padding))


def _average_pool(height: int, width: int, stride: int, padding: Padding = SAME) -> Step:
    return Step(AveragePool2d("", "", "", Size2d(height, width), Size2d(stride, stride), padding))


_FLAT = Step(Reshape("", "", ""))
_SOFTMAX = Step(Softmax("", "", ""))
NETWORKS: tuple[tuple[tuple[int, ...], tuple[Step, ...]], ...] = (
    (
        (9, 7, 4),
        (
            _conv(8, activation=RELU, padding=SAME),
            _conv(8, groups=8, padding=SAME),
            Step(Add("", "", "1", "", RELU6)),
            _conv(7, 1, 1),
            _max_pool(3, 2),
            _conv(7, groups=7, stride=Size2d(2, 2), padding=SAME),
            _FLAT,
            _dense(33, RELU),
            _dense(10),
            _SOFTMAX,
        ),
    ),
    (
        (8, 9, 6),
        (
            _conv(12, 2, 3, stride=Size2d(2, 1)),
            _conv(12, 3, 3, dilation=Size2d(1, 2), padding=Padding(1, 1, 2, 2)),
            Step(Add("", "", "1", "")),
            _average_pool(3, 3, 2),
            _conv(24, groups=12, padding=SAME),
            _conv(8, groups=4, activation=RELU, padding=SAME),
            _average_pool(2, 3, 1, Padding()),
            _conv(5, 1, 1, activation=RELU6),
            _FLAT,
            _dense(17),
            _SOFTMAX,
        ),
    ),
    (
        (1, 40, 3),
        (
            _conv(16, 1, 5, activation=RELU, padding=Padding(0, 0, 2, 2)),
            _conv(16, 1, 3, groups=16, padding=Padding(0, 0, 1, 1)),
            _conv(16, 1, 1),
            Step(Add("", "", "1", "")),
            _max_pool(1, 2, Padding()),
            _conv(6, 1, 4, stride=Size2d(1, 2)),
            _FLAT,
            _dense(64),
            _dense(4),
        ),
    ),
    ((5, 6, 7), (_conv(7, padding=SAME), _conv(7, 1, 1), Step(Mul("", "", "1", "")), _conv(4), _FLAT, _SOFTMAX)),
)


def random_networks(rng: np.random.Generator) -> list[Graph]:
    """Return the networks in int8, then with all they can in int16."""
    return [_random_network(rng, *network, is_wide=is_wide) for is_wide in (False, True) for network in NETWORKS]


def _random_network(rng: np.random.Generator, shape: tuple[int, ...], steps: Sequence[Step], *, is_wide: bool) -> Graph:
    graph = _float_network(rng, shape, steps)
    program = prepare(graph, N_RANGE_SAMPLES)
    program.run(rng.normal(size=(N_RANGE_SAMPLES, *shape)).astype(np.float32))
    ranges = {}
    for name, values in program.buffers.items():
        factor = rng.uniform(*RANGE_FACTORS)
        ranges[name] = (factor * float(values.min()), factor * float(values.max()))
    wide = frozenset().union(*widenable(graph)) if is_wide else frozenset()
    return quantize_graph(graph, ranges, wide)


def _float_network(rng: np.random.Generator, shape: tuple[int, ...], steps: Sequence[Step]) -> Graph:
    """Return the network with activations "0", the input, "1", the output of the first step, and so on."""
    tensors, ops = {"0": Tensor("0", shape)}, []
    for index, step in enumerate(steps):
        source, output = tensors[str(index)], str(index + 1)
        names: dict[str, Any] = {"name": f"op{output}", "output": output}
        names["first" if isinstance(step.op, Add | Mul) else "input"] = source.name
        if isinstance(step.op, Dense | Conv2d):
            names |= {"weight": f"weight{output}", "bias": f"bias{output}"}
            tensors |= _random_constants(rng, step, source.shape[-1], output)
        op = replace(step.op, **names)
        is_flat = isinstance(op, Reshape)
        tensors[output] = Tensor(output, (source.size,) if is_flat else infer_shape(op, {**tensors, output: source}))
        ops.append(op)
    return Graph("network", ("0",), (str(len(steps)),), tuple(ops), tensors)


def _random_constants(rng: np.random.Generator, step: Step, n_channels: int, output: str) -> dict[str, Tensor]:
    groups = step.op.groups if isinstance(step.op, Conv2d) else 1
    shape = (*step.weight, n_channels // groups)
    weight = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if isinstance(step.op, Dense) and rng.random() < SHARE_OF_ONE_SCALE:
        weight /= np.abs(weight).max(axis=1, keepdims=True)
    bias = rng.normal(size=shape[:1], scale=0.2).astype(np.float32)
    constants = {f"weight{output}": weight, f"bias{output}": bias}
    return {name: Tensor(name, values.shape, data=values) for name, values in constants.items()}
