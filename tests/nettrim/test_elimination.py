"""Elimination, regrowth and the two loops around them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.activations import IDENTITY, RELU
from nettrim.admm import solve
from nettrim.elimination import EliminationSettings, choose_weights, eliminate, eliminate_within, is_within, regrow
from nettrim.layer_problem import LayerProblem, build_problem, distance, neuron_distances
from nettrim.layer_search import SearchSettings, solve_to_epsilon, solve_to_nnz
from nettrim.refit import RefitSettings, fit_on_support
from nettrim_runtime.graph import Array
from tests.nettrim.layer_problems import random_problem

NO_RIDGE = RefitSettings(ridge=0.0, prior=0.0)
PURE = EliminationSettings(refit=NO_RIDGE)


def test_the_first_weight_to_go_is_the_one_whose_loss_is_least_after_a_refit() -> None:
    problem = _linear(3, (7, 1, 60))
    losses = []
    for weight in range(7):
        support = problem.W != 0
        support[weight] = False
        losses.append(distance(problem, *fit_on_support(problem, problem.W * support, problem.bias, support, NO_RIDGE)))
    W, bias = eliminate(problem, problem.W, problem.bias, 6, settings=PURE)
    assert np.flatnonzero(W[:, 0] == 0).tolist() == [int(np.argmin(losses))]
    assert distance(problem, W, bias) == pytest.approx(min(losses), rel=1e-3)


@given(st.integers(0, 30), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_elimination_keeps_as_many_weights_as_asked(nnz: int, seed: int) -> None:
    problem = random_problem(seed, shape=(6, 5, 40))
    W, _ = eliminate(problem, problem.W, problem.bias, nnz)
    assert np.count_nonzero(W) == nnz
    assert W.dtype == np.float32


def test_neurons_of_more_importance_keep_more_weights() -> None:
    problem = _linear(5, (20, 4, 200))
    importance = np.array([100.0, 1.0, 1.0, 1.0])
    even, _ = eliminate(problem, problem.W, problem.bias, 40)
    uneven, _ = eliminate(problem, problem.W, problem.bias, 40, importance=importance)
    assert np.count_nonzero(uneven[:, 0]) > np.count_nonzero(even[:, 0])


def test_the_weight_that_grows_is_the_one_that_gains_most_alone() -> None:
    problem = _linear(7, (8, 3, 80))
    W, bias = eliminate(problem, problem.W, problem.bias, 12)
    support = regrow(problem, W, bias, problem.W != 0, 1)
    before = distance(problem, W, bias) ** 2
    gains = {}
    for weight in zip(*np.nonzero(W == 0), strict=True):
        alone = np.zeros_like(support)
        alone[weight] = True
        row, neuron = weight
        excess = (W.T @ problem.X + bias[:, np.newaxis] - problem.target)[neuron].astype(np.float64)
        step = problem.X[row] @ excess / (problem.X[row] @ problem.X[row])
        moved = W.copy()
        moved[weight] -= step
        gains[weight] = before - distance(problem, moved, bias) ** 2
    grown = [tuple(place) for place in np.argwhere(support & (W == 0))]
    assert grown == [max(gains, key=lambda weight: gains[weight])]


def test_growing_and_eliminating_again_is_never_worse_than_eliminating_once() -> None:
    for seed in range(4):
        problem = random_problem(seed, shape=(30, 8, 300))
        importance = np.linspace(1, 3, 8)
        once = eliminate(problem, problem.W, problem.bias, 60, importance=importance)
        chosen = choose_weights(problem, problem.W, problem.bias, 60, importance=importance)
        costs = [importance @ neuron_distances(problem, *weights) ** 2 for weights in (once, chosen)]
        assert costs[1] <= costs[0]
        assert np.count_nonzero(chosen[0]) == 60


def test_samples_within_the_box_do_not_count() -> None:
    problem = random_problem(9, shape=(12, 1, 100))
    silent = -5 * np.repeat(problem.W, 30, axis=1)  # whatever goes, the response stays far below zero there
    more = build_problem(np.hstack([problem.X, silent]), problem.W, problem.bias, RELU)
    assert not np.any(more.target[:, 100:])
    found = [eliminate(one, one.W, one.bias, 6, settings=PURE)[0] for one in (problem, more)]
    assert np.allclose(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("constraint", ["distance", "hard"])
def test_elimination_within_epsilon_removes_weights_and_keeps_epsilon(ball: str, constraint: str) -> None:
    problem = random_problem(11, shape=(40, 10, 400), constraint=constraint).with_relative_epsilon(0.2, ball)  # type: ignore[arg-type]
    plain = solve_to_epsilon(problem, SearchSettings(elimination=None))
    refined = solve_to_epsilon(problem)
    assert is_within(problem, refined.W, refined.bias)
    assert refined.nnz < plain.nnz
    assert np.all(neuron_distances(problem, refined.W, refined.bias) ** 2 <= np.sum(np.square(problem.epsilon)) + 1e-9)


@pytest.mark.parametrize("constraint", ["distance", "hard"])
def test_plain_net_trim_is_the_convex_programs_own_solution(constraint: str) -> None:
    problem = random_problem(12, constraint=constraint)  # type: ignore[arg-type]
    plain, solved = solve_to_epsilon(problem, SearchSettings(plain=True)), solve(problem)
    assert np.array_equal(plain.W, solved.W)
    assert np.array_equal(plain.bias, solved.bias)
    assert plain.is_feasible


def test_weights_outside_epsilon_come_back_as_they_are() -> None:
    problem = random_problem(13, shape=(10, 4, 60)).with_relative_epsilon(1e-4)
    W = np.zeros_like(problem.W)
    found, bias = eliminate_within(problem, W, problem.bias)
    assert found is W
    assert bias is problem.bias


def test_chosen_weights_lie_nearer_than_the_largest_of_the_screen() -> None:
    problem = random_problem(15, shape=(60, 20, 800))
    nnz = problem.W.size // 8
    chosen = solve_to_nnz(problem, nnz)
    largest = solve_to_nnz(problem, nnz, settings=SearchSettings(elimination=None))
    assert chosen.nnz == largest.nnz == nnz
    assert chosen.distance < 0.97 * largest.distance


def _linear(seed: int, shape: tuple[int, int, int]) -> LayerProblem:
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs, n_samples = shape
    mixing: Array = rng.standard_normal((n_inputs, n_inputs))
    X = (mixing @ rng.standard_normal((n_inputs, n_samples))).astype(np.float32)
    W = rng.standard_normal((n_inputs, n_outputs)).astype(np.float32)
    return build_problem(X, W, rng.standard_normal(n_outputs).astype(np.float32), IDENTITY, relative_epsilon=0.1)
