"""Squared derivatives of a network's output, against torch's."""

import numpy as np
import pytest
import torch

from nettrim.importers import load_model
from nettrim.propagation import logits_tensor
from nettrim.sensitivity import output_sensitivity
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import (
    ActivationFunction,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    MaxPool2d,
    Op,
    Padding,
    Reshape,
    Size2d,
)
from nettrim_runtime.shapes import infer_shape
from tests.shared_data import shared_data

RELU = ActivationFunction.RELU
PAIR = Size2d(2, 2)


def test_dense_network_has_the_derivatives_of_its_weights() -> None:
    rng = np.random.default_rng(0)
    model = load_model(shared_data("models/lenet_300_100_mnist.pt")).graph
    samples = rng.random((64, 784), np.float32)
    found = output_sensitivity(model, samples, [layer.output for layer in model.layers], rng)
    matrices = [torch.from_numpy(model.tensors[layer.weight].values()) for layer in model.layers]
    biases = [torch.from_numpy(model.tensors[layer.bias].values()) for layer in model.layers]
    hidden = [torch.relu(torch.from_numpy(samples) @ matrices[0].T + biases[0]).requires_grad_()]
    hidden.append(torch.relu(hidden[0] @ matrices[1].T + biases[1]))
    logits = hidden[1] @ matrices[2].T + biases[2]
    for layer, tensor in zip(model.layers, hidden, strict=False):
        squares = sum(
            torch.autograd.grad(logits[:, c].sum(), tensor, retain_graph=True)[0].double().square() for c in range(10)
        )
        assert np.allclose(found[layer.output], squares.mean(dim=0).numpy(), rtol=1e-4)
    assert np.allclose(found[model.layers[2].output], 1.0)


def test_convolutions_pools_sums_and_concatenations_have_the_derivatives_of_finite_differences() -> None:
    rng = np.random.default_rng(1)
    graph = _branching_network(rng)
    samples = rng.standard_normal((64, 7, 6, 4)).astype(np.float32)
    found = output_sensitivity(graph, samples, ["input"], rng)["input"]
    exact = _by_torch(graph, samples)
    assert np.allclose(found, exact, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_many_outputs_are_told_by_random_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((40, 6)).astype(np.float32)
    layer = Dense("out", "input", "w", "b", "output")
    tensors = {
        "input": Tensor("input", (6,)),
        "w": Tensor("w", weight.shape, data=weight),
        "b": Tensor("b", (40,), data=np.zeros(40, np.float32)),
        "output": Tensor("output", (40,)),
    }
    graph = Graph("wide", ("input",), ("output",), (layer,), tensors)
    found = output_sensitivity(graph, np.ones((1024, 6), np.float32), ["input"], rng)["input"]
    assert np.allclose(found, np.square(weight).sum(axis=0), rtol=0.1)


def _branching_network(rng: np.random.Generator) -> Graph:
    ops: list[Op] = [
        Conv2d("a", "input", "wa", "ba", "xa", padding=Padding(1, 1, 0, 1), groups=2, activation=RELU),
        Conv2d("b", "input", "wb", "bb", "xb", padding=Padding(1, 1, 0, 1), groups=4),
        Add("sum", "xa", "xb", "xs", activation=RELU),
        Concat("join", ("xs", "xa", "input"), "xj"),
        MaxPool2d("max", "xj", "xm", PAIR, Size2d(1, 2), Padding(1, 0, 0, 0)),
        AveragePool2d("mean", "xm", "xv", PAIR, PAIR, Padding(0, 1, 1, 0)),
        Reshape("flat", "xv", "xf"),
        Dense("out", "xf", "wo", "bo", "logits"),
    ]
    tensors = {"input": Tensor("input", (7, 6, 4))}
    shapes = {"wa": (4, 3, 2, 2), "wb": (4, 3, 2, 1)}
    for op in ops:
        if isinstance(op, Reshape):
            tensors[op.output] = Tensor(op.output, (tensors[op.input].size,))
            continue
        if isinstance(op, Conv2d | Dense):
            shape = shapes.get(op.weight) or (5, tensors[op.input].size)
            weight, bias = (rng.standard_normal(size).astype(np.float32) for size in (shape, shape[:1]))
            tensors |= {
                op.weight: Tensor(op.weight, shape, data=weight),
                op.bias: Tensor(op.bias, shape[:1], data=bias),
            }
        tensors[op.output] = Tensor(op.output, ())
        tensors[op.output] = Tensor(op.output, infer_shape(op, tensors))
    return Graph("branching", ("input",), ("logits",), tuple(ops), tensors)


def _by_torch(graph: Graph, samples: np.ndarray) -> np.ndarray:
    """Return (n_channels,) mean squares of the whole Jacobian, from the same operators in torch."""
    constants = {name: torch.from_numpy(t.values()).double() for name, t in graph.tensors.items() if t.data is not None}

    def convolve(x: torch.Tensor, weight: str, bias: str, groups: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(x, (0, 1, 1, 1))
        return torch.nn.functional.conv2d(padded, constants[weight].permute(0, 3, 1, 2), constants[bias], groups=groups)

    def logits(x: torch.Tensor) -> torch.Tensor:
        image = x.permute(0, 3, 1, 2)
        first = torch.relu(convolve(image, "wa", "ba", 2))
        total = torch.relu(first + convolve(image, "wb", "bb", 4))
        padded = torch.nn.functional.pad(torch.cat((total, first, image), dim=1), (0, 0, 1, 0), value=-torch.inf)
        pooled = torch.nn.functional.max_pool2d(padded, 2, (1, 2))
        ones = torch.nn.functional.pad(torch.ones_like(pooled), (1, 0, 0, 1))
        sums = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(pooled, (1, 0, 0, 1)), 2)
        mean = sums / torch.nn.functional.avg_pool2d(ones, 2)
        flat = mean.permute(0, 2, 3, 1).reshape(len(x), -1)
        return flat @ constants["wo"].T + constants["bo"]

    x = torch.from_numpy(samples).double().requires_grad_()
    outputs = logits(x)
    assert outputs.shape[1] == graph.tensors[logits_tensor(graph)].size
    squares = sum(
        torch.autograd.grad(outputs[:, c].sum(), x, retain_graph=True)[0].square() for c in range(outputs.shape[1])
    )
    return squares.mean(dim=(0, 1, 2)).numpy()
