"""One layer's convex pruning problem, and the quantities that are recomputed from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal, NamedTuple, get_args

import numpy as np

from nettrim.activations import IDENTITY, Activation
from nettrim.boxes import bounded_box
from nettrim.structure import L1, Structure
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array

Constraint = Literal["distance", "hard"]
Ball = Literal["joint", "neuron"]

GROUPED = 3  # dimensions of a grouped convolution's X
SAMPLES_PER_BLOCK = 2048  # bounds the float64 copies that formulas make


class Group(NamedTuple):
    """A part of a layer: X (n_inputs, n_samples), and the neurons that read it."""

    X: Array
    neurons: slice


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """minimise the penalty of U subject to the response of U on X staying within ``epsilon`` of the target's.

    "distance": dist_F(U'X + b, [lower, upper]) <= epsilon.
    "hard", as published (Aghasi et al. 2017, eq. (4)): entries with two finite bounds share the ball of
    radius epsilon, the others keep their one bound exactly.
    The penalty is ||U||_1 unless ``structure`` says otherwise. The bias is free and never penalised.

    Attributes
    ----------
    X : Array
        (n_inputs, n_samples) float32, without a row of ones; (n_groups, n_inputs, n_samples) of a grouped
        convolution, whose outputs divide evenly among the groups, in order.
    W : Array
        (n_inputs, n_outputs) float32, the original weights.
    bias : Array
        (n_outputs,) float32, the original bias.
    target : Array
        (n_outputs, n_samples) float32, the response after the activation.
    lower, upper : Array
        (n_outputs, n_samples) float32, the box of wanted pre-activations (`nettrim.boxes`).
    epsilon : float or Array
        Allowed distance, absolute: a number is the Frobenius norm over all neurons (one joint ball), an array
        (n_outputs,) the Euclidean norm of each neuron (one ball a neuron).
    distance_weights : Array or None
        (n_outputs, n_samples) float32, positive: the distance is that of weighted excesses. Carries no a-priori
        guarantee for the response.
    structure : Structure
        What is penalised.
    """

    X: Array
    W: Array
    bias: Array
    target: Array
    lower: Array
    upper: Array
    epsilon: float | Array
    activation: Activation = IDENTITY
    constraint: Constraint = "distance"
    distance_weights: Array | None = None
    structure: Structure = L1

    def __post_init__(self) -> None:
        _check(self)

    @property
    def target_norm(self) -> float:
        """The Frobenius norm of the target, in float64."""
        return float(np.sqrt(np.sum(np.square(self.target, dtype=np.float64))))

    @property
    def is_joint(self) -> bool:
        """Whether all neurons share one ball."""
        return np.ndim(self.epsilon) == 0

    @property
    def total_epsilon(self) -> float:
        """The allowed distance of all neurons together: the balls' radii, in the Euclidean norm."""
        return float(np.linalg.norm(self.epsilon))

    @property
    def relative_epsilon(self) -> float:
        """The allowed distance of all neurons together as a share of ||Y||_F; 0 for a target of zeros."""
        return share(self.total_epsilon, self.target_norm)

    @property
    def n_samples(self) -> int:
        """Columns of X: samples, or patches of a convolution."""
        return int(self.X.shape[-1])

    @property
    def groups(self) -> tuple["Group", ...]:
        """Each group's inputs and the neurons that read them; one of everything for a layer that is not grouped."""
        by_group = self.X if self.X.ndim == GROUPED else self.X[np.newaxis]
        size = self.W.shape[1] // len(by_group)
        return tuple(Group(X, slice(size * number, size * (number + 1))) for number, X in enumerate(by_group))

    @property
    def input_rms(self) -> Array:
        """(n_inputs, n_outputs) float64: the root mean square of each weight's input."""
        sizes = np.empty(self.W.shape)
        for X, neurons in self.groups:
            sizes[:, neurons] = np.sqrt(np.mean(np.square(X, dtype=np.float64), axis=1))[:, np.newaxis]
        return sizes

    @property
    def live_weights(self) -> Array:
        """(n_inputs, n_outputs) bool: weights of inputs that are not zero in every sample. Others are not needed."""
        live = np.empty(self.W.shape, bool)
        for X, neurons in self.groups:
            live[:, neurons] = np.any(X != 0, axis=1)[:, np.newaxis]
        return live

    @property
    def live_inputs(self) -> Array:
        """(n_inputs,) bool: inputs that are not zero in every sample, of any group."""
        live: Array = np.any(self.live_weights, axis=1)
        return live

    def with_epsilon(self, epsilon: float | Array) -> "LayerProblem":
        """Return the same problem with another allowed distance."""
        return replace(self, epsilon=epsilon)

    def with_relative_epsilon(self, relative_epsilon: float, ball: Ball | None = None) -> "LayerProblem":
        """Return the same problem with another allowed distance: a share of ||Y||_F or of each neuron's ||y||.

        Parameters
        ----------
        ball : {"joint", "neuron"} or None
            None means the one that the problem has.
        """
        if ball == "joint" or (ball is None and self.is_joint):
            return replace(self, epsilon=relative_epsilon * self.target_norm)
        norms = np.sqrt(np.sum(np.square(self.target, dtype=np.float64), axis=1))
        return replace(self, epsilon=relative_epsilon * norms)


def build_problem(
    X: Array,
    W: Array,
    bias: Array,
    activation: Activation,
    *,
    target: Array | None = None,
    relative_epsilon: float = 0.05,
    constraint: Constraint = "distance",
    ball: Ball = "joint",
    structure: Structure = L1,
) -> LayerProblem:
    """Return the problem of a layer in the parallel or the cascade scheme.

    Parameters
    ----------
    X : Array
        (n_inputs, n_samples) or (n_groups, n_inputs, n_samples): the original inputs (parallel) or those of the
        already pruned network (cascade).
    W, bias : Array
        (n_inputs, n_outputs) and (n_outputs,), the original layer.
    activation : Activation
        What follows the layer.
    target : Array or None
        (n_outputs, n_samples), the original network's pre-activations or, for a clamp, its response: the
        cascade scheme gives it. None means the layer's own on X: the parallel scheme.
    relative_epsilon : float
        Allowed distance as a share of ||Y||_F, or with one ball a neuron of each neuron's ||y||.
    constraint : {"distance", "hard"}
        "hard" is the published program, with V = 0 in the parallel and V = W'X in the cascade scheme.
    ball : {"joint", "neuron"}
        Whether all neurons share the allowed distance, or each has its own.
    structure : Structure
        What is penalised.
    """
    X, W, bias = (_own_floats(name, array) for name, array in (("X", X), ("W", W), ("bias", bias)))
    _check_layer(X, W, bias)
    if not isinstance(activation, Activation):
        raise DataError(
            f"layer problem: activation is {activation!r}, expected one of nettrim.activations, as RELU or IDENTITY"
        )
    if not (np.ndim(relative_epsilon) == 0 and isinstance(relative_epsilon, Real) and 0 <= relative_epsilon < np.inf):
        raise DataError(f"layer problem: relative_epsilon is {relative_epsilon!r}, expected a share of 0 or more")
    if ball not in get_args(Ball):
        raise DataError(f"layer problem: ball is {ball!r}, expected one of {', '.join(get_args(Ball))}")
    by_group = X if X.ndim == GROUPED else X[np.newaxis]
    Z = np.matmul(W.T.reshape(len(by_group), -1, len(W)), by_group).reshape(len(bias), -1) + bias[:, np.newaxis]
    z0 = Z if target is None else np.asarray(target, np.float32)
    cascade_hard = constraint == "hard" and target is not None
    lower, upper = bounded_box(z0, activation, Z) if cascade_hard else activation.box(z0)
    Y = activation.apply(z0)
    problem = LayerProblem(X, W, bias, Y, lower, upper, 0.0, activation, constraint, structure=structure)
    return problem.with_relative_epsilon(relative_epsilon, ball)


def in_ball(problem: LayerProblem) -> Array:
    """Return (n_outputs, n_samples) bool: entries with two finite bounds; the paper's Omega for a ReLU."""
    mask: Array = np.isfinite(problem.lower) & np.isfinite(problem.upper)
    return mask


def distance(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return dist_F(W'X + bias, [lower, upper]) in float64, in either form of the constraint."""
    return float(np.sqrt(np.sum(neuron_distances(problem, W, bias) ** 2)))


def neuron_distances(problem: LayerProblem, W: Array, bias: Array) -> Array:
    """Return (n_outputs,) float64: each neuron's share of `distance`; their squares add up."""
    return constraint_violation(problem, W, bias).distances


def relative_distance(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return `distance` / ||Y||_F; 0 when both are zero."""
    return share(distance(problem, W, bias), problem.target_norm)


class Violation(NamedTuple):
    """How far some weights leave the box, neuron by neuron, in float64.

    Attributes
    ----------
    ball : Array
        (n_outputs,) distance of the entries that share the ball: all of them in the distance form.
    one_sided : Array
        (n_outputs,) largest excess of the others.
    distances : Array
        (n_outputs,) distance of all entries: each neuron's share of `distance`.
    """

    ball: Array
    one_sided: Array
    distances: Array


def constraint_violation(problem: LayerProblem, W: Array, bias: Array) -> Violation:
    """Return how far W'X + bias leaves the box, with the weights of the distance if there are any."""
    squares, ball, one_sided = np.zeros((3, len(bias)))
    for excess, block in _excess_blocks(problem, W, bias):
        squares += np.vecdot(excess, excess)
        if problem.constraint == "hard":
            shared = excess * (np.isfinite(problem.lower[:, block]) & np.isfinite(problem.upper[:, block]))
            ball += np.vecdot(shared, shared)
            one_sided = np.maximum(one_sided, np.max(np.abs(excess - shared), axis=1, initial=0.0))
    distances = np.sqrt(squares)
    return Violation(np.sqrt(ball) if problem.constraint == "hard" else distances, one_sided, distances)


def response_error(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return ||activation(W'X + bias) - Y||_F in float64; at most lipschitz * `distance`."""
    square = 0.0
    for Z, block in _response_blocks(problem, W, bias):
        square += float(np.sum((problem.activation.apply(Z) - problem.target[:, block]) ** 2))
    return float(np.sqrt(square))


def gram_matrix(A: Array) -> Array:
    """Return A A' in float64, block by block over the columns."""
    gram = np.zeros((len(A), len(A)))
    for start in range(0, A.shape[1], SAMPLES_PER_BLOCK):
        block = A[:, start : start + SAMPLES_PER_BLOCK].astype(np.float64)
        gram += block @ block.T
    return gram


def share(part: float, whole: float) -> float:
    """Return part / whole; 0 when both are zero, infinity when only the whole is."""
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else float("inf")


def l1_norm(W: Array) -> float:
    """Return the sum of absolute values, in float64."""
    return float(np.sum(np.abs(W), dtype=np.float64))


def _response_blocks(problem: LayerProblem, W: Array, bias: Array) -> Iterator[tuple[Array, slice]]:
    weights, offset = W.T.astype(np.float64), bias.astype(np.float64)[:, np.newaxis]
    for start in range(0, problem.n_samples, SAMPLES_PER_BLOCK):
        block = slice(start, start + SAMPLES_PER_BLOCK)
        Z = [weights[neurons] @ X[:, block].astype(np.float64) for X, neurons in problem.groups]
        yield (Z[0] if len(Z) == 1 else np.concatenate(Z)) + offset, block


def _excess_blocks(problem: LayerProblem, W: Array, bias: Array) -> Iterator[tuple[Array, slice]]:
    weights = problem.distance_weights
    for Z, block in _response_blocks(problem, W, bias):
        excess = Z - np.minimum(np.maximum(Z, problem.lower[:, block]), problem.upper[:, block])
        yield excess if weights is None else excess * weights[:, block], block


def _own_floats(name: str, array: Array) -> Array:
    """Return an argument as float32 in one piece."""
    found = np.asarray(array)
    if found.dtype.kind not in "biuf":
        raise DataError(f"layer problem: {name} holds {found.dtype}, expected real numbers")
    return np.ascontiguousarray(found, dtype=np.float32)


def _check_layer(X: Array, W: Array, bias: Array) -> None:
    """Refuse inputs, weights and biases that do not belong together."""
    for name, array, shapes in (("X", X, (2, GROUPED)), ("W", W, (2,)), ("bias", bias, (1,))):
        if array.ndim not in shapes:
            layout = {"X": "(n_inputs, n_samples) or (n_groups, n_inputs, n_samples)", "W": "(n_inputs, n_outputs)"}
            raise DataError(
                f"layer problem: {name} has shape {array.shape}, expected {layout.get(name, '(n_outputs,)')}"
            )
    n_inputs, n_outputs, n_groups = X.shape[-2], W.shape[1], len(X) if X.ndim == GROUPED else 1
    if len(W) != n_inputs:
        raise DataError(
            f"layer problem: W has shape {W.shape}, expected {n_inputs} rows, one for each of X's inputs: transpose "
            "weights that lie (n_outputs, n_inputs), and samples that lie (n_samples, n_inputs)"
        )
    if bias.shape != (n_outputs,):
        raise DataError(
            f"layer problem: bias has shape {bias.shape}, expected ({n_outputs},), one for each column of W"
        )
    if n_groups == 0 or n_outputs % n_groups:
        raise DataError(f"layer problem: X has {n_groups} groups, expected a divisor of W's {n_outputs} outputs")


def _check(problem: LayerProblem) -> None:
    for name in ("X", "W", "bias", "target", "lower", "upper"):
        if not isinstance(getattr(problem, name), np.ndarray):
            found = type(getattr(problem, name)).__name__
            raise DataError(f"layer problem: {name} is of type {found}, expected a NumPy array; build_problem converts")
    if problem.constraint not in get_args(Constraint):
        raise DataError(
            f"layer problem: constraint is {problem.constraint!r}, expected one of {', '.join(get_args(Constraint))}"
        )
    if not isinstance(problem.structure, Structure):
        raise DataError(
            f"layer problem: structure is {problem.structure!r}, expected one of nettrim.structure, as L1Norm() or "
            "Groups(block_shape=(1, 4)); n:m patterns are solved by nettrim.structured_search.solve_n_of_m"
        )
    _check_layer(problem.X, problem.W, problem.bias)
    n_outputs, n_samples = problem.W.shape[1], problem.n_samples
    expected = {
        "target": (n_outputs, n_samples),
        "lower": (n_outputs, n_samples),
        "upper": (n_outputs, n_samples),
    }
    if problem.distance_weights is not None:
        expected["distance_weights"] = (n_outputs, n_samples)
    for name, shape in expected.items():
        found = getattr(problem, name).shape
        if found != shape:
            raise DataError(f"layer problem: {name} has shape {found}, expected {shape} to fit X and W")
    if not problem.is_joint and np.shape(problem.epsilon) != (n_outputs,):
        raise DataError(f"layer problem: epsilon has shape {np.shape(problem.epsilon)}, expected () or ({n_outputs},)")
    if not np.all((np.asarray(problem.epsilon) >= 0) & np.isfinite(problem.epsilon)):
        raise DataError(f"layer problem: epsilon is {problem.epsilon}, expected finite numbers that are not negative")
    if problem.distance_weights is not None and not np.all(problem.distance_weights > 0):
        raise DataError("layer problem: distance_weights are not all positive, expected positive numbers")
    problem.structure.check(problem.W.shape)
    if n_samples == 0:
        raise DataError("layer problem: X has no samples, expected at least one")
    for name in ("X", "W", "bias", "target"):
        if not np.all(np.isfinite(getattr(problem, name))):
            raise DataError(f"layer problem: {name} holds NaN or infinity, expected finite numbers")
    if not np.all(problem.lower <= problem.upper):
        raise DataError("layer problem: the box has NaN or lower > upper, expected lower <= upper in every entry")
