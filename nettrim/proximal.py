"""Proximal operators in closed form, for NumPy arrays and for those of other array libraries."""

from typing import Any

from array_api_compat import array_namespace, device

Tensor = Any  # an array of NumPy or of another library


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """Return sign(x) * max(|x| - threshold, 0), the proximal operator of threshold * ||.||_1.

    Parameters
    ----------
    x : Tensor
        Any shape, floating point.
    threshold : Tensor
        Not negative; to be broadcast to the shape of ``x``, of its library and type.
    """
    xp = array_namespace(x)
    # not clip: NumPy's is half as fast when the bounds are arrays
    return x - xp.minimum(xp.maximum(x, -threshold), threshold)


def group_scale(norms: Tensor, threshold: Tensor) -> Tensor:
    """Return max(1 - threshold / norm, 0), by which the proximal operator of threshold * ||.||_2 multiplies a group.

    Parameters
    ----------
    norms : Tensor
        The groups' 2-norms; groups of norm 0 may get any number between 0 and 1.
    threshold : Tensor
        As in `soft_threshold`.
    """
    xp = array_namespace(norms)
    tiny = xp.asarray(xp.finfo(norms.dtype).tiny, dtype=norms.dtype, device=device(norms))
    # x / x is 1 exactly, so that a group within the threshold is 0 exactly
    return 1 - threshold / xp.maximum(xp.maximum(norms, threshold), tiny)
