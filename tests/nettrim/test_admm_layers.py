"""The solver on layers as networks have them, against CVXPY: real weights, pooling, residual sums."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nettrim.activations import IDENTITY, RELU, RELU6, Activation
from nettrim.admm import solve
from nettrim.admm_loop import AdmmSettings
from nettrim.boxes import pool_box, shifted_box
from nettrim.layer_problem import Ball, Constraint, LayerProblem, build_problem, l1_norm
from nettrim.layer_solution import SolverStatus
from tests.nettrim.layer_problems import optimal_l1_norm, random_problem
from tests.shared_data import shared_data

SETTINGS = AdmmSettings(relative_gap=2e-4)


def lenet_layer(index: int, n_outputs: int, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, weights and biases of the first neurons of LeNet-300-100's second (1) or last (2) layer."""
    state = torch.load(shared_data("models/lenet_300_100_mnist.pt"), weights_only=True)
    layers = [(state[f"{i}.weight"].numpy().T, state[f"{i}.bias"].numpy()) for i in (0, 2, 4)]
    with np.load(shared_data("mnist.npz")) as digits:
        X = digits["x_train"][:n_samples].reshape(-1, 784).T / np.float32(255)
    for W, bias in layers[:index]:
        X = np.maximum(W.T @ X + bias[:, np.newaxis], 0)
    W, bias = layers[index]
    return X, W[:, :n_outputs], bias[:n_outputs]


def assert_same_optimum(problem: LayerProblem, *solvers: str) -> None:
    solution = solve(problem, SETTINGS)
    assert solution.status is SolverStatus.SOLVED
    assert solution.is_feasible
    for solver in solvers:
        assert l1_norm(solution.W) == pytest.approx(optimal_l1_norm(problem, solver), rel=1e-3)  # the accuracy asked


@pytest.mark.slow
@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize(
    ("index", "activation", "constraint"), [(1, RELU, "distance"), (1, RELU, "hard"), (2, IDENTITY, "distance")]
)
def test_real_layers_have_the_norm_of_cvxpys_solvers(
    index: int, activation: Activation, constraint: Constraint, ball: Ball
) -> None:
    X, W, bias = lenet_layer(index, n_outputs=3, n_samples=150)
    problem = build_problem(X, W, bias, activation, relative_epsilon=0.1, constraint=constraint, ball=ball)
    assert_same_optimum(problem, "CLARABEL", "SCS")


@pytest.mark.slow
@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("activation", [RELU, RELU6])
def test_pooled_layers_have_the_norm_of_cvxpy(activation: Activation, ball: Ball) -> None:
    problem = random_problem(41, shape=(10, 3, 60))
    z0 = 4 * (problem.W.T @ problem.X + problem.bias[:, np.newaxis])
    lower, upper = pool_box(z0, activation, 4)
    target = activation.apply(z0)
    pooled = replace(problem, W=4 * problem.W, bias=4 * problem.bias, lower=lower, upper=upper, target=target)
    assert_same_optimum(pooled.with_relative_epsilon(0.1, ball), "CLARABEL")


@pytest.mark.slow
@pytest.mark.parametrize("ball", ["joint", "neuron"])
def test_layers_before_an_add_have_the_norm_of_cvxpy(ball: Ball) -> None:
    problem = random_problem(42, shape=(10, 3, 60))
    shift = np.random.default_rng(42).normal(size=problem.target.shape).astype(np.float32)
    total = problem.W.T @ problem.X + problem.bias[:, np.newaxis] + shift
    lower, upper = shifted_box(*RELU.box(total), shift)
    shifted = replace(problem, lower=lower, upper=upper, target=RELU.apply(total))
    assert_same_optimum(shifted.with_relative_epsilon(0.2, ball), "CLARABEL")
