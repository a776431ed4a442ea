"""Small closed-form steps of the solver: soft thresholding and projections."""

import math

import numpy as np

from nettrim_runtime.graph import Array


def soft_threshold(x: Array, threshold: float, out: Array | None = None) -> Array:
    """Return sign(x) * max(|x| - threshold, 0), the proximal operator of threshold * ||.||_1.

    Parameters
    ----------
    x : Array
        Any shape, floating point.
    threshold : float
        At least zero.
    out : Array or None
        Where to write; must not be ``x``.
    """
    inside = np.clip(x, -threshold, threshold, out=out)
    return np.subtract(x, inside, out=inside)


def box_excess(z: Array, lower: Array, upper: Array, out: Array | None = None) -> Array:
    """Return z - clip(z, lower, upper): how far every entry lies outside its interval.

    Bounds may be infinite. ``out`` must not be ``z``.
    """
    inside = np.clip(z, lower, upper, out=out)
    return np.subtract(z, inside, out=inside)


def ball_excess(excess: Array, radius: float, in_ball: Array | None = None) -> Array:
    """Turn an excess over a box, in place, into the excess over the set that the ball allows.

    Parameters
    ----------
    excess : Array
        What `box_excess` returned; overwritten and returned.
    radius : float
        Frobenius norm that the entries of the ball may keep together.
    in_ball : Array or None
        1.0 for entries that share the ball, 0.0 for those that may keep nothing; None when all share it.
    """
    return drop_kept_share(excess, kept_share(shared_square(excess, in_ball), radius), in_ball)


def shared_square(excess: Array, in_ball: Array | None = None) -> float:
    """Return the sum of squares of the entries that share the ball."""
    flat = (excess if in_ball is None else excess * in_ball).reshape(-1)
    return float(np.vdot(flat, flat))


def kept_share(square: float, radius: float) -> float:
    """Return the factor that takes a norm, given squared, onto a ball: min(1, radius / norm)."""
    norm = math.sqrt(square)
    return 1.0 if norm <= radius else radius / norm


def drop_kept_share(excess: Array, kept: float, in_ball: Array | None = None) -> Array:
    """Take from an excess, in place, the share that the ball allows: times (1 - kept) for the ball's entries."""
    if in_ball is None:
        excess *= np.asarray(1.0 - kept, excess.dtype)
    else:
        excess *= 1 - np.asarray(kept, excess.dtype) * in_ball
    return excess


def project_to_ball(z: Array, lower: Array, upper: Array, radius: float, in_ball: Array | None = None) -> Array:
    """Return the point nearest to ``z`` whose distance to the box [lower, upper] is at most ``radius``.

    With ``in_ball`` only the marked entries may use the radius; the others are moved into their interval.
    """
    projected: Array = z - ball_excess(box_excess(z, lower, upper), radius, in_ball)
    return projected


def frobenius_norm(x: Array) -> float:
    """Return the square root of the sum of squares of all entries."""
    return math.sqrt(shared_square(x))
