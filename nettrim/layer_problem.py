"""One layer's convex pruning problem, and the quantities that are recomputed from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nettrim.boxes import bounded_box, response_box
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction

Constraint = Literal["distance", "hard"]

SAMPLES_PER_BLOCK = 2048  # bounds the float64 copies that formulas make


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """minimise ||U||_1 subject to the response of U on X staying within ``epsilon`` of the target's.

    "distance": dist_F(U'X + b, [lower, upper]) <= epsilon.
    "hard", as published (Aghasi et al. 2017, eq. (4)): entries with two finite bounds share the ball of
    radius epsilon, the others keep their one bound exactly.
    The bias is free and never penalised.

    Attributes
    ----------
    X : Array
        (n_inputs, n_samples) float32, without a row of ones.
    W : Array
        (n_inputs, n_outputs) float32, the original weights.
    bias : Array
        (n_outputs,) float32, the original bias.
    target : Array
        (n_outputs, n_samples) float32, the response after the activation.
    lower, upper : Array
        (n_outputs, n_samples) float32, the box of wanted pre-activations (`nettrim.boxes`).
    epsilon : float
        Allowed distance, absolute, Frobenius norm.
    """

    X: Array
    W: Array
    bias: Array
    target: Array
    lower: Array
    upper: Array
    epsilon: float
    activation: ActivationFunction = ActivationFunction.NONE
    constraint: Constraint = "distance"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def target_norm(self) -> float:
        """The Frobenius norm of the target, in float64."""
        return float(np.sqrt(np.sum(np.square(self.target, dtype=np.float64))))

    @property
    def relative_epsilon(self) -> float:
        """The allowed distance as a share of ||Y||_F; 0 for a target of zeros."""
        return share(self.epsilon, self.target_norm)

    @property
    def live_inputs(self) -> Array:
        """(n_inputs,) bool: inputs that are not zero in every sample. The others need no weight."""
        live: Array = np.any(self.X != 0, axis=1)
        return live

    def with_epsilon(self, epsilon: float) -> "LayerProblem":
        """Return the same problem with another allowed distance."""
        return replace(self, epsilon=epsilon)

    def with_relative_epsilon(self, relative_epsilon: float) -> "LayerProblem":
        """Return the same problem with another allowed distance, as a share of ||Y||_F."""
        return replace(self, epsilon=relative_epsilon * self.target_norm)


def build_problem(
    X: Array,
    W: Array,
    bias: Array,
    activation: ActivationFunction,
    *,
    target: Array | None = None,
    relative_epsilon: float = 0.05,
    constraint: Constraint = "distance",
) -> LayerProblem:
    """Return the problem of a layer in the parallel or the cascade scheme.

    Parameters
    ----------
    X : Array
        (n_inputs, n_samples): the original inputs (parallel) or those of the already pruned network (cascade).
    W, bias : Array
        (n_inputs, n_outputs) and (n_outputs,), the original layer.
    activation : ActivationFunction
        The clamp after the layer.
    target : Array or None
        (n_outputs, n_samples), the original network's response: the cascade scheme gives it. None means the
        layer's own response on X: the parallel scheme.
    relative_epsilon : float
        Allowed distance as a share of ||Y||_F.
    constraint : {"distance", "hard"}
        "hard" is the published program, with V = 0 in the parallel and V = W'X in the cascade scheme.
    """
    X, W, bias = (np.ascontiguousarray(array, dtype=np.float32) for array in (X, W, bias))
    Z = W.T @ X + bias[:, np.newaxis]
    Y = np.clip(Z, activation.lower, activation.upper) if target is None else np.asarray(target, np.float32)
    cascade_hard = constraint == "hard" and target is not None
    lower, upper = bounded_box(Y, activation, Z) if cascade_hard else response_box(Y, activation)
    problem = LayerProblem(X, W, bias, Y, lower, upper, 0.0, activation, constraint)
    return problem.with_relative_epsilon(relative_epsilon)


def in_ball(problem: LayerProblem) -> Array:
    """Return (n_outputs, n_samples) bool: entries with two finite bounds; the paper's Omega for a ReLU."""
    mask: Array = np.isfinite(problem.lower) & np.isfinite(problem.upper)
    return mask


def distance(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return dist_F(W'X + bias, [lower, upper]) in float64, in either form of the constraint."""
    return float(np.sqrt(np.sum(neuron_distances(problem, W, bias) ** 2)))


def neuron_distances(problem: LayerProblem, W: Array, bias: Array) -> Array:
    """Return (n_outputs,) float64: each neuron's share of `distance`; their squares add up."""
    squares = np.zeros(len(bias))
    for excess, _ in _excess_blocks(problem, W, bias):
        squares += np.einsum("ij,ij->i", excess, excess)
    return np.sqrt(squares)


def relative_distance(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return `distance` / ||Y||_F; 0 when both are zero."""
    return share(distance(problem, W, bias), problem.target_norm)


def constraint_violation(problem: LayerProblem, W: Array, bias: Array) -> tuple[float, float]:
    """Return (distance of the ball's entries, largest excess of the others), in float64.

    In the distance form every entry is in the ball and the second number is 0.
    """
    if problem.constraint == "distance":
        return distance(problem, W, bias), 0.0
    mask = in_ball(problem)
    square, largest = 0.0, 0.0
    for excess, block in _excess_blocks(problem, W, bias):
        shared = mask[:, block]
        square += float(np.sum(excess**2, where=shared))
        largest = max(largest, float(np.max(np.abs(excess), initial=0.0, where=~shared)))
    return float(np.sqrt(square)), largest


def response_error(problem: LayerProblem, W: Array, bias: Array) -> float:
    """Return ||activation(W'X + bias) - Y||_F in float64; at most `distance` when the bounds are the clamp's."""
    square = 0.0
    for Z, block in _response_blocks(problem, W, bias):
        response = np.clip(Z, problem.activation.lower, problem.activation.upper)
        square += float(np.sum((response - problem.target[:, block]) ** 2))
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
    for start in range(0, problem.X.shape[1], SAMPLES_PER_BLOCK):
        block = slice(start, start + SAMPLES_PER_BLOCK)
        yield weights @ problem.X[:, block].astype(np.float64) + offset, block


def _excess_blocks(problem: LayerProblem, W: Array, bias: Array) -> Iterator[tuple[Array, slice]]:
    for Z, block in _response_blocks(problem, W, bias):
        yield Z - np.clip(Z, problem.lower[:, block], problem.upper[:, block]), block


def _check(problem: LayerProblem) -> None:
    n_inputs, n_samples = problem.X.shape
    n_outputs = problem.W.shape[1]
    expected = {
        "W": (n_inputs, n_outputs),
        "bias": (n_outputs,),
        "target": (n_outputs, n_samples),
        "lower": (n_outputs, n_samples),
        "upper": (n_outputs, n_samples),
    }
    for name, shape in expected.items():
        found = getattr(problem, name).shape
        if found != shape:
            raise DataError(f"layer problem: {name} has shape {found}, expected {shape} to fit X and W")
    if not 0 <= problem.epsilon < np.inf:
        raise DataError(f"layer problem: epsilon is {problem.epsilon}, expected a finite number that is not negative")
    if n_samples == 0:
        raise DataError("layer problem: X has no samples, expected at least one")
    for name in ("X", "W", "bias", "target"):
        if not np.all(np.isfinite(getattr(problem, name))):
            raise DataError(f"layer problem: {name} holds NaN or infinity, expected finite numbers")
