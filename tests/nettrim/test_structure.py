"""Every structure against its definition: proximal operator, dual, CVXPY's view, torch, inputs left out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.admm import solve
from nettrim.admm_loop import AdmmSettings
from nettrim.errors import UsageError
from nettrim.layer_problem import Ball, Constraint, LayerProblem, build_problem
from nettrim.layer_solution import SolverStatus
from nettrim.reference import solve_with_cvxpy
from nettrim.structure import ALL_OUTPUTS, L1, Groups, L1Norm, Structure
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction
from tests.nettrim.layer_problems import optimal_l1_norm, random_problem

SHAPE = (13, 6)  # blocks of 4 end with a shorter one along both axes
COSTS = np.random.default_rng(0).uniform(0.3, 3.0, SHAPE).astype(np.float32)
EDGES = np.random.default_rng(1).uniform(0.2, 2.0, SHAPE).astype(np.float32)
HALF_OPEN = np.where(EDGES > 1, np.inf, EDGES).astype(np.float32)
LIVE = np.arange(SHAPE[0]) % 5 != 2

NORMS: dict[str, Structure] = {
    "l1": L1,
    "weighted l1": L1Norm(costs=COSTS),
    "1x4": Groups(block_shape=(1, 4)),
    "1x16": Groups(block_shape=(1, 16)),
    "4x1": Groups(block_shape=(4, 1)),
    "2x3": Groups(block_shape=(2, 3)),
    "columns": Groups(block_shape=(None, 1)),
    "neurons": Groups(block_shape=(1, None)),
    "nonnegative l1": L1Norm(lower=0.0),
    "nonpositive weighted l1": L1Norm(upper=0.0, costs=COSTS),
    "nonnegative 1x4": Groups(lower=0.0),
    "nonpositive columns": Groups(block_shape=(None, 1), upper=0.0),
}  # gauges: multiplied weights cost a multiple
BOUNDED: dict[str, Structure] = {
    "bounds": L1Norm(lower=-0.4, upper=0.9),
    "bounds a weight": L1Norm(lower=-EDGES, upper=EDGES[::-1], costs=COSTS),
    "some bounds infinite": L1Norm(lower=-HALF_OPEN, upper=HALF_OPEN[::-1]),
}
STRUCTURES = {**NORMS, **BOUNDED}

every_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
every_norm = pytest.mark.parametrize("structure", NORMS.values(), ids=NORMS)


def random_weights(seed: int, shape: tuple[int, int] = SHAPE) -> Array:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * rng.random(shape[1])


@every_structure
@given(st.integers(0, 2**31), st.floats(1e-3, 3.0))
@settings(max_examples=30)
def test_moreau_identity(structure: Structure, seed: int, threshold: float) -> None:
    # v - prox(v) is threshold times a subgradient g: conjugate finite at g, and <g, p> = value(p) + conjugate(g)
    V = random_weights(seed)
    P = structure.shrink(V, np.full(SHAPE[1], threshold))
    subgradient = (V - P) / threshold
    assert structure.contains(P)
    assert np.all(structure.gauge(subgradient) <= 1 + 1e-9)  # float64 rounding
    value = float(np.sum(structure.value(P) + structure.conjugate(subgradient)))
    assert np.sum(subgradient * P) == pytest.approx(value, rel=1e-9, abs=1e-9 / threshold)  # float64 rounding


@every_structure
@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_no_other_point_has_a_smaller_proximal_objective(structure: Structure, seed: int) -> None:
    rng = np.random.default_rng(seed)
    V = random_weights(seed)
    units = np.arange(SHAPE[1]) // structure.unit_outputs
    threshold = rng.uniform(0.0, 2.0, SHAPE[1])[units]

    def objective(U: Array) -> float:
        return float(np.sum((U - V) ** 2) / 2 + threshold @ structure.value(U))

    best = structure.shrink(V, threshold)
    for size in (1e-3, 0.1, 1.0):
        other = structure.project(best + size * rng.normal(size=SHAPE))
        assert objective(best) <= objective(other) + 1e-9  # float64 rounding


@pytest.mark.slow
@every_structure
def test_proximal_operator_is_what_cvxpy_finds(structure: Structure) -> None:
    import cvxpy as cp

    V = random_weights(2)
    U = cp.Variable(SHAPE)
    objective = cp.sum_squares(U - V) / 2 + 0.3 * structure.cvxpy_penalty(U)
    cp.Problem(cp.Minimize(objective), structure.cvxpy_constraints(U)).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(structure.shrink(V, np.full(SHAPE[1], 0.3)), U.value, atol=1e-4)  # Clarabel's 1e-8


@every_structure
def test_value_is_that_of_cvxpys_expression(structure: Structure) -> None:
    import cvxpy as cp

    W = random_weights(3)
    penalty = structure.cvxpy_penalty(cp.Constant(W)).value
    assert np.sum(structure.value(W)) == pytest.approx(float(penalty), rel=1e-6)  # float32 costs


@pytest.mark.slow
@every_norm
def test_gauge_is_the_largest_correlation_with_weights_of_penalty_one(structure: Structure) -> None:
    import cvxpy as cp

    correlation = random_weights(4)
    U = cp.Variable(SHAPE)
    within = [structure.cvxpy_penalty(U) <= 1, *structure.cvxpy_constraints(U)]
    largest = cp.Problem(cp.Maximize(cp.sum(cp.multiply(correlation, U))), within).solve(solver=cp.CLARABEL)
    assert np.max(structure.gauge(correlation)) == pytest.approx(largest, rel=1e-5)  # Clarabel's 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("structure", BOUNDED.values(), ids=BOUNDED)
def test_conjugate_is_the_best_of_correlation_less_penalty(structure: Structure) -> None:
    import cvxpy as cp

    most, least = np.where(np.isinf(structure.upper), 0.9, 9.0), np.where(np.isinf(structure.lower), -0.9, -9.0)
    correlation = np.clip(6 * random_weights(5), least, most)
    assert np.all(structure.gauge(correlation) <= 1)
    U = cp.Variable(SHAPE)
    worth = cp.sum(cp.multiply(correlation, U)) - structure.cvxpy_penalty(U)
    best = cp.Problem(cp.Maximize(worth), structure.cvxpy_constraints(U)).solve(solver=cp.CLARABEL)
    assert np.sum(structure.conjugate(correlation)) == pytest.approx(best, rel=1e-5)  # Clarabel's 1e-8
    assert best > 1


@every_norm
def test_conjugate_of_a_norm_is_zero_and_the_penalty_scales(structure: Structure) -> None:
    W = random_weights(6)
    assert structure.is_cone
    np.testing.assert_array_equal(structure.conjugate(W), 0)
    np.testing.assert_allclose(structure.value(3 * W), 3 * structure.value(W))


@pytest.mark.parametrize("structure", BOUNDED.values(), ids=BOUNDED)
def test_bounded_weights_are_no_cone(structure: Structure) -> None:
    assert structure.is_bounded
    assert not structure.is_cone


@every_structure
def test_coupled_neurons_share_value_and_gauge(structure: Structure) -> None:
    W = random_weights(7)
    units = np.arange(SHAPE[1]) // structure.unit_outputs
    firsts = np.flatnonzero(np.diff(units, prepend=-1))[units]
    for numbers in (structure.value(W), structure.gauge(W)):
        np.testing.assert_array_equal(numbers, numbers[firsts])


@every_structure
def test_torch_gives_what_numpy_gives(structure: Structure) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    W = random_weights(8).astype(np.float32)
    threshold = np.full(SHAPE[1], 0.2, np.float32)
    for part, rows in ((structure, W), (structure.restrict(LIVE, None), W[LIVE])):
        tensor = torch.asarray(np.ascontiguousarray(rows.T)).T  # as the solver has it
        pairs: list[tuple[Any, Array]] = [
            (part.shrink(tensor, torch.asarray(threshold)), part.shrink(rows, threshold)),
            (part.value(tensor), part.value(rows)),
            (part.gauge(tensor), part.gauge(rows)),
            (part.conjugate(tensor), part.conjugate(rows)),
            (part.block_norms(tensor), part.block_norms(rows)),
        ]
        for ours, expected in pairs:
            assert isinstance(ours, torch.Tensor)
            assert str(ours.dtype) == f"torch.{expected.dtype}"
            np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-6)  # float32 sums


@every_structure
def test_type_and_order_of_the_weights_do_not_matter(structure: Structure) -> None:
    W, threshold = random_weights(9).astype(np.float32), np.full(SHAPE[1], 0.2)
    rows = np.zeros((SHAPE[1], SHAPE[0] + 1), np.float32)
    rows[:, :-1] = W.T
    shrunk = structure.shrink(rows[:, :-1].T, threshold)
    assert shrunk.dtype == np.float32
    np.testing.assert_allclose(shrunk, structure.shrink(W, threshold), rtol=1e-6, atol=1e-7)  # float32 sums
    np.testing.assert_array_equal(rows[:, :-1].T, W)


@every_structure
def test_left_out_inputs_count_as_zero_weights(structure: Structure) -> None:
    W = random_weights(10)
    W[~LIVE] = 0
    part, threshold = structure.restrict(LIVE, None), np.full(SHAPE[1], 0.2)
    np.testing.assert_allclose(part.shrink(W[LIVE], threshold), structure.shrink(W, threshold)[LIVE])
    np.testing.assert_allclose(part.value(W[LIVE]), structure.value(W))
    np.testing.assert_allclose(part.gauge(W[LIVE]), structure.gauge(W))
    np.testing.assert_allclose(part.conjugate(W[LIVE]), structure.conjugate(W))
    again = part.restrict(np.arange(np.count_nonzero(LIVE)) != 3, None)
    fewer = LIVE.copy()
    fewer[np.flatnonzero(LIVE)[3]] = False
    expected = structure.restrict(fewer, None)
    np.testing.assert_allclose(again.gauge(W[fewer]), expected.gauge(W[fewer]))


@every_structure
def test_whole_units_stand_alone(structure: Structure) -> None:
    W, threshold = random_weights(11), np.full(SHAPE[1], 0.2)
    units = np.arange(SHAPE[1]) // structure.unit_outputs
    kept = units == units[-1]
    for outputs in (kept, np.flatnonzero(kept), slice(int(np.argmax(kept)), SHAPE[1])):
        part = structure.restrict(None, outputs)
        np.testing.assert_allclose(part.shrink(W[:, kept], threshold[kept]), structure.shrink(W, threshold)[:, kept])
        np.testing.assert_allclose(part.value(W[:, kept]), structure.value(W)[kept])
        np.testing.assert_allclose(part.gauge(W[:, kept]), structure.gauge(W)[kept])


@every_structure
def test_layer_without_live_inputs_costs_nothing(structure: Structure) -> None:
    part, empty = structure.restrict(np.zeros(SHAPE[0], bool), None), np.zeros((0, SHAPE[1]), np.float32)
    assert part.shrink(empty, np.ones(SHAPE[1])).shape == empty.shape
    for numbers in (part.value(empty), part.gauge(empty), part.conjugate(empty)):
        np.testing.assert_array_equal(numbers, np.zeros(SHAPE[1]))


def test_coupled_neurons_are_not_taken_apart() -> None:
    with pytest.raises(DataError, match="units of 4 neurons"):
        Groups(block_shape=(4, 1)).restrict(None, np.array([1, 2, 3, 4]))
    with pytest.raises(DataError, match="whole ones"):
        Groups(block_shape=(None, 1)).restrict(None, np.arange(6) != 2)


def test_groups_below_the_threshold_become_exactly_zero() -> None:
    W = np.array([[3.0], [4.0], [0.0], [0.0], [0.3], [0.4], [0.0], [0.0]])
    shrunk = Groups(block_shape=(1, 4)).shrink(W, np.array([0.5]))
    np.testing.assert_allclose(shrunk[:4, 0], [2.4, 3.2, 0, 0])  # 5 - 0.5 * sqrt(4) of 5
    np.testing.assert_array_equal(shrunk[4:], 0)


def test_threshold_of_zero_changes_nothing() -> None:
    W = random_weights(12)
    W[:4] = 0
    for structure in NORMS.values():
        np.testing.assert_array_equal(structure.shrink(W, np.zeros(SHAPE[1])), structure.project(W))


def test_blocks_of_norms_spread_back_to_their_weights() -> None:
    W = random_weights(13)
    for structure in STRUCTURES.values():
        spread = structure.spread(structure.block_norms(W), SHAPE)
        assert spread.shape == SHAPE
        assert np.all(spread >= np.abs(W) - 1e-12)  # float64 rounding


@pytest.mark.parametrize(
    ("structure", "unit"), [(L1, 1), (NORMS["1x4"], 1), (NORMS["4x1"], 4), (NORMS["columns"], ALL_OUTPUTS)]
)
def test_units_are_the_coupled_neurons(structure: Structure, unit: int) -> None:
    assert structure.unit_outputs == unit


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: L1Norm(lower=0.1), "0 lies outside the bounds"),
        (lambda: L1Norm(upper=np.full(SHAPE, -1.0)), "0 lies outside the bounds"),
        (lambda: L1Norm(lower=np.nan), "0 lies outside the bounds"),
        (lambda: L1Norm(costs=0.0), "costs are not all positive"),
        (lambda: L1Norm(costs=np.inf), "costs are not all positive"),
        (lambda: Groups(lower=-1.0), r"groups with bounds \[-1.0, inf\] have no closed form.*nettrim.reference"),
        (lambda: Groups(upper=np.zeros(SHAPE)), "no closed form"),
        (lambda: Groups(block_shape=(0, 4)), r"block shape is \(0, 4\)"),
    ],
)
def test_structure_without_a_closed_form_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wrong()


def test_structure_that_does_not_fit_the_weights_is_refused() -> None:
    problem = random_problem(shape=(12, 4, 20))
    with pytest.raises(DataError, match=r"costs has shape \(13, 6\), expected \(\) or \(12, 4\)"):
        replace(problem, structure=L1Norm(costs=COSTS))
    with pytest.raises(DataError, match=r"upper has shape \(13, 6\)"):
        replace(problem, structure=L1Norm(upper=EDGES))


def structured_problem(
    structure: Structure, ball: Ball = "joint", constraint: Constraint = "distance", seed: int = 0
) -> LayerProblem:
    """Return a layer whose original weights keep the bounds, one of its inputs always zero."""
    plain = random_problem(seed, shape=(*SHAPE, 60), activation=ActivationFunction.RELU)
    X = plain.X * LIVE[:, np.newaxis]
    W = structure.project(plain.W)
    return build_problem(
        X, W, plain.bias, plain.activation, relative_epsilon=0.2, constraint=constraint, ball=ball, structure=structure
    )


@pytest.mark.slow
@pytest.mark.parametrize("constraint", ["distance", "hard"])
@pytest.mark.parametrize("ball", ["joint", "neuron"])
@every_structure
def test_layer_is_solved_as_by_cvxpy(structure: Structure, ball: Ball, constraint: Constraint) -> None:
    problem = structured_problem(structure, ball, constraint)
    solution = solve(problem, AdmmSettings(relative_gap=2e-4))
    optimum = optimal_l1_norm(problem)
    assert np.sum(structure.value(solution.W)) == pytest.approx(optimum, rel=1e-3)  # the accuracy
    assert solution.is_feasible
    assert structure.contains(solution.W)
    gap = solution.relative_gap
    assert gap is not None
    assert np.sum(structure.value(solution.W)) * (1 - gap) <= optimum * (1 + 1e-6)  # Clarabel's accuracy


@pytest.mark.parametrize("name", ["1x4", "4x1", "columns", "nonnegative l1", "nonnegative 1x4"])
def test_structured_layer_is_certified(name: str) -> None:
    solution = solve(structured_problem(STRUCTURES[name]))
    assert solution.status is SolverStatus.SOLVED
    blocks = STRUCTURES[name].block_norms((solution.W != 0).astype(float))
    assert np.any(blocks == 0)


@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("structure", [L1Norm(lower=0.0), L1Norm(lower=-0.5, upper=0.5), Groups(lower=0.0)])
@pytest.mark.parametrize("relative_epsilon", [0.1, 0.9])
def test_bounds_that_nothing_keeps_are_called_infeasible_as_by_cvxpy(
    ball: Ball, structure: Structure, relative_epsilon: float
) -> None:
    problem = replace(random_problem(3, (8, 4, 60)), structure=structure).with_relative_epsilon(relative_epsilon, ball)
    expected = solve_with_cvxpy(problem).status is SolverStatus.INFEASIBLE
    assert (solve(problem).status is SolverStatus.INFEASIBLE) == expected
    assert expected == (relative_epsilon == 0.1)


@pytest.mark.parametrize("structure", [L1Norm(lower=0.0), L1Norm(lower=-0.5, upper=0.5), Groups(lower=0.0)])
def test_weights_outside_their_bounds_get_the_gap_of_bounds_that_hold_them(structure: Structure) -> None:
    problem = replace(random_problem(3, (8, 4, 60)), structure=structure).with_relative_epsilon(0.1, "joint")
    solution = solve(problem)
    assert not solution.is_feasible
    assert solution.relative_gaps is not None
    penalty = float(np.sum(structure.value(solution.W)))
    widened = replace(problem, structure=structure.widened(solution.W))
    reached = widened.with_epsilon(max(float(problem.epsilon), solution.distance))
    bound = penalty * (1 - float(solution.relative_gaps.max()))
    assert bound <= optimal_l1_norm(reached) * (1 + 1e-6)
