"""Neurons that circle around their solution end there."""

import numpy as np
import pytest

from nettrim.activations import RELU
from nettrim.admm import initial_state, prepare, solve
from nettrim.admm_loop import AdmmSettings
from nettrim.admm_restart import GROWTH, LARGEST_GROWTH, WINDOW, Restarts
from nettrim.layer_problem import LayerProblem, build_problem
from nettrim.layer_solution import SolverStatus
from nettrim_runtime.graph import Array


def rarely_active(seed: int = 0, n_samples: int = 600, n_inputs: int = 120) -> LayerProblem:
    """Return one ReLU neuron in the hard form that speaks on a single sample: all but a linear program."""
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.normal(size=(n_inputs, n_samples)), 0).astype(np.float32)
    W = rng.normal(size=(n_inputs, 1)).astype(np.float32)
    response: Array = (W.T @ X)[0]
    highest, second = np.sort(response)[[-1, -2]]
    bias = np.array([-(highest + second) / 2])
    return build_problem(X, W, bias, RELU, relative_epsilon=0.05, constraint="hard", ball="neuron")


def test_a_window_ends_at_its_mean_with_a_larger_penalty_and_the_same_duals() -> None:
    layer = prepare(rarely_active())
    rows = initial_state(layer, AdmmSettings()).rows
    restarts, seen, rng = Restarts(), [], np.random.default_rng(0)
    rho = rows.rho.copy()
    for _ in range(WINDOW):
        rows.W[...] = rng.normal(size=rows.W.shape)
        rows.D1[...] = rng.normal(size=rows.D1.shape)
        seen.append((rows.W.copy(), rows.D1.copy()))
        restarts.look(rows)
    np.testing.assert_allclose(rows.W, np.mean([W for W, _ in seen], axis=0), atol=1e-5)
    np.testing.assert_array_equal(rows.rho, GROWTH * rho)
    np.testing.assert_allclose(rows.D1 * GROWTH, np.mean([D1 for _, D1 in seen], axis=0), atol=1e-5)


def test_rho_stops_growing() -> None:
    rows = initial_state(prepare(rarely_active()), AdmmSettings()).rows
    restarts, rho = Restarts(), rows.rho.copy()
    for _ in range(20 * WINDOW):
        restarts.look(rows)
    np.testing.assert_array_equal(rows.rho, LARGEST_GROWTH * rho)


def test_rows_that_are_done_leave_the_mean_of_the_others_alone() -> None:
    problem = rarely_active()
    problem = build_problem(
        problem.X, np.repeat(problem.W, 2, axis=1), np.repeat(problem.bias, 2), RELU, constraint="hard", ball="neuron"
    )
    rows = initial_state(prepare(problem), AdmmSettings()).rows
    restarts = Restarts()
    restarts.look(rows)
    left = rows.take(np.array([1]))
    before = left.W.copy()
    for _ in range(WINDOW):
        restarts.look(left)
    np.testing.assert_allclose(left.W, before, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_neuron_that_speaks_on_one_sample_is_solved(seed: int) -> None:
    solution = solve(rarely_active(seed))
    assert solution.status is SolverStatus.SOLVED
    assert solution.is_feasible
    assert solution.relative_gap is not None
    assert solution.relative_gap <= AdmmSettings().relative_gap
