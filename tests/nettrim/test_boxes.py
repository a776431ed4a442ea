"""Boxes hold exactly the pre-activations with the wanted response."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nettrim.activations import ACTIVATIONS, IDENTITY, RELU, RELU6, SIGMOID, SILU, fused_activation, with_tails
from nettrim.boxes import bounded_box, pool_box, shifted_box, window_winners
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction


@pytest.mark.parametrize("activation", ActivationFunction)
def test_own_pre_activation_lies_in_its_box(activation: ActivationFunction) -> None:
    z = np.random.default_rng(1).normal(scale=5, size=(6, 40)).astype(np.float32)
    lower, upper = fused_activation(activation).box(np.clip(z, activation.lower, activation.upper))
    assert np.all((lower <= z) & (z <= upper))


@pytest.mark.parametrize("activation", ActivationFunction)
def test_response_error_is_at_most_the_distance_to_the_box(activation: ActivationFunction) -> None:
    rng = np.random.default_rng(2)
    z, other = rng.normal(scale=5, size=(2, 6, 40)).astype(np.float32)
    target = np.clip(z, activation.lower, activation.upper)
    lower, upper = fused_activation(activation).box(target)
    error = np.linalg.norm(np.clip(other, activation.lower, activation.upper) - target)
    assert error <= np.linalg.norm(other - np.clip(other, lower, upper)) * (1 + 1e-6)  # float32 norms


def test_relu6_box_is_open_at_both_saturations() -> None:
    lower, upper = RELU6.box(np.array([[0.0, 2.5, 6.0]], np.float32))
    np.testing.assert_array_equal(lower, [[-np.inf, 2.5, 6.0]])
    np.testing.assert_array_equal(upper, [[0.0, 2.5, np.inf]])


def test_identity_box_is_the_target() -> None:
    target = np.array([[-1.0, 0.0, 2.0]], np.float32)
    lower, upper = IDENTITY.box(target)
    np.testing.assert_array_equal(lower, target)
    np.testing.assert_array_equal(upper, target)


def test_bounded_box_ends_half_lines_at_the_bound_only() -> None:
    target, bound = np.array([[0.0, 2.5, 6.0]], np.float32), np.array([[-0.5, 1.0, 7.0]], np.float32)
    lower, upper = bounded_box(target, RELU6, bound)
    np.testing.assert_array_equal(lower, [[-np.inf, 2.5, 7.0]])
    np.testing.assert_array_equal(upper, [[-0.5, 2.5, np.inf]])


WINDOW = 4
MONOTONE = (*(a for a in ACTIVATIONS.values() if a.is_monotone), with_tails(SIGMOID, 0.05))
# few different numbers, so that windows have ties; and any others
pooled_values = arrays(
    np.float32, (2, 3, 3 * WINDOW), elements=st.sampled_from([-2.0, 0.0, 1.5, 6.0, 7.0]) | st.floats(-50, 50, width=32)
)


def _pooled(values: Array) -> Array:
    largest: Array = values.astype(np.float64).reshape(len(values), -1, WINDOW).max(axis=2)
    return largest


@given(values=pooled_values)
def test_pooled_response_errs_by_at_most_the_distance_to_the_pool_box(values: Array) -> None:
    z0, other = values
    for activation in MONOTONE:
        lower, upper = pool_box(z0, activation, WINDOW)
        distance = np.linalg.norm(other.astype(np.float64) - np.clip(other, lower, upper))
        error = np.linalg.norm(_pooled(activation.apply(other)) - _pooled(activation.apply(z0)))
        winners = z0[window_winners(z0, WINDOW)]
        assert error <= activation.response_bound(winners, distance) * (1 + 1e-6) + 1e-5  # float32 responses


@given(values=pooled_values)
def test_pool_box_holds_its_own_pre_activations_and_from_a_clamp_its_responses(values: Array) -> None:
    z0 = values[0]
    for activation in (RELU, RELU6, IDENTITY):
        for given_values in (z0, activation.apply(z0)):
            lower, upper = pool_box(given_values, activation, WINDOW)
            assert np.all((lower <= given_values) & (given_values <= upper))
            inside = np.clip(z0, lower, upper)  # a point of the box
            np.testing.assert_array_equal(_pooled(activation.apply(inside)), _pooled(activation.apply(z0)))


def test_pool_box_of_a_relu_fixes_the_winner_and_bounds_the_others() -> None:
    z0 = np.array([[1.0, 3.0, -2.0, 3.0, -1.0, -5.0, -3.0, 0.0]], np.float32)
    lower, upper = pool_box(z0, RELU, WINDOW)
    np.testing.assert_array_equal(lower, [[-np.inf, 3, -np.inf, -np.inf, *[-np.inf] * 4]])
    np.testing.assert_array_equal(upper, [[3, 3, 3, 3, 0, 0, 0, 0]])


def test_pool_box_of_a_saturated_relu6_asks_one_entry_to_stay_saturated() -> None:
    lower, upper = pool_box(np.array([[6.5, 8.0, -2.0, 3.0]], np.float32), RELU6, WINDOW)
    np.testing.assert_array_equal(lower, [[-np.inf, 6, -np.inf, -np.inf]])
    np.testing.assert_array_equal(upper, [[np.inf] * 4])


def test_every_window_has_one_winner() -> None:
    wins = window_winners(np.array([[0.0, 0, 0, 0, 1, 2, 2, 1]]), WINDOW)
    np.testing.assert_array_equal(wins, [[True, False, False, False, False, True, False, False]])


def test_pooling_an_activation_that_falls_is_refused() -> None:
    with pytest.raises(DataError, match="silu"):
        pool_box(np.zeros((1, 4), np.float32), SILU, WINDOW)


@given(values=arrays(np.float32, (3, 2, 6), elements=st.floats(-50, 50, width=32)))
def test_response_after_an_add_errs_by_at_most_the_distance_to_the_shifted_box(values: Array) -> None:
    z0, other, shift = values
    for activation in (RELU, RELU6, IDENTITY):
        lower, upper = shifted_box(*activation.box(z0), shift)
        distance = np.linalg.norm(other.astype(np.float64) - np.clip(other, lower, upper))
        error = np.linalg.norm(activation.apply(other.astype(np.float64) + shift) - activation.apply(z0))
        assert error <= distance * (1 + 1e-6) + 1e-4  # float32 differences of numbers up to 100, 12 of them
