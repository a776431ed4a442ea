"""The rivals of the quality benchmark against their papers' formulas."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality_methods import DAMPING, METHODS
from nettrim.activations import IDENTITY
from nettrim.layer_problem import LayerProblem, build_problem, distance
from nettrim_runtime.graph import Array

HESSIAN = ("magnitude + least squares", "SparseGPT", "OBC", "ALPS")


@given(st.sampled_from(sorted(METHODS)), st.integers(1, 12), st.integers(1, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_every_method_keeps_as_many_weights_as_asked(
    name: str, n_inputs: int, n_outputs: int, data: st.DataObject
) -> None:
    nnz = data.draw(st.integers(0, n_inputs * n_outputs))
    problem = _problem(data.draw(st.integers(0, 99)), (n_inputs, n_outputs, 40))
    W, bias = METHODS[name](problem)(nnz)
    assert np.count_nonzero(W) == nnz
    assert W.dtype == np.float32
    assert bias.shape == (n_outputs,)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_all_weights_give_the_original_response(name: str) -> None:
    problem = _problem(1, (8, 3, 60))
    assert distance(problem, *METHODS[name](problem)(24)) <= 1e-3 * problem.target_norm


@pytest.mark.parametrize("name", HESSIAN)
def test_inputs_that_are_always_zero_get_no_weight(name: str) -> None:
    problem = _problem(2, (8, 3, 60))
    X = problem.X.copy()
    X[3] = 0
    silent = build_problem(X, np.where(np.arange(8)[:, np.newaxis] == 3, 1e-6, problem.W), problem.bias, IDENTITY)
    assert not np.any(METHODS[name](silent)(12)[0][3])


def test_magnitude_keeps_the_largest() -> None:
    problem = _problem(3, (9, 4, 50))
    W, bias = METHODS["magnitude"](problem)(10)
    threshold = np.sort(np.abs(problem.W), axis=None)[-10]
    assert np.array_equal(W, np.where(np.abs(problem.W) >= threshold, problem.W, 0))
    assert np.array_equal(bias, problem.bias)


def test_least_squares_is_that_of_numpy() -> None:
    problem = _problem(4, (9, 4, 50))
    W, bias = METHODS["magnitude + least squares"](problem)(14)
    for neuron in range(4):
        rows = np.flatnonzero(W[:, neuron])
        design = np.vstack([problem.X[rows], np.ones(50)]).T
        expected, *_ = np.linalg.lstsq(design, problem.target[neuron], rcond=None)
        assert np.allclose(np.append(W[rows, neuron], bias[neuron]), expected, rtol=1e-3, atol=1e-4)


def test_wanda_compares_within_each_neuron() -> None:
    problem = _problem(5, (10, 4, 50))
    W, _ = METHODS["Wanda"](problem)(12)
    scores = np.abs(problem.W) * np.linalg.norm(problem.X, axis=1)[:, np.newaxis]
    for neuron in range(4):
        assert set(np.flatnonzero(W[:, neuron])) == set(np.argsort(-scores[:, neuron])[:3])


def test_sparse_gpt_is_the_sweep_with_a_fresh_inverse_for_the_inputs_left() -> None:
    problem = _problem(6, (7, 3, 80))
    W, bias = METHODS["SparseGPT"](problem)(9)
    A = np.vstack([problem.X, np.ones((1, 80))]).astype(np.float64)
    hessian = A @ A.T
    hessian += DAMPING * np.mean(np.diag(hessian)) * np.eye(8)
    rows = np.vstack([problem.W, problem.bias]).astype(np.float64)
    pivots = [np.linalg.inv(hessian[row:, row:])[0, 0] for row in range(7)]  # of inputs not yet passed
    kept = np.zeros(21, bool)
    kept[np.argsort(-(rows[:7] ** 2 / np.array(pivots)[:, np.newaxis]).ravel())[:9]] = True
    mask = kept.reshape(7, 3)
    for row in range(7):
        inverse = np.linalg.inv(hessian[row:, row:])
        for neuron in np.flatnonzero(~mask[row]):  # optimal brain surgeon on the inputs that are left
            rows[row:, neuron] -= rows[row, neuron] / inverse[0, 0] * inverse[:, 0]
    assert np.array_equal(W != 0, mask)
    assert np.allclose(np.vstack([W, bias]), np.vstack([rows[:7] * mask, rows[7:]]), rtol=1e-4, atol=1e-5)


def test_obc_takes_at_each_step_the_weight_whose_loss_after_a_refit_is_least() -> None:
    problem = _problem(7, (6, 2, 60))
    prune = METHODS["OBC"](problem)
    before = prune(12)[0] != 0
    for nnz in range(11, 3, -1):
        after = prune(nnz)[0] != 0
        (gone,) = np.argwhere(before & ~after)
        losses = {tuple(place): _loss(problem, before, tuple(place)) for place in np.argwhere(before)}
        mine = {place: loss for place, loss in losses.items() if place[1] == gone[1]}
        assert losses[tuple(gone)] <= 1.05 * min(mine.values()) + 1e-6  # its own neuron's order, damping apart
        before = after


def test_alps_comes_near_the_best_support_of_a_small_neuron() -> None:
    found = []
    for seed in range(10):
        problem = _problem(seed, (8, 1, 60))
        best = min(
            _error(problem, np.isin(np.arange(8), rows)[:, np.newaxis]) for rows in itertools.combinations(range(8), 3)
        )
        found.append(distance(problem, *METHODS["ALPS"](problem)(3)) / best)
    assert min(found) > 1 - 1e-3
    assert np.median(found) < 1.15  # it is a heuristic


def test_alps_and_obc_are_not_above_least_squares_of_the_largest() -> None:
    for seed in range(4):
        problem = _problem(10 + seed, (40, 8, 300))
        errors = {name: distance(problem, *METHODS[name](problem)(64)) for name in HESSIAN}
        assert max(errors["ALPS"], errors["OBC"]) <= errors["magnitude + least squares"]


def _problem(seed: int, shape: tuple[int, int, int]) -> LayerProblem:
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs, n_samples = shape
    mixing = np.eye(n_inputs) + 0.3 * rng.standard_normal((n_inputs, n_inputs))
    X = (mixing @ rng.standard_normal((n_inputs, n_samples))).astype(np.float32)
    W = rng.standard_normal((n_inputs, n_outputs)).astype(np.float32)
    return build_problem(X, W, rng.standard_normal(n_outputs).astype(np.float32), IDENTITY)


def _error(problem: LayerProblem, support: Array) -> float:
    """Return the distance after least squares on a support."""
    W, bias = np.zeros_like(problem.W), problem.bias.copy()
    for neuron in range(W.shape[1]):
        rows = np.flatnonzero(support[:, neuron])
        design = np.vstack([problem.X[rows], np.ones(problem.X.shape[1])]).T
        fitted, *_ = np.linalg.lstsq(design, problem.target[neuron], rcond=None)
        W[rows, neuron], bias[neuron] = fitted[:-1], fitted[-1]
    return distance(problem, W, bias)


def _loss(problem: LayerProblem, support: Array, place: tuple[int, ...]) -> float:
    without = support.copy()
    without[place] = False
    return _error(problem, without) ** 2 - _error(problem, support) ** 2
