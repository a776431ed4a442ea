"""Exact counts, kept distances and tables of one layer's search."""

import numpy as np
import pytest
import torch

from nettrim.activations import fused_activation
from nettrim.admm import AdmmSettings
from nettrim.layer_problem import Constraint, LayerProblem, build_problem, distance, response_error
from nettrim.layer_search import SearchSettings, solve_to_epsilon, solve_to_nnz, sparsity_path
from nettrim.layer_solution import SolverStatus
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction
from tests.nettrim.layer_problems import random_problem
from tests.shared_data import shared_data

CONSTRAINTS: tuple[Constraint, ...] = ("distance", "hard")


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("nnz", [0, 1, 7, 24, 40, 47, 48])
def test_number_of_weights_is_exact(nnz: int, constraint: Constraint) -> None:
    solution = solve_to_nnz(random_problem(1, constraint=constraint), nnz)
    assert solution.nnz == nnz


def test_more_weights_than_there_are_keeps_all() -> None:
    problem = random_problem(2)
    solution = solve_to_nnz(problem, 1000)
    np.testing.assert_array_equal(solution.W, problem.W)
    assert solution.status is SolverStatus.SOLVED


def test_dead_inputs_and_neurons_get_none_of_the_budget() -> None:
    problem = random_problem(3)
    X, bias = problem.X.copy(), problem.bias.copy()
    X[2], bias[1] = 0, -1000
    solution = solve_to_nnz(build_problem(X, problem.W, bias, problem.activation), 30)
    assert solution.nnz == 30
    assert not solution.W[2].any()
    assert not solution.W[:, 1].any()


def test_fewer_weights_cost_more_distance() -> None:
    problem = random_problem(4)
    distances = [solve_to_nnz(problem, nnz).distance for nnz in (40, 25, 12, 4)]
    assert distances == sorted(distances)


def test_search_beats_the_largest_weights_refitted() -> None:
    problem = random_problem(5, shape=(40, 10, 400))
    chosen = solve_to_nnz(problem, 100)
    assert chosen.distance < _magnitude_distance(problem, 100)


@pytest.mark.parametrize("relative_epsilon", [0.1, 0.5])
@pytest.mark.parametrize("activation", ActivationFunction)
def test_solved_means_within_epsilon(activation: ActivationFunction, relative_epsilon: float) -> None:
    problem = random_problem(6, activation=activation, relative_epsilon=relative_epsilon)
    solution = solve_to_epsilon(problem)
    assert solution.status is SolverStatus.SOLVED
    assert distance(problem, solution.W, solution.bias) <= problem.epsilon
    assert response_error(problem, solution.W, solution.bias) <= problem.epsilon


@pytest.mark.parametrize("relative_epsilon", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("activation", ActivationFunction)
def test_published_form_is_within_epsilon_too(activation: ActivationFunction, relative_epsilon: float) -> None:
    problem = random_problem(6, activation=activation, constraint="hard", relative_epsilon=relative_epsilon)
    solution = solve_to_epsilon(problem)
    assert response_error(problem, solution.W, solution.bias) <= problem.epsilon


def test_within_epsilon_in_the_cascade_scheme() -> None:
    original = random_problem(7)
    noise = 0.02 * np.random.default_rng(7).normal(size=original.X.shape)
    problem = build_problem(
        original.X + noise, original.W, original.bias, original.activation, target=original.target
    ).with_relative_epsilon(0.2)
    solution = solve_to_epsilon(problem)
    assert solution.status is SolverStatus.SOLVED
    assert response_error(problem, solution.W, solution.bias) <= problem.epsilon


def test_solver_that_stops_early_says_so_and_stays_feasible() -> None:
    problem = random_problem(8, relative_epsilon=0.01)
    solution = solve_to_epsilon(problem, SearchSettings(admm=AdmmSettings(max_iterations=1)))
    assert solution.status is SolverStatus.MAX_ITERATIONS
    assert solution.distance <= problem.epsilon


def test_epsilon_out_of_reach_says_so() -> None:
    problem = random_problem(9, activation=ActivationFunction.NONE)
    target = np.random.default_rng(9).normal(size=problem.target.shape)
    wrong = build_problem(problem.X, problem.W, problem.bias, problem.activation, target=target)
    settings = SearchSettings(admm=AdmmSettings(max_iterations=200))
    solution = solve_to_epsilon(wrong.with_relative_epsilon(0.01), settings)
    assert solution.status is SolverStatus.INFEASIBLE
    assert solution.distance > solution.epsilon


def test_path_keeps_the_order_asked_for_and_falls_with_epsilon() -> None:
    problem = random_problem(10, shape=(30, 10, 200))
    asked = (0.05, 0.4, 0.2)
    path = sparsity_path(problem, asked)
    assert tuple(row[0] for row in path) == asked
    counts = [nnz for _, nnz, _ in sorted(path)]
    assert counts == sorted(counts, reverse=True)
    for relative_epsilon, _, reached in path:
        assert reached == pytest.approx(relative_epsilon * problem.target_norm, rel=0.04)  # the screen's margin


@pytest.mark.parametrize("shape", [(12, 4, 2), (12, 4, 6), (40, 3, 5)])
def test_fewer_samples_than_weights_still_give_the_count(shape: tuple[int, int, int]) -> None:
    problem = random_problem(12, shape=shape, activation=ActivationFunction.NONE)
    nnz = problem.W.size // 2
    assert solve_to_nnz(problem, nnz).nnz == nnz


def test_one_sample_is_answered_by_the_bias() -> None:
    solution = solve_to_nnz(random_problem(12, shape=(12, 4, 1)), 20)
    assert (solution.nnz, solution.distance) == (0, 0.0)


def test_layer_that_never_speaks_needs_no_weights() -> None:
    problem = random_problem(13)
    silent = build_problem(problem.X, problem.W, problem.bias - 1000, problem.activation)
    for solution in (solve_to_epsilon(silent), solve_to_nnz(silent, 10)):
        assert solution.status is SolverStatus.SOLVED
        assert (solution.nnz, solution.distance) == (0, 0.0)


def test_two_searches_give_the_same_bytes() -> None:
    first, second = (solve_to_nnz(random_problem(11, shape=(40, 10, 300)), 120) for _ in range(2))
    assert first.W.tobytes() == second.W.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("sparsity", "points"), [(0.75, 0.3), (0.9, 1.5)])
def test_lenet_300_100_keeps_its_accuracy_with_few_samples(sparsity: float, points: float) -> None:
    state = torch.load(shared_data("models/lenet_300_100_mnist.pt"), weights_only=True)
    layers = [(state[f"{i}.weight"].numpy().T, state[f"{i}.bias"].numpy()) for i in (0, 2, 4)]
    with np.load(shared_data("mnist.npz")) as digits:
        X = digits["x_train"][:3000].reshape(-1, 784).T / np.float32(255)
        test_data, labels = digits["x_test"].reshape(-1, 784) / np.float32(255), digits["y_test"]
    pruned = []
    for (W, bias), activation in zip(layers, ["relu", "relu", "none"], strict=True):
        problem = build_problem(X, W, bias, fused_activation(ActivationFunction(activation)))
        solution = solve_to_nnz(problem, round((1 - sparsity) * W.size))
        pruned.append((solution.W, solution.bias))
        X = problem.target
    assert _accuracy(pruned, test_data, labels) >= _accuracy(layers, test_data, labels) - points / 100


def _accuracy(layers: list[tuple[Array, Array]], x: Array, labels: Array) -> float:
    for W, bias in layers[:-1]:
        x = np.maximum(x @ W + bias, 0)
    W, bias = layers[-1]
    return float(np.mean((x @ W + bias).argmax(axis=1) == labels))


def _magnitude_distance(problem: LayerProblem, nnz: int) -> float:
    from nettrim.refit import refit

    threshold = np.sort(np.abs(problem.W), axis=None)[-nnz]
    return distance(problem, *refit(problem, np.where(np.abs(problem.W) >= threshold, problem.W, 0), problem.bias))


def test_elimination_starts_from_a_screen_that_is_not_solved_for_ever() -> None:
    problem, admm = random_problem(21, shape=(40, 10, 300)), AdmmSettings(relative_gap=1e-9)
    short, long = (
        solve_to_nnz(problem, 120, settings=SearchSettings(admm, choice_gap=1e-9, choice_iterations=most))
        for most in (20, 1000)
    )
    assert short.status is long.status is SolverStatus.MAX_ITERATIONS
    assert long.iterations == short.iterations + 980
    assert short.nnz == long.nnz == 120
    assert short.distance == pytest.approx(long.distance, rel=0.1)  # elimination and regrowth decide, not the screen
