"""The papers' network bounds on real solves of random ReLU networks: none may ever violate its own."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.activations import IDENTITY, RELU, Activation
from nettrim.admm import solve
from nettrim.errors import UsageError
from nettrim.layer_problem import Constraint, LayerProblem, build_problem, constraint_violation, l1_norm
from nettrim.layer_solution import LayerSolution
from nettrim.published_rules import product_rule, sum_rule

Array = npt.NDArray[Any]
Layer = tuple[Array, Array, Activation]

GAMMA = 1.1
TOLERANCE = 1e-5  # float32 weights and responses, a few layers deep

networks = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([0.2, 1.0, 5.0]))
few_examples = settings(max_examples=20, deadline=None, derandomize=True)
pytestmark = pytest.mark.slow  # real solves

both_forms = pytest.mark.parametrize("constraint", ["distance", "hard"])


def random_network(seed: int, size: float) -> tuple[Array, list[Layer]]:
    """Return inputs (7, 40) and layers 7-6-5-3 whose weights have about the given l1 norm a neuron."""
    rng = np.random.default_rng(seed)
    layers = []
    for n_inputs, n_outputs, activation in ((7, 6, RELU), (6, 5, RELU), (5, 3, IDENTITY)):
        W = (size * rng.normal(size=(n_inputs, n_outputs)) / n_inputs).astype(np.float32)
        layers.append((W, (0.1 * size * rng.normal(size=n_outputs)).astype(np.float32), activation))
    return rng.normal(size=(7, 40)).astype(np.float32), layers


def response(layer: Layer, X: Array) -> Array:
    W, bias, activation = layer
    return activation.apply(W.T.astype(np.float64) @ X + bias[:, np.newaxis])


def pruned(layer: Layer, problem: LayerProblem) -> tuple[Layer, LayerSolution]:
    solution = solve(problem)
    assert solution.is_feasible
    return (solution.W, solution.bias, layer[2]), solution


def assert_no_violation(deviations: list[float], bounds: list[float], scales: list[float]) -> None:
    for deviation, bound, scale in zip(deviations, bounds, scales, strict=True):
        assert deviation <= bound + TOLERANCE * scale


@both_forms
@few_examples
@given(network=networks)
def test_no_network_violates_the_sum_rule(constraint: Constraint, network: tuple[int, float, float]) -> None:
    seed, relative_epsilon, size = network
    X, layers = random_network(seed, size)
    Y, Yhat = X.astype(np.float64), X.astype(np.float64)
    deviations, scales, epsilons, norms, solution_norms = [], [], [], [], []
    for layer in layers:
        problem = build_problem(Y, *layer, relative_epsilon=relative_epsilon, constraint=constraint)
        smaller, solution = pruned(layer, problem)
        Y, Yhat = response(layer, Y), response(smaller, Yhat)
        deviations.append(float(np.linalg.norm(Yhat - Y)))
        scales.append(float(np.linalg.norm(Y)))
        epsilons.append(float(solution.epsilon))
        norms.append(l1_norm(layer[0]))
        solution_norms.append(l1_norm(solution.W))
    assert_no_violation(deviations, sum_rule(epsilons, norms, solution_norms), scales)


@both_forms
@few_examples
@given(network=networks)
def test_no_network_violates_the_product_rule(constraint: Constraint, network: tuple[int, float, float]) -> None:
    seed, relative_epsilon, size = network
    X, layers = random_network(seed, size)
    first, problem = layers[0], build_problem(X, *layers[0], relative_epsilon=relative_epsilon, constraint=constraint)
    smaller, solution = pruned(first, problem)
    Y, Yhat = response(first, X), response(smaller, X)
    deviations, scales = [float(np.linalg.norm(Yhat - Y))], [float(np.linalg.norm(Y))]
    for layer in layers[1:]:
        W, bias, _ = layer
        wanted = W.T.astype(np.float64) @ Y + bias[:, np.newaxis]
        problem = build_problem(Yhat, *layer, target=wanted, constraint=constraint)
        missed = float(np.linalg.norm(constraint_violation(problem, W, bias)[0]))
        smaller, _ = pruned(layer, problem.with_epsilon(np.sqrt(GAMMA) * missed))
        Y, Yhat = response(layer, Y), response(smaller, Yhat)
        deviations.append(float(np.linalg.norm(Yhat - Y)))
        scales.append(float(np.linalg.norm(Y)))
    later = [l1_norm(W) for W, _, _ in layers[1:]]
    assert_no_violation(deviations, product_rule(float(solution.epsilon), [GAMMA] * len(later), later), scales)


def test_in_normalised_layers_the_rules_are_the_papers_sum_and_product() -> None:
    assert sum_rule([0.1, 0.2, 0.3], [1, 1, 1], [0.5, 0.9, 1]) == pytest.approx([0.1, 0.3, 0.6])
    assert product_rule(0.1, [1.1, 1.1], [1, 1]) == pytest.approx([0.1, 0.1 * 1.1**0.5, 0.11])


def test_a_solution_larger_than_the_original_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="layer 1 has an l1 norm of 3 after and 2 before pruning"):
        sum_rule([0.1, 0.1], [1, 2], [1, 3])
