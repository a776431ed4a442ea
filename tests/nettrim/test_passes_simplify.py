"""All passes together keep every output of random networks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim.passes import simplify
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction
from tests.graphs import GraphBuilder, random_cnn, random_inputs, random_mlp

STEPS = ["conv", "clamp", "max_pool", "no_pool", "average_pool", "add", "same_shape", "split_shape"]


def random_network(seed: int, steps: list[str]) -> Graph:
    """Return a chain of steps on 9 x 9 x 2 images, with shortcuts from earlier tensors."""
    rng = np.random.default_rng(seed)
    net = GraphBuilder(rng, (9, 9, 2))
    net.conv(3, (1, 1))
    for step in steps:
        shape = net.tensors[net.output].shape
        match step:
            case "conv":
                net.conv(3, (1, 1), ActivationFunction(rng.choice([each.value for each in ActivationFunction])))
            case "clamp":
                net.activation(ActivationFunction(rng.choice([each.value for each in ActivationFunction])))
            case "max_pool":
                net.max_pool(2 if min(shape[:2]) > 1 else 1, 1)
            case "no_pool":
                net.max_pool(1, 1)
            case "average_pool":
                net.average_pool((1, 1))
            case "add":
                same = [name for name, each in net.tensors.items() if each.shape == shape and each.data is None]
                net.add(str(rng.choice(same)))
            case "same_shape":
                net.reshape(*shape)
            case _:
                net.flatten()
                net.reshape(*shape)
    return net.build()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.lists(st.sampled_from(STEPS), max_size=12))
def test_outputs_stay_as_they_are(seed: int, steps: list[str]) -> None:
    before = random_network(seed, steps)
    after = simplify(before)
    samples = random_inputs(before, np.random.default_rng(seed), 3)
    np.testing.assert_array_equal(run_graph(after, samples), run_graph(before, samples))
    assert after.outputs == before.outputs
    assert len(after.ops) <= len(before.ops)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.lists(st.sampled_from(STEPS), max_size=12))
def test_simplifying_again_changes_nothing(seed: int, steps: list[str]) -> None:
    once = simplify(random_network(seed, steps))
    assert simplify(once) is once


def test_networks_without_anything_to_shorten_come_back_as_they_are() -> None:
    mlp, cnn = random_mlp(np.random.default_rng(0)), random_cnn(np.random.default_rng(0))
    assert simplify(mlp) is mlp
    assert len(simplify(cnn).ops) <= len(cnn.ops)


def test_chain_that_only_changes_shape_and_clamps_shrinks_to_its_layers() -> None:
    net = GraphBuilder(np.random.default_rng(0), (4, 4, 2))
    net.conv(3, (3, 3))
    net.flatten()
    net.reshape(2, 2, 3)
    net.max_pool(1, 1)
    net.activation(ActivationFunction.RELU)
    net.flatten()
    net.activation(ActivationFunction.RELU6)
    net.dense(2)
    shorter = simplify(net.build())
    assert [type(op).__name__ for op in shorter.ops] == ["Conv2d", "Reshape", "Dense"]
