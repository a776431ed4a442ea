"""CVXPY's route: two solvers agree, users' constraints hold, and what cannot be is a status."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nettrim.activations import IDENTITY, RELU, RELU6, Activation
from nettrim.errors import UsageError
from nettrim.layer_problem import Ball, Constraint, LayerProblem, build_problem, constraint_violation, l1_norm
from nettrim.layer_solution import SolverStatus
from nettrim.reference import build_program, one_neuron, run_program, solve_with_cvxpy
from nettrim_runtime.errors import DataError
from tests.nettrim.layer_problems import random_problem

CONSTRAINTS: tuple[Constraint, ...] = ("distance", "hard")
BALLS: tuple[Ball, ...] = ("joint", "neuron")
LOOSE = 1e-4  # SCS meets its constraints to about 1e-5 of the units of the problem


def small_problem(
    seed: int = 0,
    activation: Activation = RELU,
    constraint: Constraint = "distance",
    ball: Ball = "joint",
    n_samples: int = 25,
) -> LayerProblem:
    rng = np.random.default_rng(seed)
    X, W, bias = rng.normal(size=(6, n_samples)), rng.normal(size=(6, 3)), 0.3 * rng.normal(size=3)
    if activation is RELU6:
        W, bias = 2 * W, bias + 3  # both saturations are reached
    return build_problem(X, W, bias, activation, relative_epsilon=0.2, constraint=constraint, ball=ball)


@pytest.mark.slow
@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("activation", [IDENTITY, RELU, RELU6], ids=lambda activation: activation.name)
def test_clarabel_and_scs_find_the_same_feasible_optimum(
    activation: Activation, constraint: Constraint, ball: Ball
) -> None:
    problem = small_problem(1, activation, constraint, ball)
    exact, other = solve_with_cvxpy(problem), solve_with_cvxpy(problem, "SCS")
    assert exact.status is other.status is SolverStatus.SOLVED
    assert l1_norm(exact.W) == pytest.approx(l1_norm(other.W), rel=LOOSE)
    for solution in (exact, other):
        assert solution.primal_residual < LOOSE * problem.target_norm
        assert solution.relative_gap is not None
        assert solution.relative_gap < 1e-3  # the worst neuron's; SCS's multipliers have its accuracy


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_compression_changes_rows_and_not_the_optimum(constraint: Constraint) -> None:
    problem = small_problem(2, constraint=constraint)
    small, whole = (build_program(problem, compress=compress) for compress in (True, False))
    norms = [l1_norm(run_program(problem, program, "CLARABEL").W) for program in (small, whole)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)  # Clarabel's accuracy
    assert whole.solver_seconds > 0


def test_neurons_with_their_own_balls_are_solved_one_by_one() -> None:
    problem = small_problem(3, ball="neuron")
    whole = solve_with_cvxpy(problem)
    alone = [solve_with_cvxpy(one_neuron(problem, neuron)) for neuron in range(3)]
    np.testing.assert_allclose(whole.W, np.column_stack([each.W for each in alone]), atol=1e-4)  # interior points


def test_neurons_of_one_ball_are_not_taken_apart() -> None:
    with pytest.raises(DataError, match="expected ball='neuron'"):
        one_neuron(small_problem(4), 0)


def test_weights_of_the_distance_matter_as_in_the_formula() -> None:
    problem = small_problem(5, n_samples=15)
    weights = np.random.default_rng(5).uniform(0.5, 2.0, problem.target.shape).astype(np.float32)
    weighted = replace(problem, distance_weights=weights)
    solution = solve_with_cvxpy(weighted)
    reached = float(np.linalg.norm(constraint_violation(weighted, solution.W, solution.bias)[0]))
    assert reached == pytest.approx(problem.total_epsilon, rel=1e-4)  # the ball is met, not more, by float32 weights
    assert solution.relative_gap is not None
    assert solution.relative_gap < 1e-3  # Clarabel's multipliers


def test_dead_neuron_gets_no_weight() -> None:
    problem = small_problem(6, ball="neuron")
    bias = problem.bias.copy()
    bias[1] = -1000
    dead = build_problem(problem.X, problem.W, bias, RELU, relative_epsilon=0.2, ball="neuron")
    solution = solve_with_cvxpy(dead)
    assert solution.status is SolverStatus.SOLVED
    assert not solution.W[:, 1].any()
    assert solution.bias[1] < 1e-6  # silent


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_scaled_inputs_scale_the_answer(factor: float) -> None:
    problem = small_problem(7)
    scaled = build_problem(problem.X * factor, problem.W / factor, problem.bias, RELU, relative_epsilon=0.2)
    expected = l1_norm(solve_with_cvxpy(problem).W)
    assert l1_norm(solve_with_cvxpy(scaled).W) * factor == pytest.approx(expected, rel=1e-5)  # Clarabel's accuracy


def test_own_constraint_is_kept_by_the_weights() -> None:
    problem = small_problem(9).with_relative_epsilon(0.5)
    solution = solve_with_cvxpy(problem, constraints=lambda U, _: [U[0, :] == U[1, :]])
    free = solve_with_cvxpy(problem)
    assert solution.status is SolverStatus.SOLVED
    np.testing.assert_allclose(solution.W[0], solution.W[1], atol=1e-6)  # Clarabel's accuracy
    assert solution.primal_residual < LOOSE * problem.target_norm
    assert l1_norm(solution.W) > l1_norm(free.W)
    assert solution.relative_gap is None  # the certificate is that of the program without the constraint


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_own_constraints_that_nothing_keeps_are_a_status(solver: str) -> None:
    problem = small_problem(10)
    solution = solve_with_cvxpy(problem, solver, lambda U, bias: [U >= 1, U <= 0, bias == 0])
    assert solution.status is SolverStatus.INFEASIBLE
    np.testing.assert_array_equal(solution.W, problem.W)


def test_too_few_iterations_are_a_status() -> None:
    assert solve_with_cvxpy(small_problem(11), max_iter=1).status is not SolverStatus.SOLVED


def test_solver_that_fails_is_a_status() -> None:
    solution = solve_with_cvxpy(small_problem(12), "OSQP")  # has no cone for the ball
    assert solution.status is SolverStatus.NUMERICAL_ERROR


def test_solver_that_cvxpy_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no solver 'CLARABELLE', expected one of: .*CLARABEL"):
        solve_with_cvxpy(small_problem(13), "CLARABELLE")


@pytest.mark.slow
def test_example_keeps_its_own_constraint() -> None:
    script = Path(__file__).resolve().parents[2] / "examples" / "side_constraints" / "balanced_weights.py"
    finished = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    rows = {line[:18].strip(): line[18:].split() for line in finished.stdout.splitlines()[-3:]}
    weights, largest_sum, *_ = rows["pruned, balanced"]
    assert int(weights) < int(rows["original"][0]) / 2
    assert float(largest_sum) < 1e-3  # float32 weights of about one


def test_weights_of_small_inputs_are_no_dust() -> None:
    problem = random_problem(2)
    sizes = np.logspace(-3, 3, len(problem.X))[:, np.newaxis]
    scaled = build_problem(problem.X * sizes, problem.W / sizes, problem.bias, RELU, relative_epsilon=0.1)
    solution = solve_with_cvxpy(scaled)
    assert solution.status is SolverStatus.SOLVED
    assert solution.distance <= 1.001 * float(scaled.epsilon)
