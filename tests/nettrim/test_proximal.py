"""The closed-form steps against their definitions."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nettrim.proximal import ball_excess, box_excess, frobenius_norm, project_to_ball, soft_threshold
from nettrim_runtime.graph import Array

values = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-10, 10))


@given(values, st.floats(0, 5))
def test_soft_threshold_is_its_formula(x: Array, threshold: float) -> None:
    expected = np.sign(x) * np.maximum(np.abs(x) - threshold, 0)
    np.testing.assert_allclose(soft_threshold(x, threshold), expected, atol=1e-12)  # one subtraction


@given(values, st.floats(0, 5), st.floats(-1, 1))
def test_soft_threshold_minimises_its_objective(x: Array, threshold: float, move: float) -> None:
    def objective(u: Array) -> float:
        return float(np.sum((u - x) ** 2) / 2 + threshold * np.sum(np.abs(u)))

    best = soft_threshold(x, threshold)
    assert objective(best) <= objective(best + move) + 1e-9  # float64 rounding of sums of 100


def test_soft_threshold_writes_where_it_is_told() -> None:
    out = np.empty(3)
    result = soft_threshold(np.array([-2.0, 0.5, 3.0]), 1.0, out=out)
    assert result is out
    np.testing.assert_array_equal(out, [-1.0, 0.0, 2.0])


def test_box_excess_of_infinite_bounds_is_zero() -> None:
    z = np.array([-5.0, 5.0])
    infinite = np.full(2, np.inf)
    np.testing.assert_array_equal(box_excess(z, -infinite, infinite), 0)


@given(values, st.floats(0, 5), st.integers(0, 2**31))
def test_projection_is_feasible_and_nearer_than_other_feasible_points(z: Array, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=z.shape)
    upper = lower + rng.random(z.shape)
    projected = project_to_ball(z, lower, upper, radius)
    assert frobenius_norm(box_excess(projected, lower, upper)) <= radius + 1e-9  # float64 rounding
    for _ in range(5):
        other = rng.uniform(lower, upper)
        direction = rng.normal(size=z.shape)
        other += direction * radius * rng.random() / np.linalg.norm(direction)
        assert np.linalg.norm(z - projected) <= np.linalg.norm(z - other) + 1e-9  # float64 rounding


def test_entries_outside_the_ball_keep_their_bound_exactly() -> None:
    z, lower, upper = np.array([3.0, 4.0, 9.0]), np.zeros(3), np.zeros(3)
    in_ball = np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(project_to_ball(z, lower, upper, 2.5, in_ball), [1.5, 2.0, 0.0])


def test_ball_excess_of_radius_zero_is_all_of_it() -> None:
    excess = np.array([1.0, -2.0])
    np.testing.assert_array_equal(ball_excess(excess.copy(), 0.0), excess)
