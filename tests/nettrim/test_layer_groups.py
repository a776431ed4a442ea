"""A layer's problems come from its place in the networks; groups are solved apart and put together again."""

from dataclasses import replace

import numpy as np

from nettrim.frontier import Frontier
from nettrim.layer_groups import LayerPlan, Network, layer_problems, merge_solutions
from nettrim.layer_problem import distance
from nettrim.layer_rows import draw_positions
from nettrim.layer_solution import SolverStatus, evaluate
from nettrim.layer_targets import find_target, plain_target
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
        problems = layer_problems(_network(graph, samples), _network(before, samples), plan, "distance")
        after = _disturbed(before, rng, 1)
        weight = after.tensors[layer.weight].values().reshape(2, 2, -1)
        bound = np.linalg.norm([distance(p, weight[g].T, p.bias) for g, p in enumerate(problems)])
        responses = [_network(net, samples).value(target.tensor) for net in (graph, after)]
        error = np.linalg.norm(responses[1] - responses[0])
        assert 0 < error <= bound * (1 + 1e-5)  # float32 convolutions
        norm = np.linalg.norm([p.target_norm for p in problems])
        np.testing.assert_allclose(norm, np.linalg.norm(responses[0]), rtol=1e-5)  # the pooled response's


def test_original_weights_on_original_inputs_have_no_distance(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    network = _network(graph, random_inputs(graph, rng, 20))
    for number, layer in enumerate(graph.layers):
        later = [other.name for other in graph.layers[number + 1 :]]
        for target in (plain_target(layer), find_target(graph, layer, later)):
            positions = draw_positions(graph, layer, 20, 200, rng, pool=target.pool)
            for problem in layer_problems(network, network, LayerPlan(layer, target, positions), "distance"):
                assert distance(problem, problem.W, problem.bias) <= 1e-5 * problem.target_norm  # float32


def test_groups_are_merged_into_the_weights_and_distance_of_the_layer(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    network, layer = _network(graph, random_inputs(graph, rng, 20)), graph.layers[1]
    plan = LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, 20, 200, rng))
    problems = layer_problems(network, network, plan, "distance")
    statuses = (SolverStatus.SOLVED, SolverStatus.MAX_ITERATIONS)
    solutions = [
        evaluate(p.with_relative_epsilon(0.1), 0 * p.W, p.bias, status, iterations=10)
        for p, status in zip(problems, statuses, strict=True)
    ]
    merged = merge_solutions(problems, solutions)
    assert (len(problems), merged.W.shape) == (2, (18, 4))
    np.testing.assert_array_equal(merged.bias, graph.tensors[layer.bias].values())
    assert (merged.status, merged.iterations) == (SolverStatus.MAX_ITERATIONS, 20)
    np.testing.assert_allclose(merged.distance, np.hypot(solutions[0].distance, solutions[1].distance))
    whole = np.linalg.norm(np.concatenate([p.target for p in problems]))
    np.testing.assert_allclose(merged.epsilon, 0.1 * whole, rtol=1e-6)  # float32 norm
    np.testing.assert_allclose(merged.relative_distance, merged.distance / whole, rtol=1e-6)


def test_one_ball_a_neuron_stays_one_ball_a_neuron(rng: np.random.Generator) -> None:
    graph = _residual_net(rng)
    network, layer = _network(graph, random_inputs(graph, rng, 20)), graph.layers[1]
    plan = LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, 20, 200, rng))
    problems = [
        problem.with_relative_epsilon(0.1, "neuron") for problem in layer_problems(network, network, plan, "distance")
    ]
    solutions = [evaluate(p, p.W, p.bias, SolverStatus.SOLVED, gaps=np.zeros(2)) for p in problems]
    merged = merge_solutions(problems, solutions)
    assert np.shape(merged.epsilon) == (4,)
    assert merged.relative_gap == 0.0
