"""Boxes of pre-activations: which values of W'x give the wanted response of a layer."""

import numpy as np

from nettrim_runtime.graph import Array
from nettrim_runtime.ops import ActivationFunction


def response_box(target: Array, activation: ActivationFunction) -> tuple[Array, Array]:
    """Return the preimage of a response under a clamp, entry by entry, as [lower, upper].

    A value strictly between the clamp's ends has itself as preimage; one at an end has the half-line beyond it.
    The clamps are 1-Lipschitz, so ||activation(z) - target|| is at most the distance of z to this box.

    Parameters
    ----------
    target : Array
        (n_outputs, n_samples), the response after the activation.
    activation : ActivationFunction
        The clamp that made it.

    Returns
    -------
    lower, upper : Array
        float32, the shape of ``target``; infinite where the half-line is open.
    """
    floor, ceiling = np.float32(activation.lower), np.float32(activation.upper)
    y = np.clip(target, floor, ceiling).astype(np.float32, copy=False)
    lower = np.where(y <= floor, np.float32(-np.inf), y)
    upper = np.where(y >= ceiling, np.float32(np.inf), y)
    return lower, upper


def bounded_box(target: Array, activation: ActivationFunction, bound: Array) -> tuple[Array, Array]:
    """Return `response_box` with the open half-lines ending at ``bound`` instead of the clamp's end.

    Aghasi et al. 2020, the cascade scheme: outside Omega the constraint is u'x <= v with V = W'X on the
    pruned inputs, so that the original weights stay feasible.

    Parameters
    ----------
    target, bound : Array
        (n_outputs, n_samples): the response, and V.
    activation : ActivationFunction
        The clamp of the layer.
    """
    lower, upper = response_box(target, activation)
    v = bound.astype(np.float32, copy=False)
    return np.where(np.isinf(upper), v, lower), np.where(np.isinf(lower), v, upper)
