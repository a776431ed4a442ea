"""Prune a layer under a constraint of one's own: a sensor's offset must not change the answer.

    python examples/side_constraints/balanced_weights.py

A camera's dark level drifts with its temperature: every pixel of an image moves by the same amount. A neuron does not
notice when its weights sum to zero, for then w'(x + d 1) = w'x whatever d is. That is one linear equation a neuron,
and Net-Trim's program stays convex with it:

    minimise ||U||_1   subject to   dist(U'X + b, boxes of the original response) <= epsilon,   1'U = 0

No closed form is needed to try such an idea. `nettrim.reference.solve_with_cvxpy` builds the layer's program for CVXPY
and adds whatever a function of (U, bias) returns: sums, symmetric filters (U[i] == U[j]), bounds, a total budget. It
takes seconds where `nettrim.admm.solve` takes milliseconds, so it is for small layers and for trying things out; sign
and bound constraints, groups and N:M patterns have their own fast route in `nettrim.structure`. Constraints that no
weights can keep come back as the status "infeasible", not as an exception.

The script trains a network of one hidden layer on scikit-learn's handwritten digits, prunes the hidden layer freely and
with the constraint, and counts how many test digits each version reads right, as they are and with an offset of three
grey levels of sixteen. Pixels that are black in every image cost no accuracy, so the balanced neurons use some of them
to measure the offset. Takes a few seconds; needs cvxpy, clarabel and scikit-learn.
"""

import warnings
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from nettrim.activations import RELU
from nettrim.layer_problem import LayerProblem, build_problem
from nettrim.layer_solution import LayerSolution
from nettrim.reference import Constraints, solve_with_cvxpy

Array = npt.NDArray[Any]

HIDDEN, EPOCHS = 24, 60
N_TRAIN, N_CALIBRATION = 1300, 250
RELATIVE_EPSILON = 0.1
OFFSET = 3 / 16  # of the pixels' range


def balanced(U: Any, bias: Any) -> list[Any]:  # noqa: ARG001  # every constraint gets both
    """Return the constraint that each neuron's weights sum to zero; U is (n_inputs, n_outputs)."""
    return [cp.sum(U, axis=0) == 0]


def train(x: Array, y: Array) -> MLPClassifier:
    """Return a 64-24-10 network; x is (n_samples, 64) in 0..1."""
    network = MLPClassifier((HIDDEN,), max_iter=EPOCHS, learning_rate_init=5e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough before the last epoch
        return network.fit(x, y)


def hidden_layer(network: MLPClassifier, x: Array) -> LayerProblem:
    """Return the pruning problem of the hidden layer on inputs x (n_samples, 64)."""
    return build_problem(
        x.T, network.coefs_[0], network.intercepts_[0], RELU, relative_epsilon=RELATIVE_EPSILON, ball="neuron"
    )


def share_right(network: MLPClassifier, layer: tuple[Array, Array], x: Array, y: Array) -> float:
    """Return the share of digits read right with other weights and biases in the hidden layer."""
    hidden = np.maximum(x @ layer[0] + layer[1], 0)
    classes = np.argmax(hidden @ network.coefs_[1] + network.intercepts_[1], axis=1)
    return float(np.mean(classes == y))


def main() -> None:
    """Train, prune twice, and say what the constraint costs and brings."""
    digits = load_digits()
    x, y = digits.data / 16, digits.target
    network = train(x[:N_TRAIN], y[:N_TRAIN])
    problem = hidden_layer(network, x[:N_CALIBRATION])
    layers: dict[str, tuple[Array, Array]] = {"original": (network.coefs_[0], network.intercepts_[0])}
    own: dict[str, Constraints | None] = {"pruned": None, "pruned, balanced": balanced}
    for name, constraints in own.items():
        solution: LayerSolution = solve_with_cvxpy(problem, constraints=constraints)
        layers[name] = (solution.W, solution.bias)
        print(f"{name}: {solution.status.value}, distance {solution.relative_distance:.3f} of the response")
    print(f"\n{'hidden layer':<18}{'weights':>9}{'largest sum':>13}{'digits right':>14}{'with offset':>13}")
    test_x, test_y = x[N_TRAIN:], y[N_TRAIN:]
    for name, (weights, bias) in layers.items():
        plain, moved = (share_right(network, (weights, bias), images, test_y) for images in (test_x, test_x + OFFSET))
        largest = np.max(np.abs(weights.sum(axis=0)))
        print(f"{name:<18}{np.count_nonzero(weights):>9}{largest:>13.4f}{plain:>13.1%}{moved:>13.1%}")


if __name__ == "__main__":
    main()
