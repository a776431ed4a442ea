"""What the solver's stop rests on: a feasible point and a dual bound made from the iterates, neuron by neuron.

The figures that a solution reports are computed again from the problem, in float64, by `nettrim.duality`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nettrim.admm_rows import Rows, Tensor, drop_kept, projection_excess
from nettrim.duality import DualSums, finite_sums
from nettrim_runtime.graph import Array

UNBOUNDED = 1e30  # a bound that no response reaches
OFFSET_ROUNDING = 1e-6  # of a bias: what float32 sums may leave


@dataclass(eq=False)
class Candidate:
    """The sparse copy of some rows, its response without bias, and the scale and bias that make it feasible.

    Attributes
    ----------
    R : Tensor
        (n_rows, n_samples) float32, the response of the weights S.
    offset : Array
        (n_rows,) the bias as it adds to the response.
    """

    R: Tensor
    offset: Array


def sparse_candidate(rows: Rows) -> Candidate:
    """Return the sparse copy as a candidate."""
    offset = rows.backend.read(rows.S[:, -1] * rows.bias_input).astype(np.float64)
    return Candidate(rows.respond(rows.S[:, :-1]), offset)


@dataclass(eq=False)
class Scaled:
    """A candidate at some scale.

    Attributes
    ----------
    squares, slopes : Array
        (n_rows,) squared distance, and its derivative by the scale.
    offset : Array
        (n_rows,) the bias that goes with it.
    missing : Array
        (n_rows,) how much more scale the one-sided entries ask for, where no bias satisfies all of them; 0 elsewhere.
    """

    squares: Array
    slopes: Array
    offset: Array
    missing: Array


def scaled(rows: Rows, candidate: Candidate, scale: Array) -> Scaled:
    """Return a candidate at ``scale`` times its weights and bias.

    To first order this costs as much of the l1 norm as the best way to move the distance; one-sided entries at 0
    stay on their side. In the hard form the bias then moves as far as they still need.
    """
    found, start = [], 0
    for part in rows.chunks():
        here = slice(start, start := start + len(part.index))
        found.append(_scaled_chunk(part, Candidate(candidate.R[here], candidate.offset[here]), scale[here]))
    return join_scaled(found)


def join_scaled(found: list[Scaled]) -> Scaled:
    """Return what was found for slices of rows as one."""
    names = ("squares", "slopes", "offset", "missing")
    return Scaled(*(np.concatenate([getattr(one, name) for one in found]) for name in names))


def _scaled_chunk(rows: Rows, candidate: Candidate, scale: Array) -> Scaled:
    Z = candidate.R * rows.column(scale)
    offset, missing = candidate.offset * scale, np.zeros(len(scale))
    if rows.ball is not None:
        offset, missing = _shifted_offset(rows, candidate.R, Z, offset)
    Z += rows.column(offset)
    xp = rows.backend.xp
    E = Z - xp.minimum(xp.maximum(Z, rows.lower), rows.upper)
    if rows.ball is not None:
        E *= rows.ball
    weighted = E if rows.weights is None else E * rows.weights
    slope = E if rows.weights is None else weighted * rows.weights
    slopes = 2.0 * rows.sums(slope, Z) / scale
    return Scaled(rows.sums(weighted, weighted), slopes, offset, missing)


def _shifted_offset(rows: Rows, R: Tensor, Z: Tensor, offset: Array) -> tuple[Array, Array]:
    """Return the offset nearest to the one given that keeps every one-sided entry, and the scale that is missing."""
    xp, read = rows.backend.xp, rows.backend.read
    ball: Tensor = rows.ball
    shared = ball * UNBOUNDED  # a choice entry by entry takes thirty times as long
    most = read(xp.min(rows.upper - Z + shared, axis=1)).astype(np.float64)
    least = read(xp.max(rows.lower - Z - shared, axis=1)).astype(np.float64)
    rounding = OFFSET_ROUNDING * np.maximum(np.abs(offset), np.where(most < UNBOUNDED / 2, np.abs(most), 0.0))
    # Entries that must lie low and entries that must lie high move apart when the weights grow.
    gap = np.where(least > most - rounding, least - most + 2 * rounding, 0.0)
    moved = np.maximum(np.minimum(offset, most - rounding), least)
    if not np.any(gap > 0):
        return moved, gap
    spread = read(xp.max(R, axis=1) - xp.min(R, axis=1)).astype(np.float64)
    return moved, np.where(gap > 0, gap / np.maximum(spread, np.finfo(np.float32).tiny), 0.0)


def dual_sums(rows: Rows, multiplier: Callable[[Rows, Tensor], Array], radius: Array | None) -> tuple[DualSums, Tensor]:
    """Return the sums of a dual point's bound, and the point: minus what the iteration would clip, without mean.

    Parameters
    ----------
    multiplier : callable
        As of `nettrim.admm_rows.advance`.
    radius : Array or None
        (n_rows,) of one ball a neuron.
    """
    nu = rows.backend.xp.empty_like(rows.Q)
    values, norms, start = [], [], 0
    for part in rows.chunks():
        inside, excess = projection_excess(part)
        chunk = _centred(part, drop_kept(part, excess, multiplier(part, excess), -1.0))
        shared = chunk if part.ball is None else chunk * part.ball
        if part.weights is not None:
            shared = shared / part.weights
        values.append(part.sums(chunk, inside))
        norms.append(np.sqrt(part.sums(shared, shared)))
        nu[start : (start := start + len(part.index))] = chunk
    value, norm, correlation = np.concatenate(values), np.concatenate(norms), rows.correlate(nu)[:, :-1].T
    if rows.structure.is_cone:
        gauge = rows.backend.read(rows.structure.gauge(correlation)).astype(np.float64)
        return DualSums(value, norm, gauge), nu
    whole = rows.backend.read(correlation).astype(np.float64)
    return finite_sums(rows.structure, value, norm, whole, radius), nu


def _centred(rows: Rows, nu: Tensor) -> Tensor:
    """Return a dual point whose rows sum to zero, as the bias asks for.

    The entries whose box is one point are shifted, or where there is none the positive or the negative ones are
    scaled down.
    """
    xp = rows.backend.xp
    count = rows.backend.read(xp.sum(rows.point, axis=1, dtype=xp.float32)).astype(np.float64)
    total = rows.backend.read(xp.sum(nu, axis=1)).astype(np.float64)
    if np.any(count > 0):
        nu -= rows.column(np.where(count > 0, total / np.maximum(count, 1.0), 0.0)) * rows.point
    if np.any(count == 0):
        grow, fall = _balance(rows, nu, count == 0)
        nu = xp.where(nu > 0, nu * rows.column(grow), nu * rows.column(fall))
    return nu


def _balance(rows: Rows, nu: Tensor, needed: Array) -> tuple[Array, Array]:
    """Return the factors of positive and negative entries that make their sums cancel; 1 where not needed."""
    xp = rows.backend.xp
    positive = nu.clip(0.0, None)
    up = rows.backend.read(xp.sum(positive, axis=1)).astype(np.float64)
    down = rows.backend.read(xp.sum(positive - nu, axis=1)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        grow = np.where(up > 0, np.minimum(1.0, down / up), 0.0)
        fall = np.where(down > 0, np.minimum(1.0, up / down), 0.0)
    return np.where(needed, grow, 1.0), np.where(needed, fall, 1.0)
