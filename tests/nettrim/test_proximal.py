"""The proximal operators against their definitions."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nettrim.proximal import group_scale, soft_threshold
from nettrim_runtime.graph import Array

values = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-10, 10))


@given(values, st.floats(0, 5))
def test_soft_threshold_is_its_formula(x: Array, threshold: float) -> None:
    expected = np.sign(x) * np.maximum(np.abs(x) - threshold, 0)
    np.testing.assert_allclose(soft_threshold(x, np.array(threshold)), expected, atol=1e-12)  # one subtraction


@given(values, st.floats(0, 5), st.floats(-1, 1))
def test_soft_threshold_minimises_its_objective(x: Array, threshold: float, move: float) -> None:
    def objective(u: Array) -> float:
        return float(np.sum((u - x) ** 2) / 2 + threshold * np.sum(np.abs(u)))

    best = soft_threshold(x, np.array(threshold))
    assert objective(best) <= objective(best + move) + 1e-9  # float64 rounding of sums of 100


def test_soft_threshold_takes_one_a_column() -> None:
    x = np.array([[-2.0, 0.5], [3.0, 4.0]])
    np.testing.assert_array_equal(soft_threshold(x, np.array([1.0, 2.0])), [[-1.0, 0.0], [2.0, 2.0]])


@given(values, st.floats(0, 20), st.integers(0, 2**31))
def test_group_scale_minimises_its_objective(x: Array, threshold: float, seed: int) -> None:
    def objective(u: Array) -> float:
        return float(np.sum((u - x) ** 2) / 2 + threshold * np.linalg.norm(u))

    best = x * group_scale(np.array([np.linalg.norm(x)]), np.array([threshold]))
    other = best + np.random.default_rng(seed).normal(size=x.shape)
    assert objective(best) <= objective(other) + 1e-9  # float64 rounding of sums of 1000


def test_group_within_the_threshold_is_scaled_by_exactly_zero() -> None:
    scale = group_scale(np.array([0.1, 0.3, 0.6, 0.0], np.float32), np.array([0.3, 0.3, 0.3, 0.0], np.float32))
    np.testing.assert_array_equal(scale[:2], 0)
    np.testing.assert_allclose(scale[2:], [0.5, 1.0], rtol=1e-6)  # float32
