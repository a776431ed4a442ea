"""A layer's problem comes from its place in the networks; the groups of a convolution are solved together."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.admm import solve
from nettrim.frontier import Frontier
from nettrim.layer_plan import LayerPlan, Network, layer_problem
from nettrim.layer_problem import Ball, Constraint, LayerProblem, distance, l1_norm, neuron_distances
from nettrim.layer_rows import draw_positions
from nettrim.layer_solution import SolverStatus
from nettrim.layer_targets import find_target, plain_target
from nettrim.reference import solve_with_cvxpy
from nettrim.refit import RefitSettings, fit_on_support
from nettrim.structure import L1Norm
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Padding
from tests.graphs import NONE, RELU, GraphBuilder, random_inputs


def _residual_net(rng: np.random.Generator) -> Graph:
    builder = GraphBuilder(rng, (6, 6, 4))
    shortcut = builder.conv(4, (1, 1), RELU)
    builder.conv(4, (3, 3), NONE, groups=2, padding=Padding(1, 1, 1, 1))
    builder.add(shortcut, RELU)
    builder.max_pool()
    builder.flatten()
    builder.dense(3)
    return builder.build()


def _disturbed(graph: Graph, rng: np.random.Generator, number: int) -> Graph:
    """Return the graph with other weights in one layer."""
    weight = graph.tensors[graph.layers[number].weight]
    noise = 0.1 * rng.normal(size=weight.shape).astype(np.float32)
    return graph.with_tensors((replace(weight, data=weight.values() + noise),))


def _network(graph: Graph, samples: Array) -> Network:
    return Network(graph, Frontier(graph, samples, 1 << 20))


def test_distance_bounds_the_error_behind_add_clamp_and_pooling(rng: np.random.Generator) -> None:
    for _ in range(5):
        graph = _residual_net(rng)
        samples = random_inputs(graph, rng, 12)
        layer = graph.layers[1]
        target = find_target(graph, layer, [graph.layers[2].name])
        positions = draw_positions(graph, layer, 12, 10_000, rng, pool=target.pool)  # every pixel of every image
        before = _disturbed(graph, rng, 0)  # as a cascade has it: the layers before are pruned already
        plan = LayerPlan(layer, target, positions)
        problem = layer_problem(_network(graph, samples), _network(before, samples), plan, "distance")
        after = _disturbed(before, rng, 1)
        bound = distance(problem, after.tensors[layer.weight].values().reshape(4, -1).T, problem.bias)
        responses = [_network(net, samples).value(target.tensor) for net in (graph, after)]
        error = np.linalg.norm(responses[1] - responses[0])
        assert 0 < error <= bound * (1 + 1e-5)  # float32 convolutions
        np.testing.assert_allclose(
            problem.target_norm, np.linalg.norm(responses[0]), rtol=1e-5
        )  # the pooled response's


def test_original_weights_on_original_inputs_have_no_distance(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    network = _network(graph, random_inputs(graph, rng, 20))
    for number, layer in enumerate(graph.layers):
        later = [other.name for other in graph.layers[number + 1 :]]
        for target in (plain_target(layer), find_target(graph, layer, later)):
            positions = draw_positions(graph, layer, 20, 200, rng, pool=target.pool)
            problem = layer_problem(network, network, LayerPlan(layer, target, positions), "distance")
            assert distance(problem, problem.W, problem.bias) <= 1e-5 * problem.target_norm  # float32


@pytest.mark.parametrize("ball", ["joint", "neuron"])
@pytest.mark.parametrize("constraint", ["distance", "hard"])
def test_groups_solved_together_agree_with_cvxpy_on_all_inputs_with_other_groups_at_zero(
    rng: np.random.Generator, ball: Ball, constraint: Constraint
) -> None:
    problem = _grouped_problem(rng, constraint).with_relative_epsilon(0.2, ball)
    n_groups, n_inputs, n_samples = problem.X.shape
    whole = np.zeros((n_groups, n_inputs, 4), np.float32)
    for number, (_, neurons) in enumerate(problem.groups):
        whole[number, :, neurons] = problem.W[:, neurons]
    W = whole.reshape(-1, 4)
    own = np.where(W != 0, np.float32(np.inf), np.float32(0))
    stacked = replace(problem, X=problem.X.reshape(-1, n_samples), W=W, structure=L1Norm(lower=-own, upper=own))
    expected = solve_with_cvxpy(stacked, "CLARABEL")
    found = solve(problem)
    assert found.status is SolverStatus.SOLVED
    assert found.relative_gap is not None
    assert 0 <= found.relative_gap <= 1e-3
    np.testing.assert_allclose(l1_norm(found.W), l1_norm(expected.W), rtol=1.5e-3)
    assert found.distance <= problem.total_epsilon * (1 + 1e-6)


def test_with_one_ball_a_neuron_each_group_has_the_solution_it_has_alone(rng: np.random.Generator) -> None:
    problem = _grouped_problem(rng, "distance").with_relative_epsilon(0.2, "neuron")
    problem.X[0, 2] = 0  # an input that is dead in one group only
    whole = solve(problem)
    refitted, bias = fit_on_support(problem, whole.W, whole.bias, whole.W != 0, RefitSettings())
    for X, neurons in problem.groups:
        alone = replace(
            problem,
            X=X,
            W=problem.W[:, neurons],
            bias=problem.bias[neurons],
            target=problem.target[neurons],
            lower=problem.lower[neurons],
            upper=problem.upper[neurons],
            epsilon=np.asarray(problem.epsilon)[neurons],
        )
        np.testing.assert_allclose(l1_norm(whole.W[:, neurons]), l1_norm(solve(alone).W), rtol=2e-3)
        expected, _ = fit_on_support(
            alone, whole.W[:, neurons], whole.bias[neurons], whole.W[:, neurons] != 0, RefitSettings()
        )
        np.testing.assert_allclose(refitted[:, neurons], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            neuron_distances(problem, refitted, bias)[neurons],
            neuron_distances(alone, refitted[:, neurons], bias[neurons]),
        )
    assert not np.any(whole.W[2, problem.groups[0].neurons])


def _grouped_problem(rng: np.random.Generator, constraint: Constraint) -> LayerProblem:
    graph = _residual_net(rng)
    network, layer = _network(graph, random_inputs(graph, rng, 20)), graph.layers[1]
    plan = LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, 20, 100, rng))
    return layer_problem(network, network, plan, constraint)
