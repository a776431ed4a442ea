"""One iteration of the solver on some neurons, and what their certificate needs, in the Python array API.

Rows are neurons. Arrays may be NumPy's or torch's; vectors with one number a neuron are NumPy's, in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from nettrim.backend import Backend
from nettrim.structure import Structure
from nettrim_runtime.graph import Array

Tensor = Any  # an array of the backend's library
CHUNK_ENTRIES = 65_536  # of one array; some six of them are worked on at a time
NEWTON_STEPS = 30  # at most, to the multiplier of a weighted ball
BY_ROW = ("index", "group", "W", "S", "D2", "Q", "D1", "lower", "upper", "ball", "weights", "point", "rho")


@dataclass(eq=False)
class Rows:
    """The iterates of some neurons, overwritten in place.

    Attributes
    ----------
    structure : Structure
        The penalty of these neurons.
    index : Array
        (n_rows,) int: which neurons of the `PreparedLayer` these are.
    W, S, D2 : Tensor
        (n_rows, n_inputs + 1) float32: the two copies of the weights, bias last, and the scaled dual of their split.
    Q, D1 : Tensor
        (n_rows, n_samples) float32: the response W A and the scaled dual of its split.
    lower, upper : Tensor
        (n_rows, n_samples) float32: the box.
    ball : Tensor or None
        (n_rows, n_samples) float32, 1.0 where an entry shares the ball; None when all do.
    weights : Tensor or None
        (n_rows, n_samples) float32, of the distance.
    point : Tensor
        (n_rows, n_samples) bool: where the box is one point, and a dual variable may have either sign.
    rho : Array
        (n_rows,) the penalty.
    group : Array
        (n_rows,) int, rising: which group of the layer's inputs each neuron reads.
    A, C_inverse : tuple of Tensor
        By group, (n_inputs + 1, n_samples) and (n_inputs + 1, n_inputs + 1) float32.
    """

    backend: Backend
    structure: Structure
    A: tuple[Tensor, ...]
    C_inverse: tuple[Tensor, ...]
    index: Array
    group: Array
    W: Tensor
    S: Tensor
    D2: Tensor
    Q: Tensor
    D1: Tensor
    lower: Tensor
    upper: Tensor
    ball: Tensor | None
    weights: Tensor | None
    point: Tensor
    rho: Array

    def part(self, rows: slice) -> "Rows":
        """Return views of some rows."""
        return self._with(lambda values: values[rows], rows)

    def chunks(self) -> "list[Rows]":
        """Return parts so small that what is done to every entry stays in a core's cache."""
        if self.backend.threads_itself:
            return [self]
        size = max(1, CHUNK_ENTRIES // self.Q.shape[1])
        return [self.part(slice(start, start + size)) for start in range(0, len(self.index), size)]

    def take(self, positions: Array) -> "Rows":
        """Return copies of some rows."""
        on_device = self.backend.load(positions)
        return self._with(lambda values: values[positions if isinstance(values, np.ndarray) else on_device], positions)

    def put(self, rows: "Rows") -> None:
        """Overwrite the iterates of the neurons in ``rows``; these rows are all, in order."""
        at = self.backend.load(rows.index)
        for name in ("W", "S", "D2", "Q", "D1"):
            getattr(self, name)[at] = getattr(rows, name)
        self.rho[rows.index] = rows.rho

    @property
    def bias_input(self) -> Tensor:
        """What the bias is multiplied by, the same in all samples and groups."""
        return self.A[0][-1, 0]

    def respond(self, W: Tensor, out: Tensor | None = None) -> Tensor:
        """Return W A, (n_rows, n_samples), each row with its group's inputs; W may lack the bias."""
        out = self.backend.xp.empty_like(self.Q) if out is None else out
        for group, here in self._by_group():
            self.backend.xp.matmul(W[here], self.A[group][: W.shape[1]], out=out[here])
        return out

    def correlate(self, responses: Tensor) -> Tensor:
        """Return responses A', (n_rows, n_inputs + 1), each row with its group's inputs."""
        return self._join([(self.A[group] @ responses[here].T).T for group, here in self._by_group()])  # R @ A.T: slow

    def solve(self, right: Tensor) -> Tensor:
        """Return right C^-1, (n_rows, n_inputs + 1), each row with its group's matrix."""
        return self._join([right[here] @ self.C_inverse[group] for group, here in self._by_group()])

    def _by_group(self) -> list[tuple[int, slice]]:
        """Return the groups that have rows, and their rows."""
        if len(self.A) == 1:
            return [(0, slice(None))]
        edges = [0, *(np.flatnonzero(np.diff(self.group)) + 1).tolist(), len(self.group)]
        return [(int(self.group[start]), slice(start, stop)) for start, stop in pairwise(edges) if start < stop]

    def _join(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else self.backend.xp.concat(parts, axis=0)

    def column(self, numbers: Array) -> Tensor:
        """Return one number a row as a (n_rows, 1) float32 tensor."""
        return self.backend.load(np.asarray(numbers, np.float32)[:, np.newaxis])

    def sums(self, first: Tensor, second: Tensor) -> Array:
        """Return (n_rows,) sums of products."""
        return self.backend.read(self.backend.xp.vecdot(first, second)).astype(np.float64)

    def _with(self, choose: Callable[[Tensor], Tensor], outputs: Array | slice) -> "Rows":
        present = {name: getattr(self, name) for name in BY_ROW}
        chosen = {name: choose(values) for name, values in present.items() if values is not None}
        return replace(self, structure=self.structure.restrict(None, outputs), **chosen)


def excess_squares(rows: Rows) -> Array:
    """Return (n_rows,) squared norms of the ball's part of the excess of Q - D1 over the box."""
    return np.concatenate([_shared_squares(part, projection_excess(part)[1]) for part in rows.chunks()])


def find_multiplier(squares: Array, radius: Array, weighted: Callable[[Array], tuple[Array, Array]] | None) -> Array:
    """Return the multiplier mu that takes an excess onto its ball: e -> e / (1 + mu w^2) has the norm ``radius``.

    Parameters
    ----------
    squares, radius : Array
        (n_balls,): squared norms of the excess, and what they may be.
    weighted : callable or None
        With weights w: mu -> squared norm, and its derivative, of w e / (1 + mu w^2). Without: closed form.
    """
    norms = np.sqrt(squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        if weighted is None:
            return np.where(norms > radius, norms / radius - 1.0, 0.0)
        mu = np.zeros_like(norms)
        for _ in range(NEWTON_STEPS):
            square, slope = weighted(mu)
            norm = np.sqrt(square)
            # Newton on 1 / norm, nearly linear in mu, as for a trust region
            step = np.where(norm > radius, 2 * square * (norm - radius) / (-slope * radius), 0.0)
            mu = np.where(np.isfinite(step), mu + step, np.inf)
            if not np.any(step > 1e-7 * mu):  # float32 sums
                break
    return mu


def weighted_sums(rows: Rows, E: Tensor, mu: Array) -> tuple[Array, Array]:
    """Return (n_rows,) squared norms of w E / (1 + mu w^2) over the ball, and their derivatives by mu."""
    weights: Tensor = rows.weights
    squared = weights * weights
    shrunk = 1.0 + rows.column(mu) * squared
    part = weights * E / shrunk
    if rows.ball is not None:
        part *= rows.ball
    return rows.sums(part, part), -2.0 * rows.sums(part * part, squared / shrunk)


def own_multiplier(rows: Rows, E: Tensor, radius: Array) -> Array:
    """Return the multiplier of each neuron's own ball for the excess E; the radii of all neurons, (n,)."""
    weighted = None if rows.weights is None else partial(weighted_sums, rows, E)
    return find_multiplier(_shared_squares(rows, E), radius[rows.index], weighted)


def advance(rows: Rows, multiplier: Callable[[Rows, Tensor], Array], alpha: float, count: int) -> Array:
    """Iterate ``count`` times in place.

    Z <- projection(Q - D1), S <- prox(W - D2), both relaxed by alpha, then in increments
    W <- W + C^-1 (A (Z + D1 - Q)' + S + D2 - W): the right side tends to zero, so float32 suffices.
    With E the excess of Q - D1 over the constraint set, the relaxed Z + D1 - Q is (1 - alpha) D1 - alpha E.
    What is done to every entry of the response is done chunk by chunk; between iterations D1 holds D1 + Q_new.

    Parameters
    ----------
    multiplier : callable
        (some of the rows, their excess over the box) -> the multipliers of their balls, (n,) or (1,).

    Returns
    -------
    Array
        (4, n_rows): squared norms of the last iteration's primal residual, change, copies and duals.
    """
    Q, D1, W, D2, xp = rows.Q, rows.D1, rows.W, rows.D2, rows.backend.xp
    moved = xp.empty_like(Q)  # Z + D1 - Q
    for done in range(count):
        is_last = done == count - 1
        if is_last:
            before = Q + 0.0, (D1 - Q if done else D1 + 0.0)
        _shrink_weights(rows)
        start = 0
        for part in rows.chunks():
            here = slice(start, start := start + len(part.index))
            if done:
                part.D1 -= part.Q
            E = projection_excess(part)[1]
            E = drop_kept(part, E, multiplier(part, E), alpha)
            part.D1 *= 1.0 - alpha
            xp.subtract(part.D1, E, out=moved[here])
            xp.add(moved[here], part.Q, out=part.D1)
        D2 += alpha * (rows.S - W)
        step = rows.solve(rows.correlate(moved) + D2)
        W += step
        D2[:, :-1] -= step[:, :-1]
        rows.respond(W, out=Q)
    D1 -= Q
    return _residuals(rows, *before, step)


def drop_kept(rows: Rows, E: Tensor, mu: Array, factor: float = 1.0) -> Tensor:
    """Return an excess less the share that the ball keeps, 1 / (1 + mu w^2), times ``factor``; E is used up."""
    if rows.weights is not None:
        kept = 1.0 / (1.0 + rows.column(mu) * rows.weights * rows.weights)
        E -= (E if rows.ball is None else E * rows.ball) * kept
        E *= factor
        return E
    with np.errstate(invalid="ignore"):
        dropped = np.where(np.isinf(mu), 1.0, mu / (1.0 + mu))
    if rows.ball is None:
        E *= rows.column(factor * dropped)
        return E
    E *= factor
    E -= E * rows.ball * rows.column(1.0 - dropped)
    return E


def projection_excess(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return Q - D1, clipped into the box, and its excess over the box."""
    xp, T = rows.backend.xp, rows.Q - rows.D1
    inside = xp.minimum(xp.maximum(T, rows.lower), rows.upper)  # NumPy's clip takes four times as long
    T -= inside
    return inside, T


def _shrink_weights(rows: Rows) -> None:
    V = rows.W - rows.D2
    threshold = rows.backend.load((1.0 / rows.rho).astype(np.float32))
    rows.S[:, :-1] = rows.structure.shrink(V[:, :-1].T, threshold).T
    rows.S[:, -1] = rows.W[:, -1]  # the bias has no second copy, and its column of D2 stays zero


def _shared_squares(rows: Rows, E: Tensor) -> Array:
    shared = E if rows.ball is None else E * rows.ball
    if rows.weights is not None:
        shared = shared * rows.weights
    return rows.sums(shared, shared)


def _residuals(rows: Rows, Q: Tensor, D1: Tensor, step: Tensor) -> Array:
    """Return what `advance` measures; Q and D1 are those before the step. Relaxed, the primal residual moves D1."""

    def square(x: Tensor) -> Array:
        return rows.sums(x, x)

    copies, duals = square(rows.Q) + square(rows.W), square(rows.D1) + square(rows.D2)
    primal = square(rows.D1 - D1) + square(rows.S - rows.W)
    return np.stack([primal, square(rows.Q - Q) + square(step), copies, duals])
