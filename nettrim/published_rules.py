"""What the papers prove of a whole network pruned by plain Net-Trim, in the user's units."""

import math
from collections.abc import Sequence

from nettrim.errors import UsageError
from nettrim.operator_norm import ROUND_UP


def sum_rule(epsilons: Sequence[float], l1_norms: Sequence[float], solution_l1_norms: Sequence[float]) -> list[float]:
    """Return the published bound on ||Yhat_l - Y_l||_F after each layer, of plain Net-Trim in the parallel scheme.

    D_l = epsilon_l + ||W_l||_1 D_(l-1), in the user's units: with every ||W_l||_1 = 1 it is the sum of the epsilons
    (Aghasi et al. 2017). It speaks of the convex solutions only: a refit, a selection or quantisation
    voids it, and so does a solution whose own distance exceeds epsilon. Layers are dense, with ReLU or linear.

    Parameters
    ----------
    epsilons : sequence of float
        Allowed distance of each layer, Frobenius norm over all samples.
    l1_norms, solution_l1_norms : sequence of float
        Sums of absolute weights, biases apart, of the original layers and of the solutions.

    Raises
    ------
    UsageError
        When a solution's norm exceeds the original's: then it is not the program's optimum.
    """
    bounds: list[float] = []
    for layer, (epsilon, norm, found) in enumerate(zip(epsilons, l1_norms, solution_l1_norms, strict=True)):
        if found > norm * ROUND_UP:
            raise UsageError(
                f"sum rule: layer {layer} has an l1 norm of {found:g} after and {norm:g} before pruning, expected no "
                "more than before: use the weights of the convex program itself"
            )
        bounds.append(epsilon + norm * (bounds[-1] if bounds else 0.0))
    return bounds


def product_rule(first_epsilon: float, gammas: Sequence[float], l1_norms: Sequence[float]) -> list[float]:
    """Return the published bound on ||Yhat_l - Y_l||_F after each layer, of plain Net-Trim in the cascade scheme.

    D_1 = epsilon_1 and D_l = sqrt(gamma_l) ||W_l||_1 D_(l-1), where layer l was solved on the pruned inputs at
    epsilon_l^2 = gamma_l times what its original weights miss there, squared (Aghasi et al. 2017). It
    holds for both forms of the constraint, and for the convex solutions only, as `sum_rule`.

    Parameters
    ----------
    first_epsilon : float
        Allowed distance of the first layer, whose inputs are the original ones.
    gammas, l1_norms : sequence of float
        Slack and sum of absolute original weights, biases apart, of each later layer.
    """
    bounds = [first_epsilon]
    for gamma, norm in zip(gammas, l1_norms, strict=True):
        bounds.append(math.sqrt(gamma) * norm * bounds[-1])
    return bounds
