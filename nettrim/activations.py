"""Activation functions as the solver sees them: what they do, their Lipschitz constant, the box of a response."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from scipy.special import expit, ndtr

from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction

WEIGHT_FLOOR = 0.05  # smallest weight of an entry, as a share of the steepest slope
TAIL_REACH, TAIL_STEPS = 64.0, 1 << 17  # where a tail's end is looked for: tanh(64) is 1.0 in float64
GRID_SLACK = 1e-6  # of a tail's height: more than an extremum between two steps adds
GELU_TANH_SCALE, GELU_TANH_CUBE = math.sqrt(2 / math.pi), 0.044715  # Hendrycks and Gimpel 2016, section 2


@dataclass(frozen=True)
class Activation:
    """One activation function sigma, and where it is taken for flat.

    From ``flat_below`` down and from ``flat_above`` up sigma moves by at most ``tail_height``. A pre-activation
    z0 inside has itself as its box, one in a tail has the whole tail. So, for dist = ||Z - box||_F,

        ||sigma(Z) - sigma(Z0)||_F <= lipschitz * dist + ||heights(Z0)||_F.

    Attributes
    ----------
    name : str
        As in files and tables.
    lipschitz : float
        |sigma(a) - sigma(b)| <= lipschitz * |a - b|: the largest |slope|, rounded up.
    apply : callable
        Array of any shape -> sigma of every entry.
    slope : callable
        Array -> the derivative at every entry; at a corner that of either side.
    flat_below, flat_above : float
        Ends of the two tails, float32 numbers; infinite where there is none.
    tail_height : float
        By how much two values of one tail differ at most; 0 for clamps, whose tails are exactly flat.
    is_monotone : bool
        Whether sigma never falls: then the largest response belongs to the largest pre-activation.
    """

    name: str
    lipschitz: float
    apply: Callable[[Array], Array] = field(repr=False)
    slope: Callable[[Array], Array] = field(repr=False)
    flat_below: float = -math.inf
    flat_above: float = math.inf
    tail_height: float = 0.0
    is_monotone: bool = True

    def box(self, z0: Array) -> tuple[Array, Array]:
        """Return (lower, upper), float32: the pre-activations that count as having the response sigma(z0).

        Parameters
        ----------
        z0 : Array
            The original network's pre-activations; `clamp` makes functions that take the response as well.
        """
        z = np.asarray(z0).astype(np.float32, copy=False)
        low, high = z <= self.flat_below, z >= self.flat_above
        ends = np.clip(z, np.float32(self.flat_below), np.float32(self.flat_above))
        return np.where(low, np.float32(-np.inf), ends), np.where(high, np.float32(np.inf), ends)

    def heights(self, z0: Array) -> Array:
        """Return by how much the response may move inside the box of z0: `tail_height` in a tail, else 0."""
        in_tail = (z0 <= self.flat_below) | (z0 >= self.flat_above)
        return np.where(in_tail, self.tail_height, 0.0)

    def response_bound(self, z0: Array, distance: float) -> float:
        """Return what ||sigma(Z) - sigma(Z0)||_F is at most when Z lies within ``distance`` of the box of Z0."""
        return self.lipschitz * distance + float(np.linalg.norm(self.heights(z0)))


def clamp(name: str, floor: float, ceiling: float) -> Activation:
    """Return min(max(z, floor), ceiling): identity, ReLU, ReLU6, hard tanh; the ends may be infinite."""
    low, high = np.float32(floor), np.float32(ceiling)  # exact in both widths, so that the box holds the response
    return Activation(name, 1.0, lambda z: np.clip(z, low, high), np.ones_like, float(low), float(high))


def leaky_relu(slope: float = 0.01) -> Activation:
    """Return z above 0 and slope * z below."""

    def derivative(z: Array) -> Array:
        return np.where(z >= 0, 1.0, slope).astype(z.dtype)

    steepest = max(1.0, abs(slope))
    return Activation(
        "leaky_relu", steepest, lambda z: np.where(z >= 0, z, slope * z), derivative, is_monotone=slope >= 0
    )


def with_tails(activation: Activation, tail_height: float) -> Activation:
    """Return the activation with its saturated tails taken for flat: half-lines, at a cost of the response.

    Parameters
    ----------
    tail_height : float
        By how much the response may move inside a tail; `Activation.response_bound` adds it up.

    Raises
    ------
    DataError
        When it is negative or so large that the two tails meet.
    """
    below = _tail_end(activation.apply, -1, tail_height)
    above = _tail_end(activation.apply, 1, tail_height)
    flat_below, flat_above = max(below, activation.flat_below), min(above, activation.flat_above)
    if not (0 <= tail_height < math.inf and flat_below < flat_above):
        raise DataError(
            f"tail_height is {tail_height} for {activation.name}, expected a number from 0 to less than what makes "
            "the tails meet: half of the range of a sigmoid or tanh"
        )
    return replace(activation, flat_below=flat_below, flat_above=flat_above, tail_height=tail_height)


def slope_weights(activation: Activation, z0: Array, floor: float = WEIGHT_FLOOR) -> Array:
    """Return weights of the distance: each entry's local |slope|, at least ``floor`` of the steepest one.

    For `LayerProblem.distance_weights`. An error costs little where the function is flat at z0, so more weights
    go; but far from z0 the function may be steep, so this carries NO a-priori guarantee: a tanh that goes from
    3 to 0 errs by 0.995 at a weighted distance of 0.03. Measure the response error afterwards.

    Parameters
    ----------
    z0 : Array
        (n_outputs, n_samples), the original pre-activations. In a tail the slope at the tail's end counts:
        that is where leaving the box begins to cost.

    Returns
    -------
    Array
        float32, positive, of the shape of z0.
    """
    ends = np.clip(z0, activation.flat_below, activation.flat_above)
    weights: Array = np.maximum(np.abs(activation.slope(ends)), floor * activation.lipschitz)
    return weights.astype(np.float32)


def fused_activation(function: ActivationFunction) -> Activation:
    """Return the activation that an operator of the graph has fused."""
    return clamp(function.value, function.lower, function.upper)


def _tail_end(apply: Callable[[Array], Array], side: int, height: float) -> float:
    """Return where, coming from side * infinity, the values so far first spread over more than ``height``.

    A float32 number; infinite without a tail: where sigma still moves at side * TAIL_REACH.
    """
    grid = side * np.linspace(TAIL_REACH, -TAIL_REACH, TAIL_STEPS)
    values = apply(grid)
    limit = np.round(values[0])  # of a tail: 0 or +-1 to far below float64's resolution
    highest, lowest = (fold.accumulate(np.append(limit, values)) for fold in (np.maximum, np.minimum))
    outside = np.append(highest - lowest, np.inf)[1:] > height * (1 - GRID_SLACK)
    first = int(np.argmax(outside))
    if first == 0 or abs(values[1] - limit) > 1e-12 or first == TAIL_STEPS:
        return side * math.inf
    flat, steep = grid[first - 1], grid[first]
    for _ in range(60):  # halves the step until it has no width in float64
        middle = (flat + steep) / 2
        value = apply(np.array(middle))
        spread = max(highest[first], value) - min(lowest[first], value)
        flat, steep = (flat, middle) if spread > height * (1 - GRID_SLACK) else (middle, steep)
    end = np.float32(flat)
    return float(end if side * end >= side * flat else np.nextafter(end, np.float32(side * np.inf)))


def _hard_sigmoid(z: Array) -> Array:
    ramp: Array = np.clip(z + 3, 0, 6) / 6
    return ramp


def _hard_swish(z: Array) -> Array:
    swish: Array = z * _hard_sigmoid(z)
    return swish


def _hard_swish_slope(z: Array) -> Array:
    return np.where(z < -3, 0.0, np.where(z > 3, 1.0, (2 * z + 3) / 6))


def _sigmoid_slope(z: Array) -> Array:
    slope: Array = expit(z) * expit(-z)
    return slope


def _tanh_slope(z: Array) -> Array:
    slope: Array = 1 - np.tanh(z) ** 2
    return slope


def _gelu(z: Array) -> Array:
    value: Array = z * ndtr(z)
    return value


def _gelu_slope(z: Array) -> Array:
    slope: Array = ndtr(z) + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return slope


def _gelu_tanh_gate(z: Array) -> Array:
    gate: Array = expit(2 * GELU_TANH_SCALE * (z + GELU_TANH_CUBE * z**3))  # (1 + tanh(u)) / 2 = expit(2 u)
    return gate


def _gelu_tanh(z: Array) -> Array:
    value: Array = z * _gelu_tanh_gate(z)
    return value


def _gelu_tanh_slope(z: Array) -> Array:
    gate = _gelu_tanh_gate(z)
    slope: Array = gate + z * gate * (1 - gate) * 2 * GELU_TANH_SCALE * (1 + 3 * GELU_TANH_CUBE * z**2)
    return slope


def _silu(z: Array) -> Array:
    value: Array = z * expit(z)
    return value


def _silu_slope(z: Array) -> Array:
    slope: Array = expit(z) + z * _sigmoid_slope(z)
    return slope


IDENTITY = clamp("identity", -math.inf, math.inf)
RELU = clamp("relu", 0.0, math.inf)
RELU6 = clamp("relu6", 0.0, 6.0)
HARD_TANH = clamp("hard_tanh", -1.0, 1.0)
HARD_SIGMOID = Activation(
    "hard_sigmoid", 0.16666667, _hard_sigmoid, lambda z: np.full_like(z, 1 / 6), flat_below=-3.0, flat_above=3.0
)
LEAKY_RELU = leaky_relu()
SIGMOID = Activation("sigmoid", 0.25, expit, _sigmoid_slope)
TANH = Activation("tanh", 1.0, np.tanh, _tanh_slope)
HARD_SWISH = Activation("hard_swish", 1.5, _hard_swish, _hard_swish_slope, flat_below=-3.0, is_monotone=False)
GELU = Activation("gelu", 1.1289042, _gelu, _gelu_slope, is_monotone=False)  # at z = sqrt(2)
GELU_TANH = Activation("gelu_tanh", 1.1289931, _gelu_tanh, _gelu_tanh_slope, is_monotone=False)  # at z = 1.4185
SILU = Activation("silu", 1.0998394, _silu, _silu_slope, is_monotone=False)  # at z = 2.3994

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        activation.name: activation
        for activation in (
            IDENTITY,
            RELU,
            RELU6,
            HARD_TANH,
            HARD_SIGMOID,
            LEAKY_RELU,
            SIGMOID,
            TANH,
            HARD_SWISH,
            GELU,
            GELU_TANH,
            SILU,
        )
    }
)
