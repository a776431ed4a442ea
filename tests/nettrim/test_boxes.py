"""Boxes hold exactly the pre-activations with the wanted response."""

import numpy as np
import pytest

from nettrim.boxes import bounded_box, response_box
from nettrim_runtime.ops import ActivationFunction


@pytest.mark.parametrize("activation", ActivationFunction)
def test_own_pre_activation_lies_in_its_box(activation: ActivationFunction) -> None:
    z = np.random.default_rng(1).normal(scale=5, size=(6, 40)).astype(np.float32)
    lower, upper = response_box(np.clip(z, activation.lower, activation.upper), activation)
    assert np.all((lower <= z) & (z <= upper))


@pytest.mark.parametrize("activation", ActivationFunction)
def test_response_error_is_at_most_the_distance_to_the_box(activation: ActivationFunction) -> None:
    rng = np.random.default_rng(2)
    z, other = rng.normal(scale=5, size=(2, 6, 40)).astype(np.float32)
    target = np.clip(z, activation.lower, activation.upper)
    lower, upper = response_box(target, activation)
    error = np.linalg.norm(np.clip(other, activation.lower, activation.upper) - target)
    assert error <= np.linalg.norm(other - np.clip(other, lower, upper)) * (1 + 1e-6)  # float32 norms


def test_relu6_box_is_open_at_both_saturations() -> None:
    lower, upper = response_box(np.array([[0.0, 2.5, 6.0]], np.float32), ActivationFunction.RELU6)
    np.testing.assert_array_equal(lower, [[-np.inf, 2.5, 6.0]])
    np.testing.assert_array_equal(upper, [[0.0, 2.5, np.inf]])


def test_identity_box_is_the_target() -> None:
    target = np.array([[-1.0, 0.0, 2.0]], np.float32)
    lower, upper = response_box(target, ActivationFunction.NONE)
    np.testing.assert_array_equal(lower, target)
    np.testing.assert_array_equal(upper, target)


def test_bounded_box_ends_half_lines_at_the_bound_only() -> None:
    target, bound = np.array([[0.0, 2.5, 6.0]], np.float32), np.array([[-0.5, 1.0, 7.0]], np.float32)
    lower, upper = bounded_box(target, ActivationFunction.RELU6, bound)
    np.testing.assert_array_equal(lower, [[-np.inf, 2.5, 7.0]])
    np.testing.assert_array_equal(upper, [[-0.5, 2.5, np.inf]])
