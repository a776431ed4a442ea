"""Networks that compute in floats on a board, with int8 weights of dense layers or without."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.hybrid import Precision, deployed_floats, shipped_floats
from nettrim.storage import smallest_formats, with_dense_weights
from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.errors import GraphError
from nettrim_runtime.graph import Array, Graph, Quantization
from nettrim_runtime.ops import Dense
from tests.graphs import GraphBuilder, random_branches, random_cnn, random_inputs, random_mlp


def naive_hybrid(x: Array, weight: Array, scale: float, bias: Array) -> Array:
    """Return one dense layer with each sample rounded to a 127th of its largest value."""
    steps = np.abs(x).max(axis=1, keepdims=True) / 127
    integers = np.sign(x) * np.floor(np.abs(x) / steps + 0.5)
    return (integers @ weight.T.astype(np.float64)) * steps * scale + bias


def test_a_hybrid_layer_rounds_each_sample_to_its_own_steps(rng: np.random.Generator) -> None:
    graph = deployed_floats(random_mlp(rng), "hybrid")
    layer = graph.layers[0]
    x = random_inputs(graph, rng, 30) * rng.uniform(0.01, 100, (30, 1)).astype(np.float32)
    program = prepare(graph, 30)
    program.run(x)
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias].values()
    expected = naive_hybrid(
        x.astype(np.float64), weight.values(), float(graph.quantization(layer.weight).scale[0]), bias
    )
    limits = layer.activation.lower, layer.activation.upper
    np.testing.assert_allclose(program.buffers[layer.output], np.clip(expected, *limits), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-37])
def test_a_sample_of_next_to_nothing_gives_the_bias(scale: float, rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (20,))
    builder.dense(4)
    graph = deployed_floats(builder.build(), "hybrid")
    x = np.stack([np.full(20, scale, np.float32), *random_inputs(graph, rng, 2)])
    bias = graph.tensors[graph.layers[0].bias].values()
    with np.errstate(all="raise", under="ignore"):
        outputs = run_graph(graph, x)
    np.testing.assert_array_equal(outputs[0], bias)
    np.testing.assert_array_equal(outputs[1:], run_graph(graph, x[1:]))


def test_weights_become_int8_of_one_scale_and_zeros_stay_zeros(rng: np.random.Generator) -> None:
    graph = random_mlp(rng, density=0.3)
    deployed = deployed_floats(graph, "hybrid")
    for layer in graph.layers:
        before, after = (found.tensors[layer.weight] for found in (graph, deployed))
        assert (after.dtype, after.quantization is not None) == ("int8", True)
        assert np.abs(after.values()).max() == 127
        assert not np.any(after.values()[before.values() == 0])
        step = float(deployed.quantization(layer.weight).scale[0])
        np.testing.assert_allclose(after.real_values(), before.values(), atol=step / 2 * (1 + 1e-5))
        assert deployed.tensors[layer.bias].dtype == "float32"


@pytest.mark.parametrize("make", [random_mlp, random_branches])
@pytest.mark.parametrize("precision", ["hybrid", "float32"])
def test_what_is_shipped_computes_what_was_measured(make: type[Graph], precision: Precision) -> None:
    rng = np.random.default_rng(3)
    graph = make(rng, 0.3)
    first = graph.layers[0]
    weight, bias = (graph.tensors[name].values().copy() for name in (first.weight, first.bias))
    weight[1], bias[1] = 0, 0.7  # a channel that says nothing, with a constant
    graph = graph.with_tensors(
        [replace(graph.tensors[first.weight], data=weight), replace(graph.tensors[first.bias], data=bias)]
    )
    deployed, shipped = deployed_floats(graph, precision), shipped_floats(graph, precision)
    x = random_inputs(graph, rng, 20)
    expected = run_graph(deployed, x)
    tolerance = 1e-5 if precision == "float32" else 0.02  # a constant that was rounded with its sample is exact now
    np.testing.assert_allclose(run_graph(shipped, x), expected, atol=tolerance * np.abs(expected).max())
    size = sum(shipped.tensors[layer.weight].size for layer in shipped.layers)
    assert size < sum(graph.tensors[layer.weight].size for layer in graph.layers)


@pytest.mark.parametrize("precision", ["hybrid", "float32"])
def test_sparse_weights_give_the_same_run_after_run(precision: Precision, rng: np.random.Generator) -> None:
    graph = smallest_formats(shipped_floats(random_mlp(rng, density=0.02), precision))
    assert any(isinstance(graph.tensors[layer.weight].data, CsrMatrix) for layer in graph.layers)
    x = random_inputs(graph, rng, 8)
    program = prepare(graph, 8)
    first = program.run(x)[0].copy()
    np.testing.assert_array_equal(program.run(x)[0], first)
    np.testing.assert_allclose(first, run_graph(with_dense_weights(graph), x), atol=1e-5)


def test_only_dense_layers_have_int8_weights_beside_floats(rng: np.random.Generator) -> None:
    graph = random_cnn(rng)
    weight = graph.tensors[graph.layers[0].weight]
    quantization = Quantization(np.array([0.1], np.float32))
    with pytest.raises(GraphError, match=r"constants are \('int8', 'float32'\), expected \('float32', 'float32'\)"):
        graph.with_tensors(
            [replace(weight, dtype="int8", data=weight.values().astype(np.int8), quantization=quantization)]
        )
    dense = next(op for op in graph.layers if isinstance(op, Dense))
    weight = deployed_floats(graph, "hybrid").tensors[dense.weight]
    scales = Quantization(np.full(weight.shape[0], 0.1, np.float32), axis=0)
    with pytest.raises(GraphError, match=r"weight scale has shape .* expected \(1,\)"):
        graph.with_tensors([replace(weight, quantization=scales)])
