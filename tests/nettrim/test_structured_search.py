"""Weights that keep a structure exactly, and how near they stay to the target."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.admm import solve
from nettrim.layer_problem import LayerProblem, build_problem, distance, neuron_distances
from nettrim.layer_solution import LayerSolution
from nettrim.refit import RefitSettings, fit_on_support
from nettrim.structure import L1, Groups, L1Norm, Structure
from nettrim.structure_names import NOfM
from nettrim.structured_search import (
    PatternSettings,
    refit_within,
    reweighted_costs,
    solve_n_of_m,
    support_of,
    weight_sizes,
)
from nettrim_runtime.graph import Array
from tests.nettrim.layer_problems import random_problem

BLOCKS = Groups(block_shape=(1, 4))


def with_dead_parts(problem: LayerProblem) -> LayerProblem:
    """Return the layer with input 2 always zero and neuron 1 always silent."""
    X, bias = problem.X.copy(), problem.bias.copy()
    X[2], bias[1] = 0, -1000
    return build_problem(X, problem.W, bias, problem.activation, relative_epsilon=0.2)


@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(1, 4), NOfM(3, 5)])
def test_solution_keeps_the_pattern(pattern: NOfM) -> None:
    problem = with_dead_parts(random_problem(1, shape=(18, 5, 80)))
    solution = solve_n_of_m(problem, pattern)
    assert pattern.holds(solution.W)
    assert not solution.W[2].any()
    assert not solution.W[:, 1].any()
    assert solution.distance == pytest.approx(distance(problem, solution.W, solution.bias))


def test_pattern_uses_all_that_it_may_keep() -> None:
    solution = solve_n_of_m(random_problem(2, shape=(16, 5, 80)), NOfM(2, 4))
    assert solution.nnz == solution.W.size // 2


def test_pattern_from_the_screen_is_nearer_than_that_of_the_largest_weights() -> None:
    shares = []
    for seed in range(8):
        problem = random_problem(seed, shape=(24, 8, 120))
        support = NOfM(1, 4).select(np.abs(problem.W))
        largest = fit_on_support(problem, problem.W * support, problem.bias, support, RefitSettings())
        shares.append(solve_n_of_m(problem, NOfM(1, 4)).distance / distance(problem, *largest))
    assert np.mean(shares) < 1  # selections are not convex: on the whole, not each


def test_layer_that_the_bias_answers_for_ends_after_one_screen() -> None:
    problem = random_problem(3).with_relative_epsilon(2.0)
    solution = solve_n_of_m(problem, NOfM(2, 4), PatternSettings(reweighted_rounds=5))
    assert NOfM(2, 4).holds(solution.W)


def test_large_weights_are_cheap_and_small_ones_dear() -> None:
    costs = reweighted_costs(np.array([[4.0, -1.0], [2.0, 0.0]]))  # median 2
    np.testing.assert_allclose(costs, [[2 / 4.4, 2 / 1.4], [2 / 2.4, 2 / 0.4]], rtol=1e-6)  # float32


def test_sizes_put_screened_weights_first() -> None:
    problem = random_problem(4)
    W = np.zeros_like(problem.W)
    W[3, 2] = 1e-6
    sizes = weight_sizes(problem, W)
    assert np.argmax(sizes) == 3 * W.shape[1] + 2
    assert np.all(sizes >= 0)


@pytest.mark.parametrize("structure", [L1, BLOCKS, Groups(block_shape=(2, 2)), Groups(block_shape=(None, 1))])
@pytest.mark.parametrize("nnz", [0, 1, 7, 20, 10_000])
def test_support_is_of_whole_groups_and_not_too_large(structure: Structure, nnz: int) -> None:
    sizes = np.random.default_rng(5).random((13, 6))
    support = support_of(structure, sizes, nnz)
    assert np.count_nonzero(support) <= nnz
    blocks = structure.block_norms(support.astype(float))
    np.testing.assert_array_equal(structure.spread(blocks > 0, sizes.shape), support)
    if nnz >= sizes.size:
        assert np.all(support)


def test_support_of_single_weights_is_the_largest() -> None:
    sizes = np.random.default_rng(6).random((13, 6))
    support = support_of(L1, sizes, 20)
    assert np.count_nonzero(support) == 20
    assert np.min(sizes[support]) > np.max(sizes[~support])


def test_weights_that_cannot_matter_are_not_counted() -> None:
    sizes = np.ones((8, 2))
    sizes[1:4, 0] = 0
    support = support_of(BLOCKS, sizes, 5)
    assert np.count_nonzero(support) == 5
    assert not support[1:4, 0].any()


@pytest.mark.parametrize("structure", [BLOCKS, Groups(block_shape=(4, 1))])
def test_largest_groups_of_a_screen_are_nearer_than_those_of_the_original(structure: Structure) -> None:
    shares = []
    for seed in range(8):
        problem = replace(random_problem(seed, shape=(24, 8, 120)), structure=structure)
        screened, largest = (
            distance(problem, *fit_on_support(problem, W * support, problem.bias, support, RefitSettings()))
            for W in (solve(problem).W, problem.W)
            for support in [support_of(structure, weight_sizes(problem, W), problem.W.size // 3)]
        )
        shares.append(screened / largest)
    assert np.mean(shares) < 1  # selections are not convex: on the whole, not each


def bounded_screen(structure: Structure) -> tuple[LayerProblem, LayerSolution]:
    plain = random_problem(8, shape=(16, 6, 80))
    problem = build_problem(
        plain.X, structure.project(plain.W), plain.bias, plain.activation, relative_epsilon=0.2, structure=structure
    )
    return problem, solve(problem)


@pytest.mark.parametrize("structure", [L1Norm(lower=0.0), L1Norm(lower=-0.5, upper=0.5), Groups(upper=0.0)])
def test_refit_keeps_the_bounds_and_comes_nearer(structure: Structure) -> None:
    problem, screen = bounded_screen(structure)
    kept: Array = screen.W != 0
    W, bias = refit_within(problem, screen.W, screen.bias, kept, RefitSettings())
    assert structure.contains(W)
    assert not np.any(W[~kept])
    after, before = neuron_distances(problem, W, bias), neuron_distances(problem, screen.W, screen.bias)
    assert np.all(after <= before)
    assert np.sum(after**2) < np.sum(before**2)


@pytest.mark.parametrize("structure", [L1Norm(lower=0.0), L1Norm(lower=-0.5, upper=0.5)])
def test_refit_moves_weights_into_the_bounds_that_start_outside(structure: Structure) -> None:
    problem = replace(random_problem(10, shape=(16, 6, 80)), structure=structure)
    assert not structure.contains(problem.W)
    W, _ = refit_within(problem, problem.W, problem.bias, problem.W != 0, RefitSettings())
    assert structure.contains(W)


def test_refit_without_bounds_is_the_plain_one() -> None:
    problem = random_problem(9)
    screen = solve(problem)
    ours = refit_within(problem, screen.W, screen.bias, screen.W != 0, RefitSettings())
    plain = fit_on_support(problem, screen.W, screen.bias, screen.W != 0, RefitSettings())
    np.testing.assert_array_equal(ours[0], plain[0])
    np.testing.assert_array_equal(ours[1], plain[1])
