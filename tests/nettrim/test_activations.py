"""Lipschitz constants are exact, boxes hold their own response, and a distance bounds the response error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nettrim.activations import (
    ACTIVATIONS,
    GELU,
    HARD_SIGMOID,
    HARD_SWISH,
    RELU,
    SIGMOID,
    SILU,
    TANH,
    Activation,
    clamp,
    fused_activation,
    leaky_relu,
    slope_weights,
    with_tails,
)
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction

SATURATING = (SIGMOID, TANH, HARD_SWISH, GELU, ACTIVATIONS["gelu_tanh"], SILU)
WITH_TAILS = (
    *ACTIVATIONS.values(),
    clamp("clip at 0.1", 0.0, 0.1),
    leaky_relu(-2.0),
    *(with_tails(activation, height) for activation in SATURATING for height in (1e-3, 0.05, 0.4)),
)
GRID = np.linspace(-12, 12, 200_001)

pre_activations = arrays(np.float32, (2, 8), elements=st.floats(-1e3, 1e3, width=32) | st.floats(-8, 8, width=32))


def _excess(activation: Activation, z: Array, z0: Array) -> Array:
    lower, upper = activation.box(z0)
    assert lower.dtype == upper.dtype == np.float32
    outside: Array = z - np.clip(z.astype(np.float64), lower, upper)
    return outside


@given(z=pre_activations)
def test_response_error_is_at_most_lipschitz_times_the_distance_plus_the_heights(z: Array) -> None:
    z0, other = z
    for activation in WITH_TAILS:
        error = activation.apply(other.astype(np.float64)) - activation.apply(z0.astype(np.float64))
        distance = _excess(activation, other, z0)
        bound = activation.lipschitz * np.abs(distance) + activation.heights(z0)
        assert np.all(np.abs(error) <= bound * (1 + 1e-12) + 1e-12)  # float64 sums of numbers up to 2000
        whole = activation.response_bound(z0, float(np.linalg.norm(distance)))
        assert np.linalg.norm(error) <= whole * (1 + 1e-12) + 1e-12


@given(z=pre_activations)
def test_a_pre_activation_lies_in_its_own_box(z: Array) -> None:
    for activation in WITH_TAILS:
        assert not _excess(activation, z, z).any()


@pytest.mark.parametrize("activation", WITH_TAILS, ids=lambda a: f"{a.name} {a.tail_height}")
def test_values_inside_a_tail_differ_by_at_most_its_height(activation: Activation) -> None:
    z = GRID.astype(np.float32)
    for tail in (z <= activation.flat_below, z >= activation.flat_above):
        values = activation.apply(z[tail].astype(np.float64))
        if values.size:
            assert np.ptp(values) <= activation.tail_height


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lipschitz_constant_is_the_steepest_slope_rounded_up(name: str) -> None:
    activation = ACTIVATIONS[name]
    steepest = np.abs(np.diff(activation.apply(GRID)) / np.diff(GRID)).max()
    assert steepest <= activation.lipschitz * (1 + 1e-10)  # differences of float64
    assert activation.lipschitz <= steepest * 1.0001  # the grid misses hard swish's corner by one step


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative(name: str) -> None:
    activation = ACTIVATIONS[name]
    z = np.clip(GRID[::997], activation.flat_below, activation.flat_above)
    inside = (z - 1e-6 > activation.flat_below) & (z + 1e-6 < activation.flat_above) & (np.abs(np.abs(z) - 3) > 1e-3)
    z = z[inside & (np.abs(z) > 1e-3)]  # away from corners
    central = (activation.apply(z + 1e-6) - activation.apply(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(activation.slope(z), central, atol=1e-8)  # rounding over the step


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_only_activations_that_never_fall_say_so(name: str) -> None:
    activation = ACTIVATIONS[name]
    assert activation.is_monotone == bool(np.all(np.diff(activation.apply(GRID)) >= -1e-15))


def test_known_values() -> None:
    z = np.array([-4.0, -1.0, 0.0, 1.0, 4.0])
    expected = {
        "hard_sigmoid": [0, 1 / 3, 0.5, 2 / 3, 1],
        "hard_tanh": [-1, -1, 0, 1, 1],
        "hard_swish": [0, -1 / 3, 0, 2 / 3, 4],
        "leaky_relu": [-0.04, -0.01, 0, 1, 4],
        "sigmoid": 1 / (1 + np.exp(-z)),
        "silu": z / (1 + np.exp(-z)),
        "gelu": [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in z],
        "gelu_tanh": z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(ACTIVATIONS[name].apply(z), values, atol=1e-14)  # float64


@pytest.mark.parametrize("activation", SATURATING, ids=lambda a: a.name)
def test_tails_become_half_lines_at_the_cost_of_their_height(activation: Activation) -> None:
    tailed = with_tails(activation, 0.01)
    z0 = np.array([-40.0, 0.5, 40.0], np.float32)
    lower, upper = tailed.box(z0)
    assert lower[0] == -np.inf
    rise = 0.01 if activation.is_monotone else -0.01  # hard swish, gelu and silu dip below zero first
    response = activation.apply(np.array(upper[0], np.float64)) - activation.apply(np.array(-40.0))
    assert response == pytest.approx(rise, abs=1e-6)  # float32 end of the tail
    assert (lower[1], upper[1]) == (0.5, 0.5)
    assert np.isinf(upper[2]) == (activation in {SIGMOID, TANH})
    np.testing.assert_array_equal(tailed.heights(z0), np.where(np.isinf(lower) | np.isinf(upper), 0.01, 0))


def test_hard_swish_is_exactly_flat_below_minus_3_and_costs_nothing_there() -> None:
    lower, upper = HARD_SWISH.box(np.array([-5.0], np.float32))
    assert (lower[0], upper[0]) == (-np.inf, -3.0)
    assert HARD_SWISH.response_bound(np.array([-5.0]), 0.0) == 0.0


@pytest.mark.parametrize("activation", [SIGMOID, TANH, SILU, GELU], ids=lambda a: a.name)
def test_without_a_tail_height_a_curved_activation_keeps_its_pre_activation(activation: Activation) -> None:
    z0 = np.array([-30.0, 0.0, 7.0], np.float32)
    lower, upper = activation.box(z0)
    np.testing.assert_array_equal(lower, z0)
    np.testing.assert_array_equal(upper, z0)


@pytest.mark.parametrize(("activation", "height"), [(SIGMOID, 0.51), (TANH, 1.01), (SIGMOID, -0.1), (TANH, math.inf)])
def test_tails_that_meet_or_have_a_negative_height_are_refused(activation: Activation, height: float) -> None:
    with pytest.raises(DataError, match="tail_height"):
        with_tails(activation, height)


@pytest.mark.parametrize("function", ActivationFunction)
def test_a_clamp_has_the_same_box_from_its_response(function: ActivationFunction) -> None:
    z0 = np.random.default_rng(3).normal(scale=5, size=50).astype(np.float32)
    activation = fused_activation(function)
    for given_z0, from_response in zip(activation.box(z0), activation.box(activation.apply(z0)), strict=True):
        np.testing.assert_array_equal(given_z0, from_response)


@given(z=pre_activations)
def test_slope_weights_are_positive_and_1_where_a_relu_can_err(z: Array) -> None:
    for activation in WITH_TAILS:
        weights = slope_weights(activation, z)
        assert weights.dtype == np.float32
        assert np.all((weights > 0) & (weights <= activation.lipschitz * (1 + 1e-6)))  # float32
    np.testing.assert_array_equal(slope_weights(RELU, z), np.ones_like(z))


def test_slope_weights_give_no_guarantee() -> None:
    weight = slope_weights(TANH, np.array([3.0]), floor=0.0)[0]
    assert weight * 3.0 < 0.031
    assert abs(np.tanh(0.0) - np.tanh(3.0)) > 0.995


def test_float32_goes_in_and_comes_out() -> None:
    z = np.linspace(-4, 4, 9, dtype=np.float32)
    for name, activation in ACTIVATIONS.items():
        assert activation.apply(z).dtype == np.float32, name
    assert HARD_SIGMOID.slope(z).dtype == np.float32
