"""What a .tflite file holds, whatever it computes; and the networks that none is written for."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_checks import check_tflite
from nettrim_runtime.csr import csr_from_dense
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.graph import Graph, Quantization
from nettrim_runtime.ops import Padding, Size2d
from tests.exporters.test_tflite import IMAGE, N_SAMPLES, NONE, RELU, SAME, build, operator_codes, read_back, run_litert
from tests.graphs import (
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
)


def test_the_same_graph_gives_the_same_bytes() -> None:
    first, second = (quantized(random_cnn(np.random.default_rng(0)), np.random.default_rng(1)) for _ in range(2))
    assert render_tflite(first) == render_tflite(second)


def test_the_order_of_the_tensors_does_not_change_the_bytes() -> None:
    graph = quantized(random_cnn(np.random.default_rng(0)), np.random.default_rng(1))
    shuffled = replace(graph, tensors=dict(reversed(graph.tensors.items())))
    assert render_tflite(shuffled) == render_tflite(graph)


def test_pruned_weights_are_written_dense() -> None:
    rng = np.random.default_rng(0)
    graph = quantized(random_mlp(rng, density=0.2), rng)
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    sparse = graph.with_tensors(replace(weight, data=csr_from_dense(weight.values())) for weight in weights)
    assert render_tflite(sparse) == render_tflite(graph)


def test_file_carries_the_schema_identifier_version_and_description() -> None:
    content = render_tflite(random_mlp(np.random.default_rng(0)), "a test")
    model = read_back(content)
    assert published.Model.ModelBufferHasIdentifier(content, 0)
    assert (model.version, model.description, model.subgraphs[0].name) == (3, b"a test", b"mlp")


def test_buffers_are_aligned_to_16_bytes() -> None:
    content = render_tflite(quantized(random_cnn(np.random.default_rng(0)), np.random.default_rng(1)))
    model = published.Model.GetRootAs(content, 0)
    vector_field = 4  # the vtable offset of Buffer.data, its first field
    buffers = [model.Buffers(index)._tab for index in range(1, model.BuffersLength())]
    assert buffers
    assert all(table.Vector(table.Offset(vector_field)) % 16 == 0 for table in buffers)


def test_every_int8_tensor_and_bias_is_quantised() -> None:
    graph = quantized(random_cnn(np.random.default_rng(0)), np.random.default_rng(1))
    subgraph = read_back(render_tflite(graph)).subgraphs[0]
    by_name = {tensor.name.decode(): tensor for tensor in subgraph.tensors}
    assert all(name in by_name for name in graph.tensors)
    for name, tensor in graph.tensors.items():
        found = by_name[name].quantization
        assert len(found.scale) == len(found.zeroPoint) == (1 if tensor.data is None else tensor.shape[0])
    for layer in graph.layers:
        expected = graph.quantization(layer.input).scale * graph.quantization(layer.weight).scale
        assert np.array_equal(by_name[layer.bias].quantization.scale, expected)


def test_depthwise_weights_are_quantised_along_their_last_axis() -> None:
    graph = quantized(build(lambda net: net.conv(8, groups=4)), np.random.default_rng(0))
    weight = read_back(render_tflite(graph)).subgraphs[0].tensors[1]
    assert (list(weight.shape), weight.quantization.quantizedDimension) == ([1, 3, 3, 8], 3)


def test_operators_have_the_lowest_version_that_holds_int8() -> None:
    operator = published.BuiltinOperator
    graph = quantized(
        build(lambda net: (net.conv(4), net.conv(4, groups=2), net.conv(4, groups=4))), np.random.default_rng(0)
    )
    expected = [(operator.CONV_2D, 3), (operator.CONV_2D, 6), (operator.DEPTHWISE_CONV_2D, 3)]
    assert operator_codes(render_tflite(graph)) == expected


@pytest.mark.parametrize("shape", [IMAGE, (30,)])
def test_a_concatenation_is_written_along_the_last_axis(shape: tuple[int, ...]) -> None:
    graph = quantized(build(lambda net: net.concat("input"), shape=shape), np.random.default_rng(0))
    content = render_tflite(graph)
    (operator,) = read_back(content).subgraphs[0].operators
    assert operator_codes(content) == [(published.BuiltinOperator.CONCATENATION, 2)]
    assert (operator.builtinOptions.axis, operator.builtinOptions.fusedActivationFunction) == (len(shape), 0)


def test_padding_that_tflite_names_needs_no_operator_of_its_own() -> None:
    graph = build(lambda net: (net.conv(4, stride=Size2d(2, 2), padding=SAME), net.max_pool(3, 2, Padding(1, 1, 0, 1))))
    operator = published.BuiltinOperator
    assert operator_codes(render_tflite(graph)) == [(operator.CONV_2D, 1), (operator.MAX_POOL_2D, 1)]


def test_other_padding_of_a_max_pool_never_wins() -> None:
    graph = quantized(build(lambda net: net.max_pool(2, 1, SAME)), np.random.default_rng(0))
    samples = np.full((1, *IMAGE), -128, np.int8)
    assert np.all(run_litert(render_tflite(graph), samples) == -128)


def test_two_layers_may_share_their_constants() -> None:
    rng = np.random.default_rng(6)
    graph = build(lambda net: (net.dense(8, RELU), net.dense(8)), shape=(8,))
    first, second = graph.layers
    kept = {name: tensor for name, tensor in graph.tensors.items() if name not in {second.weight, second.bias}}
    shared = replace(graph, ops=(first, replace(second, weight=first.weight, bias=first.bias)), tensors=kept)
    samples = random_inputs(shared, rng, N_SAMPLES)
    assert np.allclose(run_litert(render_tflite(shared), samples), run_graph(shared, samples), atol=1e-5)


def test_average_pool_with_other_padding_is_refused_before_and_after_quantisation() -> None:
    graph = build(lambda net: net.average_pool((3, 3), 2, Padding(1, 1, 1, 0)))
    for refused in (graph, quantized(graph, np.random.default_rng(0))):
        with pytest.raises(UnsupportedOperatorError, match=r"AveragePool2d 'average_pool0'.*\(1, 1, 1, 0\).*SAME"):
            check_tflite(refused)


def test_activation_that_does_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"Activation 'activation0'.*remove"):
        render_tflite(build(lambda net: net.activation(NONE)))


def test_softmax_of_another_output_scale_is_refused() -> None:
    graph = quantized(build(lambda net: net.softmax()), np.random.default_rng(0))
    output = graph.tensors[graph.outputs[0]]
    changed = replace(output, quantization=Quantization(np.array([0.5], np.float32), 0))
    with pytest.raises(UnsupportedOperatorError, match=r"Softmax 'softmax0'.*0\.5.*1/256"):
        render_tflite(graph.with_tensors([changed]))


@pytest.mark.parametrize("make", [random_mlp, random_cnn, random_branches, random_functions, random_moves])
def test_ordinary_networks_pass_the_check(make: Callable[..., Graph]) -> None:
    check_tflite(make(np.random.default_rng(0)))
