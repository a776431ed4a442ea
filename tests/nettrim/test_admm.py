"""The solver against its optimality conditions, its certificate and CVXPY."""

import _thread
import threading
from dataclasses import replace

import numpy as np
import pytest

from nettrim.activations import ACTIVATIONS as ALL_ACTIVATIONS
from nettrim.admm import initial_state, iterate, prepare, read_solution, solve
from nettrim.admm_loop import AdmmSettings
from nettrim.duality import dual_bounds
from nettrim.errors import UsageError
from nettrim.layer_problem import (
    Ball,
    Constraint,
    Violation,
    build_problem,
    constraint_violation,
    distance,
    l1_norm,
    neuron_distances,
    response_error,
)
from nettrim.layer_solution import SolverStatus
from nettrim.reference import one_neuron
from nettrim_runtime.errors import DataError
from nettrim_runtime.ops import ActivationFunction
from tests.nettrim.layer_problems import optimal_l1_norm, random_problem

EXACT = AdmmSettings(relative_gap=5e-5, max_iterations=3000)
ACTIVATIONS = (ActivationFunction.NONE, ActivationFunction.RELU, ActivationFunction.RELU6)
CONSTRAINTS: tuple[Constraint, ...] = ("distance", "hard")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_l1_norm_is_that_of_cvxpy(constraint: Constraint, activation: ActivationFunction, seed: int) -> None:
    problem = random_problem(seed, activation=activation, constraint=constraint)
    optimum = optimal_l1_norm(problem)
    solution = solve(problem, EXACT)
    assert l1_norm(solution.W) == pytest.approx(optimum, rel=1e-3)  # float32 iterates, eps_rel 1e-6
    gap = solution.relative_gap
    assert gap is not None
    assert l1_norm(solution.W) * (1 - gap) <= optimum * (1 + 1e-5)  # the bound is for the accuracy W reached


@pytest.mark.slow
@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("name", sorted(ALL_ACTIVATIONS))
def test_every_activation_and_ball_has_the_norm_of_cvxpy(name: str, constraint: Constraint, ball: Ball) -> None:
    original = random_problem(31, shape=(10, 3, 50))
    problem = build_problem(
        original.X,
        2 * original.W,
        original.bias,
        ALL_ACTIVATIONS[name],
        relative_epsilon=0.2,
        constraint=constraint,
        ball=ball,
    )
    solution = solve(problem, replace(EXACT, relative_gap=4e-4))
    assert solution.status is SolverStatus.SOLVED
    assert solution.is_feasible
    assert l1_norm(solution.W) == pytest.approx(optimal_l1_norm(problem), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_weighted_distances_have_the_norm_of_cvxpy(constraint: Constraint, ball: Ball) -> None:
    problem = random_problem(32, constraint=constraint)
    weights = np.random.default_rng(32).uniform(0.2, 2.0, problem.target.shape).astype(np.float32)
    weighted = replace(problem, distance_weights=weights).with_relative_epsilon(0.2, ball)
    solution = solve(weighted, EXACT)
    assert solution.status is SolverStatus.SOLVED
    assert l1_norm(solution.W) == pytest.approx(optimal_l1_norm(weighted), rel=1e-3)


@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_torch_solves_the_same_layer_as_numpy(constraint: Constraint, ball: Ball) -> None:
    problem = random_problem(33, constraint=constraint).with_relative_epsilon(0.2, ball)
    ours, torchs = solve(problem), solve(problem, AdmmSettings(backend="torch"))
    assert torchs.status is ours.status is SolverStatus.SOLVED
    assert l1_norm(torchs.W) == pytest.approx(l1_norm(ours.W), rel=1e-3)  # both are certified to 1e-3


def test_backend_without_its_device_is_refused() -> None:
    with pytest.raises(UsageError, match="not known, expected one of: numpy, torch, torch:cuda"):
        solve(random_problem(34), AdmmSettings(backend="jax"))


def test_neurons_with_their_own_balls_do_not_see_each_other() -> None:
    problem = random_problem(35).with_relative_epsilon(0.2, "neuron")
    whole = solve(problem, EXACT)
    assert isinstance(problem.epsilon, np.ndarray)
    assert np.all(neuron_distances(problem, whole.W, whole.bias) <= problem.epsilon)
    for neuron in range(problem.W.shape[1]):
        alone = solve(one_neuron(problem, neuron), EXACT)
        assert l1_norm(alone.W) == pytest.approx(l1_norm(whole.W[:, [neuron]]), rel=2e-4)  # both are near the optimum


@pytest.mark.slow
def test_l1_norm_in_the_cascade_scheme_is_that_of_cvxpy() -> None:
    rng = np.random.default_rng(5)
    original = random_problem(5)
    X = original.X + 0.05 * rng.normal(size=original.X.shape).astype(np.float32)
    problem = build_problem(
        X, original.W, original.bias, original.activation, target=original.target, constraint="hard"
    ).with_relative_epsilon(0.3)
    assert l1_norm(solve(problem, EXACT).W) == pytest.approx(optimal_l1_norm(problem), rel=1e-3)  # as above


def test_distance_form_meets_its_optimality_conditions() -> None:
    problem = random_problem(3)
    solution = solve(problem, EXACT)
    Z = solution.W.T @ problem.X + solution.bias[:, np.newaxis]
    excess = Z - np.clip(Z, problem.lower, problem.upper)
    slope = problem.X @ excess.T
    kept = solution.W != 0
    multiplier = np.median(-np.sign(solution.W[kept]) / slope[kept])
    assert multiplier > 0
    np.testing.assert_allclose(-multiplier * slope[kept], np.sign(solution.W[kept]), atol=1e-2)  # float32 iterates
    assert np.all(np.abs(multiplier * slope[~kept]) <= 1 + 1e-2)
    np.testing.assert_allclose(multiplier * excess.sum(axis=1), 0, atol=1e-2)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_gap_is_never_negative_and_vanishes(constraint: Constraint, activation: ActivationFunction) -> None:
    problem = random_problem(4, activation=activation, constraint=constraint)
    layer = prepare(problem)
    state = initial_state(layer, EXACT)
    gaps: list[float | None] = []
    for iterations in (10, 40, 400, 1500):
        settings = replace(EXACT, max_iterations=iterations, relative_gap=0.0)
        iterate(layer, state, problem.epsilon, settings)
        gaps.append(read_solution(layer, state, problem.epsilon, settings).relative_gap)
    known = [gap for gap in gaps if gap is not None]
    assert min(known) >= 0
    assert known[-1] < 1e-4  # float32 iterates
    assert known[-1] < known[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_dual_gives_a_lower_bound(activation: ActivationFunction) -> None:
    problem = random_problem(6, activation=activation)
    rng = np.random.default_rng(6)
    solution = solve(problem, EXACT)
    feasible = l1_norm(solution.W)
    silent = Violation(*np.zeros((3, problem.W.shape[1])))
    Z = solution.W.T @ problem.X + solution.bias[:, np.newaxis]
    best = np.clip(Z, problem.lower, problem.upper) - Z
    shares = []
    for noise in np.geomspace(1e-4, 1e2, 30):
        dual = best + noise * np.std(best) * rng.normal(size=best.shape)
        shares.append(dual_bounds(problem, dual, silent).sum() / feasible)
    assert max(shares) <= 1 + 1e-6  # W from a float32 solve
    assert max(shares) > 0.99  # the first is nearly the solution of the dual


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("activation", ActivationFunction)
def test_response_stays_within_epsilon(constraint: Constraint, activation: ActivationFunction) -> None:
    problem = random_problem(7, activation=activation, constraint=constraint)
    solution = solve(problem)
    assert solution.status is SolverStatus.SOLVED
    ball, one_sided, _ = constraint_violation(problem, solution.W, solution.bias)
    assert np.linalg.norm(ball) <= problem.epsilon
    assert one_sided.max() <= solution.rounding
    assert response_error(problem, solution.W, solution.bias) <= solution.distance * (1 + 1e-12)  # float64 sums


def test_distance_form_never_needs_a_larger_norm_than_the_published_one() -> None:
    hard, wide = (solve(random_problem(8, constraint=constraint), EXACT) for constraint in CONSTRAINTS[::-1])
    assert l1_norm(wide.W) <= l1_norm(hard.W) * (1 + 1e-4)  # float32 iterates


def test_recomputed_figures_follow_their_formulas() -> None:
    problem = random_problem(9)
    solution = solve(problem)
    Z = solution.W.T.astype(float) @ problem.X + solution.bias[:, np.newaxis]
    expected = np.linalg.norm(Z - np.clip(Z, problem.lower, problem.upper))
    assert solution.distance == pytest.approx(expected, rel=1e-12)  # float64 sums in another order
    assert solution.relative_distance == pytest.approx(expected / np.linalg.norm(problem.target), rel=1e-6)
    assert solution.primal_residual == max(0.0, solution.distance - problem.epsilon)
    assert solution.nnz == np.count_nonzero(solution.W)
    assert solution.sparsity == 1 - solution.nnz / solution.W.size


def test_dead_inputs_get_no_weight() -> None:
    problem = random_problem(10)
    X = problem.X.copy()
    X[[2, 5]] = 0
    solution = solve(build_problem(X, problem.W, problem.bias, problem.activation, relative_epsilon=0.01))
    assert not solution.W[[2, 5]].any()
    assert solution.W[[0, 1, 3]].any()


def test_dead_neuron_needs_only_a_bias_that_keeps_it_silent() -> None:
    problem = random_problem(11)
    bias = problem.bias.copy()
    bias[1] = -1000
    problem = build_problem(problem.X, problem.W, bias, problem.activation)
    solution = solve(problem)
    assert solution.status is SolverStatus.SOLVED
    assert not solution.W[:, 1].any()
    assert solution.bias[1] <= 0


def test_warm_start_takes_fewer_iterations() -> None:
    problem = random_problem(12, shape=(30, 10, 200))
    layer, settings = prepare(problem), AdmmSettings(first_certificate=0, check_every=5)
    state = initial_state(layer, settings)
    iterate(layer, state, problem.epsilon, settings)
    before = state.iterations
    iterate(layer, state, problem.epsilon * 1.05, settings)
    cold = initial_state(layer, settings)
    iterate(layer, cold, problem.epsilon * 1.05, settings)
    assert np.all(state.gap <= settings.relative_gap)
    assert state.iterations - before < cold.iterations


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("shape", [(12, 4, 1), (12, 4, 5), (1, 1, 1), (40, 3, 20)])
def test_degenerate_layers_end_with_a_status(shape: tuple[int, int, int], constraint: Constraint) -> None:
    problem = random_problem(13, shape=shape, constraint=constraint)
    solution = solve(problem)
    assert solution.status in {SolverStatus.SOLVED, SolverStatus.MAX_ITERATIONS}
    assert solution.distance <= problem.epsilon * 1.01  # the hard form may stop at its iteration limit
    assert np.all(np.isfinite(solution.W))


def test_epsilon_of_zero_ends_with_a_status() -> None:
    solution = solve(random_problem(14, relative_epsilon=0.0))
    assert solution.status in {SolverStatus.SOLVED, SolverStatus.MAX_ITERATIONS}
    assert solution.relative_distance < 1e-3


def test_layer_of_zero_inputs_is_answered_by_the_bias() -> None:
    problem = random_problem(15)
    zero = build_problem(np.zeros_like(problem.X), problem.W, problem.bias, problem.activation)
    solution = solve(zero)
    assert solution.nnz == 0
    assert solution.distance == pytest.approx(0, abs=1e-6)  # float32 bias


def test_repeated_inputs_make_no_difference_to_the_norm() -> None:
    problem = random_problem(16)
    doubled = build_problem(
        np.concatenate([problem.X, problem.X]),
        np.concatenate([problem.W, np.zeros_like(problem.W)]),
        problem.bias,
        problem.activation,
        relative_epsilon=0.2,
    )
    norms = [l1_norm(solve(each, EXACT).W) for each in (problem, doubled)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)  # float32 iterates


@pytest.mark.parametrize("factor", [1e-6, 1e-4, 1e4, 1e6])
def test_units_of_the_inputs_do_not_matter(factor: float) -> None:
    problem = random_problem(17)
    scaled = build_problem(
        problem.X * factor, problem.W / factor, problem.bias, problem.activation, relative_epsilon=0.2
    )
    solution, expected = solve(scaled), solve(problem)
    assert solution.iterations == expected.iterations
    assert l1_norm(solution.W) * factor == pytest.approx(l1_norm(expected.W), rel=1e-3)  # float32 rounding


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_neurons_that_run_out_of_iterations_have_the_gap_they_reached(constraint: Constraint) -> None:
    problem = random_problem(1, shape=(40, 60, 300), constraint=constraint).with_relative_epsilon(0.2, "neuron")
    iterations = {"distance": 30, "hard": 80}[constraint]  # some neurons are done, hardly any has dropped out
    layer, settings = prepare(problem), AdmmSettings(max_iterations=iterations)
    state = initial_state(layer, settings)
    iterate(layer, state, problem.epsilon, settings)
    done = state.gap <= settings.relative_gap
    assert 0 < np.count_nonzero(done) < len(done)
    solution = read_solution(layer, state, problem.epsilon, settings)
    assert solution.status is SolverStatus.MAX_ITERATIONS
    np.testing.assert_allclose(solution.relative_gaps, state.gap, atol=1e-4)  # float64 against float32


def test_too_few_iterations_are_a_status() -> None:
    solution = solve(random_problem(18), AdmmSettings(max_iterations=3))
    assert solution.status is SolverStatus.MAX_ITERATIONS
    assert solution.iterations == 3


def test_target_out_of_reach_is_a_status() -> None:
    problem = random_problem(19, activation=ActivationFunction.NONE)
    target = np.random.default_rng(19).normal(size=problem.target.shape)
    wrong = build_problem(problem.X, problem.W, problem.bias, problem.activation, target=target)
    solution = solve(wrong.with_relative_epsilon(0.01), AdmmSettings(max_iterations=200))
    assert solution.status is SolverStatus.INFEASIBLE
    assert solution.primal_residual > 0


def test_weighted_distance_within_reach_is_never_called_infeasible() -> None:
    problem = random_problem(19, activation=ActivationFunction.NONE)
    target = problem.target.copy()
    target[:, :20] += 5 * np.random.default_rng(19).normal(size=(len(target), 20))
    start = -problem.W  # so that the first weights are far away
    wrong = build_problem(problem.X, start, problem.bias, problem.activation, target=target)
    weights = np.ones_like(target)
    weights[:, :20] = 1e-3  # a fit without weights pays for these samples, one with weights does not
    weighted = replace(wrong, distance_weights=weights).with_epsilon(0.5)
    assert distance(weighted, problem.W, problem.bias) < 0.5
    assert solve(weighted, AdmmSettings(max_iterations=1)).status is SolverStatus.MAX_ITERATIONS
    far = weighted.with_epsilon(1e-3)
    assert solve(replace(far, distance_weights=weights + 1), AdmmSettings(max_iterations=1)).status is (
        SolverStatus.INFEASIBLE
    )


def test_overflow_is_a_status() -> None:
    problem = random_problem(20, activation=ActivationFunction.NONE)
    huge = replace(problem, lower=problem.lower * np.float32(1e37), upper=problem.upper * np.float32(1e37))
    with np.errstate(all="ignore"):
        solution = solve(huge)
    assert solution.status is not SolverStatus.SOLVED
    assert np.all(np.isfinite(solution.W))


def test_two_solves_give_the_same_bytes() -> None:
    first, second = (solve(random_problem(21, shape=(40, 10, 300))) for _ in range(2))
    assert first.W.tobytes() == second.W.tobytes()
    assert first.bias.tobytes() == second.bias.tobytes()
    assert first.relative_gap == second.relative_gap


def test_blocks_of_neurons_in_threads_give_the_same_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(21, shape=(20, 10, 100))
    whole = solve(problem, EXACT)
    monkeypatch.setattr("nettrim.admm_loop.SLICE_NEURONS", 3)
    monkeypatch.setattr("nettrim.admm_loop.SMALLEST_FOR_THREADS", 1)
    first, second = solve(problem, EXACT), solve(problem, EXACT)
    assert first.W.tobytes() == second.W.tobytes()
    np.testing.assert_allclose(first.W, whole.W, atol=1e-3)  # float32 sums in another order


def test_inputs_are_not_changed() -> None:
    problem = random_problem(22)
    before = [array.copy() for array in (problem.X, problem.W, problem.bias, problem.lower)]
    solve(problem)
    for array, copy in zip((problem.X, problem.W, problem.bias, problem.lower), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.slow
def test_interrupt_comes_through() -> None:
    endless = AdmmSettings(relative_gap=0.0, max_iterations=10**9)
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        solve(random_problem(23, shape=(100, 100, 3000)), endless)  # large enough for threads
    timer.join()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.zeros(3, np.float32)}, r"bias has shape \(3,\), expected \(4,\)"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"W": np.full((12, 4), np.nan, np.float32)}, "W holds NaN"),
        ({"lower": np.full((4, 60), np.nan, np.float32)}, "the box has NaN or lower > upper"),
        ({"upper": np.full((4, 60), -np.inf, np.float32)}, "the box has NaN or lower > upper"),
    ],
)
def test_problem_that_does_not_fit_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(random_problem(24), **change)  # type: ignore[arg-type]  # the wrong values are the point


@pytest.mark.parametrize("change", [{"check_every": 0}, {"alpha": 2.0}])
def test_settings_that_no_loop_can_run_with_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected at least 1 and a number between 0 and 2"):
        AdmmSettings(**change)  # type: ignore[arg-type]


def test_problem_of_no_samples_is_refused() -> None:
    problem = random_problem(25)
    with pytest.raises(DataError, match="no samples"):
        build_problem(problem.X[:, :0], problem.W, problem.bias, problem.activation)


def test_original_weights_are_feasible_in_the_parallel_scheme() -> None:
    problem = random_problem(26)
    assert distance(problem, problem.W, problem.bias) <= 1e-5 * problem.target_norm  # float32 response
