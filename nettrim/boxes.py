"""Boxes of pre-activations: which values of W'x give the wanted response of a layer and what follows it."""

import numpy as np

from nettrim.activations import Activation
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array


def bounded_box(z0: Array, activation: Activation, bound: Array) -> tuple[Array, Array]:
    """Return the activation's box with the open half-lines ending at ``bound`` instead of the clamp's end.

    Aghasi et al. 2020, the cascade scheme: outside Omega the constraint is u'x <= v with V = W'X on the
    pruned inputs, so that the original weights stay feasible.

    Parameters
    ----------
    z0, bound : Array
        (n_outputs, n_samples): the original pre-activations (or, for a clamp, responses), and V.
    activation : Activation
        The layer's.
    """
    lower, upper = activation.box(z0)
    v = bound.astype(np.float32, copy=False)
    return np.where(np.isinf(upper), v, lower), np.where(np.isinf(lower), v, upper)


def pool_box(z0: Array, activation: Activation, window: int) -> tuple[Array, Array]:
    """Return the box of a layer whose activation is max-pooled over windows that do not overlap.

    The winner of a window keeps the activation's box, every other entry only has to stay below its upper end.
    Max-pooling such windows is 1-Lipschitz in the Euclidean norm, so the pooled response errs by at most
    lipschitz times the distance to this box (plus the winners' tail heights).

    Parameters
    ----------
    z0 : Array
        (n_outputs, n_windows * window): the original pre-activations, the entries of a window side by side;
        for a clamp the response will do.
    activation : Activation
        Applied before the pooling, or after: a function that never falls commutes with it.
    window : int
        Entries in a window.

    Raises
    ------
    DataError
        When the activation is not monotone: then the largest response may belong to a smaller entry.
    """
    if not activation.is_monotone:
        raise DataError(f"{activation.name} before max-pooling: expected an activation that never falls")
    lower, upper = activation.box(z0)
    wins = window_winners(z0, window)
    ceiling = np.max(upper.reshape(len(z0), -1, window), axis=2, keepdims=True)
    ceiling = np.broadcast_to(ceiling, (*ceiling.shape[:2], window)).reshape(z0.shape)
    return np.where(wins, lower, np.float32(-np.inf)), ceiling


def window_winners(z0: Array, window: int) -> Array:
    """Return (n_outputs, n_windows * window) bool: the first largest entry of each window of neighbours."""
    windows = z0.reshape(len(z0), -1, window)
    wins = np.zeros(windows.shape, bool)
    np.put_along_axis(wins, windows.argmax(axis=2)[..., np.newaxis], values=True, axis=2)
    return wins.reshape(z0.shape)


def shifted_box(lower: Array, upper: Array, shift: Array) -> tuple[Array, Array]:
    """Return the box of W'x for sigma(W'x + shift), from the box of the sum.

    Float32: each finite end is rounded to the nearest, half a unit in the last place of the sum's magnitude.

    Parameters
    ----------
    lower, upper, shift : Array
        (n_outputs, n_samples): the sum's box, and the other summand as the network being pruned computes it.
    """
    return lower - shift, upper - shift
