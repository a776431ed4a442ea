"""Derivatives of operators, against torch's and against their matrices."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from nettrim.differentiate import tensor_slopes
from nettrim_runtime.engine import prepare
from nettrim_runtime.ops import ActivationFunction, Function
from tests.graphs import EVERYWHERE, LINEAR, GraphBuilder, matrix_of, random_inputs

TORCH: dict[Function, Callable[[torch.Tensor], torch.Tensor]] = {
    Function.SIGMOID: torch.sigmoid,
    Function.TANH: torch.tanh,
    Function.HARD_SWISH: functional.hardswish,
    Function.LEAKY_RELU: lambda x: functional.leaky_relu(x, 0.3),
    Function.GELU: functional.gelu,
    Function.GELU_TANH: lambda x: functional.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("function", EVERYWHERE)
def test_functions_have_the_derivatives_of_torch(function: Function, rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (500,))
    builder.function(function, 0.3 if function is Function.LEAKY_RELU else 0.0)
    graph = builder.build()
    samples = rng.normal(scale=3, size=(2, 500)).astype(np.float32)
    program = prepare(graph, 2)
    program.run(samples)
    seed = rng.normal(size=samples.shape).astype(np.float32)
    ((_, slope),) = tensor_slopes(graph, program.buffers, {graph.outputs[0]: seed}, {"input"})
    x = torch.from_numpy(samples).double().requires_grad_()
    (expected,) = torch.autograd.grad(TORCH[function](x), x, torch.from_numpy(seed).double())
    smooth = np.abs(np.abs(samples) % 3) > 1e-3  # away from the corners at -3, 0 and 3
    np.testing.assert_allclose(slope[smooth], expected.numpy()[smooth], atol=1e-5)


def test_broadcast_pairs_have_the_derivatives_of_torch(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 3, 5))
    row = builder.average_pool((4, 1))
    total = builder.add("input")
    builder.output = total
    pixel = builder.average_pool((4, 3))
    builder.output = row
    builder.sub(total, ActivationFunction.RELU)
    builder.mul(pixel)
    graph = builder.build()
    samples = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    program = prepare(graph, 2)
    program.run(samples)
    seed = rng.normal(size=samples.shape).astype(np.float32)
    ((_, slope),) = tensor_slopes(graph, program.buffers, {graph.outputs[0]: seed}, {"input"})
    x = torch.from_numpy(samples).double().requires_grad_()
    rows = x.mean(dim=1, keepdim=True)
    sums = rows + x
    result = torch.relu(rows - sums) * sums.mean(dim=(1, 2), keepdim=True)
    (expected,) = torch.autograd.grad(result, x, torch.from_numpy(seed).double())
    np.testing.assert_allclose(slope, expected.numpy(), atol=1e-5)


def test_a_prelu_has_the_derivative_of_torch(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (4, 3, 5))
    builder.prelu()
    graph = builder.build()
    samples = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    program = prepare(graph, 2)
    program.run(samples)
    seed = rng.normal(size=samples.shape).astype(np.float32)
    ((_, slope),) = tensor_slopes(graph, program.buffers, {graph.outputs[0]: seed}, {"input"})
    x = torch.from_numpy(samples).permute(0, 3, 1, 2).requires_grad_()
    result = functional.prelu(x, torch.from_numpy(graph.tensors["prelu0.slope"].values()))
    (expected,) = torch.autograd.grad(result, x, torch.from_numpy(seed).permute(0, 3, 1, 2))
    np.testing.assert_allclose(slope, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-6)


def test_a_log_softmax_has_the_derivative_of_torch(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (3, 7))
    builder.log_softmax()
    graph = builder.build()
    samples = rng.normal(size=(2, 3, 7)).astype(np.float32)
    program = prepare(graph, 2)
    program.run(samples)
    seed = rng.normal(size=samples.shape).astype(np.float32)
    ((_, slope),) = tensor_slopes(graph, program.buffers, {graph.outputs[0]: seed}, {"input"})
    x = torch.from_numpy(samples).requires_grad_()
    (expected,) = torch.autograd.grad(torch.log_softmax(x, -1), x, torch.from_numpy(seed))
    np.testing.assert_allclose(slope, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("build", LINEAR.values(), ids=LINEAR)
def test_a_move_or_mean_has_the_derivative_of_its_matrix(
    build: Callable[[GraphBuilder], object], rng: np.random.Generator
) -> None:
    builder = GraphBuilder(rng, (5, 4, 3))
    build(builder)
    graph = builder.build()
    program = prepare(graph, 2)
    program.run(random_inputs(graph, rng, 2))
    seed = rng.normal(size=program.buffers[graph.outputs[0]].shape).astype(np.float32)
    ((_, slope),) = tensor_slopes(graph, program.buffers, {graph.outputs[0]: seed}, {"input"})
    expected = seed.reshape(2, -1) @ matrix_of(graph)
    np.testing.assert_allclose(slope.reshape(2, -1), expected, atol=1e-6)  # float32 sums of at most 12 terms
