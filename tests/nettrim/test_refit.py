"""The refit against least squares, its optimality conditions, and its promises."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.admm import solve
from nettrim.layer_problem import build_problem, distance, neuron_distances
from nettrim.refit import RefitSettings, fit_on_support, refit
from nettrim_runtime.ops import ActivationFunction
from tests.nettrim.layer_problems import random_problem

PURE = RefitSettings(ridge=0.0, tolerance=0.0, prior=0.0)


def test_refit_without_activation_is_least_squares() -> None:
    problem = random_problem(1, activation=ActivationFunction.NONE)
    solution = solve(problem)
    W, bias = refit(problem, solution.W, solution.bias, PURE)
    for neuron in range(4):
        kept = np.flatnonzero(solution.W[:, neuron])
        A = np.concatenate([problem.X[kept], np.ones((1, 60))]).astype(float)
        expected = np.linalg.lstsq(A.T, problem.target[neuron].astype(float), rcond=None)[0]
        np.testing.assert_allclose(np.append(W[kept, neuron], bias[neuron]), expected, atol=1e-4)  # float32 residuals


@pytest.mark.parametrize("activation", ActivationFunction)
def test_gradient_on_the_support_is_zero(activation: ActivationFunction) -> None:
    problem = random_problem(2, activation=activation)
    solution = solve(problem)
    W, bias = refit(problem, solution.W, solution.bias, PURE)
    Z = W.T.astype(float) @ problem.X + bias[:, np.newaxis]
    excess = Z - np.clip(Z, problem.lower, problem.upper)
    scale = np.linalg.norm(problem.X, axis=1)[:, np.newaxis] * np.linalg.norm(excess, axis=1)
    slope = np.where(W != 0, problem.X @ excess.T, 0.0)
    assert np.all(np.abs(slope) <= 1e-4 * scale + 1e-6)  # float32 weights
    np.testing.assert_allclose(excess.sum(axis=1), 0, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", ActivationFunction)
def test_distance_of_no_neuron_increases(activation: ActivationFunction, seed: int) -> None:
    problem = random_problem(seed, activation=activation)
    rng = np.random.default_rng(seed)
    W = (problem.W * (rng.random(problem.W.shape) < 0.5)).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32)
    fitted = refit(problem, W, bias)
    assert np.all(neuron_distances(problem, *fitted) <= neuron_distances(problem, W, bias))
    assert distance(problem, *fitted) < distance(problem, W, bias)


def test_zeros_stay_zeros_and_types_stay() -> None:
    problem = random_problem(3)
    solution = solve(problem)
    W, bias = refit(problem, solution.W, solution.bias)
    assert not W[solution.W == 0].any()
    assert W.dtype == bias.dtype == np.float32


def test_neuron_without_weights_gets_the_best_bias() -> None:
    problem = random_problem(4, activation=ActivationFunction.NONE)
    _, bias = refit(problem, np.zeros_like(problem.W), np.zeros_like(problem.bias))
    np.testing.assert_allclose(bias, problem.target.mean(axis=1), rtol=1e-5)  # float32


@pytest.mark.parametrize("shape", [(12, 4, 1), (12, 4, 6), (1, 1, 1), (30, 2, 10)])
def test_more_weights_than_samples_are_fitted(shape: tuple[int, int, int]) -> None:
    problem = random_problem(5, shape=shape, activation=ActivationFunction.NONE)
    W, bias = refit(problem, problem.W + np.float32(0.1), problem.bias, PURE)
    assert distance(problem, W, bias) <= 1e-3 * max(problem.target_norm, 1.0)  # ridge of the singular system


def test_repeated_inputs_are_fitted() -> None:
    problem = random_problem(6)
    X = np.concatenate([problem.X, problem.X])
    doubled = build_problem(X, np.concatenate([problem.W, problem.W]) / 2, problem.bias, problem.activation)
    W, bias = refit(doubled, doubled.W * np.float32(0.7), doubled.bias)
    assert distance(doubled, W, bias) <= 0.01 * doubled.target_norm


def test_weights_outside_the_support_stay_as_they_are() -> None:
    problem = random_problem(7)
    support = np.zeros(problem.W.shape, bool)
    support[::2] = True
    W = problem.W * np.where(support, np.float32(0.8), np.float32(1))
    fitted, _ = fit_on_support(problem, W, problem.bias, support, PURE)
    np.testing.assert_array_equal(fitted[1::2], problem.W[1::2])
    np.testing.assert_allclose(fitted, problem.W, atol=1e-3)  # float32, well-conditioned


def test_ridge_keeps_a_weight_of_a_rare_input_small() -> None:
    problem = random_problem(8, activation=ActivationFunction.NONE)
    X = problem.X.copy()
    X[3] = 0
    X[3, 0] = 1e-3
    rare = build_problem(X, problem.W, problem.bias, problem.activation)
    noisy = replace(rare, lower=rare.lower + np.float32(X[3] > 0), upper=rare.upper + np.float32(X[3] > 0))
    free, held = (
        refit(noisy, problem.W, problem.bias, RefitSettings(ridge=ridge, prior=0.0))[0] for ridge in (0.0, 1e-4)
    )
    assert np.abs(free[3]).max() > 100
    assert np.abs(held[3]).max() < 10


def test_two_refits_give_the_same_bytes() -> None:
    problem = random_problem(9, shape=(40, 20, 300))
    solution = solve(problem)
    first, second = (refit(problem, solution.W, solution.bias) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_the_prior_keeps_what_few_samples_do_not_tell_as_it_was_trained() -> None:
    few = random_problem(21, shape=(40, 3, 8))
    start = np.where(np.arange(40)[:, np.newaxis] % 2, few.W, np.float32(0))
    free, held = (refit(few, start, few.bias, RefitSettings(ridge=0.0, prior=prior))[0] for prior in (0.0, 1.0))
    kept = start != 0
    assert np.linalg.norm((held - few.W)[kept]) < 0.9 * np.linalg.norm((free - few.W)[kept])
    many = random_problem(21, shape=(10, 3, 4000))
    half = np.where(np.arange(10)[:, np.newaxis] % 2, many.W, np.float32(0))
    loose, tied = (refit(many, half, many.bias, RefitSettings(ridge=0.0, prior=prior))[0] for prior in (0.0, 0.02))
    assert np.linalg.norm(tied - loose) < 1e-2 * np.linalg.norm(loose)
