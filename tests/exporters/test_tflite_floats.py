"""Sparse weights beside floats: LiteRT, with its reference kernels and with XNNPACK, computes what the engine does."""

from dataclasses import replace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import OpResolverType

from nettrim.hybrid import Precision, shipped_floats
from nettrim.importers.tflite_import import import_tflite
from nettrim.sparse_convolutions import sparse_convolutions
from nettrim.sparse_tflite import describe_sparse_tflite, sparse_layers
from nettrim_boards.board import load_board
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_blocks import can_block
from nettrim_runtime.compare import count_differing, output_tolerance
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import ActivationFunction, Conv2d, Dense, Function, Padding, Size2d
from tests.exporters.test_tflite import DEFAULT, REFERENCE, operator_codes, read_back, run_litert
from tests.graphs import GraphBuilder, random_inputs

RELU, RELU6 = ActivationFunction.RELU, ActivationFunction.RELU6
ONE, TWO = Padding(1, 1, 1, 1), Size2d(2, 2)
WIDTHS: dict[Precision, int] = {"float32": 4, "hybrid": 16}


def network(precision: Precision, density: float, sizes: tuple[int, ...] = (512, 48, 10), seed: int = 0) -> Graph:
    """Return a chain of dense layers as it is shipped, the first with the density of blocks asked for."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder(rng, sizes[:1])
    for size in sizes[1:]:
        builder.dense(size, RELU)
    graph, width = builder.build(), WIDTHS[precision]
    weight = graph.tensors[graph.layers[0].weight]
    kept = np.repeat(rng.random((sizes[1], sizes[0] // width)) < density, width, axis=1).astype(np.float32)
    return shipped_floats(graph.with_tensors([replace(weight, data=weight.values() * kept)]), precision)


def separable(density: float, change: str = "") -> Graph:
    """Return a network that XNNPACK runs sparse on ARM, or with one change that keeps it from that."""
    builder = GraphBuilder(np.random.default_rng(0), (16, 16, 4 if change == "channels" else 3))
    stem = Padding(0, 1, 0, 1) if change == "stem" else ONE
    builder.conv(8, (3, 3), RELU6, stride=Size2d(1, 1) if change == "stride" else TWO, padding=stem)
    for n_outputs, stride in ((16, 1), (16, 1), (32, 2)):
        n_channels = builder.tensors[builder.output].shape[2]
        last, size = builder.output, 5 if change == "five" else 3
        padding = Padding(0, 1, 0, 1) if change == "one-sided" and stride == 2 else Padding(*[size // 2] * 4)
        builder.conv(n_channels, (size, size), padding=padding, groups=n_channels, stride=Size2d(stride, stride))
        builder.function(Function.TANH if change == "tanh" else Function.HARD_SWISH)
        builder.conv(n_outputs, (1, 1), RELU, density)
        if builder.tensors[last].shape == builder.tensors[builder.output].shape:
            builder.add(last)
    if change == "max":
        builder.max_pool(2, 2)
    if change != "flat":
        builder.average_pool(builder.tensors[builder.output].shape[:2])
    builder.flatten()
    builder.dense(10)
    return builder.build()


def pointwise(graph: Graph) -> tuple[str, ...]:
    convolutions = [op for op in graph.layers if isinstance(op, Conv2d)]
    return tuple(op.name for op in convolutions if graph.tensors[op.weight].shape[1:3] == (1, 1))


@pytest.mark.parametrize("resolver", [REFERENCE, DEFAULT])
@pytest.mark.parametrize("density", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("precision", ["float32", "hybrid"])
def test_blocks_give_the_outputs_of_the_engine(
    precision: Precision, density: float, resolver: OpResolverType, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = network(precision, density, seed=round(100 * density))
    samples = random_inputs(graph, np.random.default_rng(1), 100)
    expected = run_graph(graph, samples)
    for layers in ((), (graph.layers[0].name,)):
        outputs = run_litert(render_tflite(graph, blocked=layers), samples, resolver)
        tolerance = output_tolerance(graph, is_other_grid=resolver is DEFAULT)
        assert count_differing(outputs, expected, tolerance) == 0
    capfd.readouterr()


def test_the_reference_kernels_for_hybrid_layers_have_the_bits_of_the_engine() -> None:
    graph = network("hybrid", 0.3, (1600, 48, 10))  # sums beyond what float32 holds exactly
    samples = random_inputs(graph, np.random.default_rng(1), 200)
    samples[3] = 0
    samples[5] *= 1e-30
    for layers in ((), (graph.layers[0].name,)):
        outputs = run_litert(render_tflite(graph, blocked=layers), samples)
        np.testing.assert_array_equal(outputs, run_graph(graph, samples))


@pytest.mark.parametrize("resolver", [REFERENCE, DEFAULT])
def test_convolutions_behind_densify_give_the_outputs_of_the_dense_file(resolver: OpResolverType) -> None:
    graph = separable(0.2)
    content = render_tflite(graph, blocked=pointwise(graph))
    samples = random_inputs(graph, np.random.default_rng(1), 20)
    np.testing.assert_allclose(run_litert(content, samples, resolver), run_graph(graph, samples), rtol=0, atol=1e-5)
    assert len(content) < len(render_tflite(graph))


def test_what_xnnpack_runs_sparse_has_padding_and_means_of_their_own() -> None:
    graph = separable(0.2)
    codes = [code for code, _ in operator_codes(render_tflite(graph, blocked=pointwise(graph)))]
    builtin = published.BuiltinOperator
    assert {builtin.DENSIFY, builtin.PAD, builtin.MEAN} <= set(codes)
    assert builtin.AVERAGE_POOL_2D not in codes


def test_the_published_schema_reads_single_weights_back() -> None:
    graph = separable(0.2)
    names = pointwise(graph)
    model = read_back(render_tflite(graph, blocked=names))
    sparse = [tensor for tensor in model.subgraphs[0].tensors if tensor.sparsity is not None]
    assert len(sparse) == len(names)
    for tensor in sparse:
        weight = graph.tensors[tensor.name.decode()]
        assert list(tensor.sparsity.traversalOrder) == [0, 1, 2, 3]
        assert list(tensor.shape) == list(weight.shape)
        *dense, columns = tensor.sparsity.dimMetadata
        assert [dimension.denseSize for dimension in dense] == list(weight.shape[:3])
        found = np.zeros((weight.shape[0], weight.shape[3]), np.float32)
        rows = np.repeat(np.arange(len(found)), np.diff(columns.arraySegments.values))
        found[rows, columns.arrayIndices.values] = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        np.testing.assert_array_equal(found.reshape(weight.shape), weight.values())


@pytest.mark.parametrize("blocked", [True, False])
def test_sparse_floats_are_read_back(blocked: bool) -> None:
    for graph, names in ((network("float32", 0.2), ("dense0",)), (separable(0.2), pointwise(separable(0.2)))):
        content = render_tflite(graph, blocked=names if blocked else ())
        read = import_tflite(content, "net.tflite", "net").graph
        samples = random_inputs(graph, np.random.default_rng(1), 20)
        np.testing.assert_allclose(run_graph(read, samples), run_graph(graph, samples), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", ["", "five"])
def test_a_separable_network_of_two_thirds_zeros_is_sparse(change: str) -> None:
    assert sparse_convolutions(separable(0.25, change)) == pointwise(separable(0.25, change))
    assert sparse_convolutions(separable(0.5, change)) == ()


@pytest.mark.parametrize("change", ["channels", "stem", "stride", "one-sided", "tanh", "max", "flat"])
def test_what_xnnpack_would_not_run_whole_stays_dense(change: str) -> None:
    assert sparse_convolutions(separable(0.1, change)) == ()


def test_a_network_that_begins_with_its_pool_has_nothing_sparse() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4, 4, 3))
    builder.average_pool((4, 4))
    builder.flatten()
    builder.dense(3)
    assert sparse_convolutions(builder.build()) == ()


def test_a_convolution_without_a_weight_left_keeps_its_network_dense() -> None:
    graph = separable(0.2)
    weight = graph.tensors[next(op.weight for op in graph.layers if op.name == pointwise(graph)[1])]
    assert sparse_convolutions(graph)
    assert sparse_convolutions(graph.with_tensors([replace(weight, data=np.zeros_like(weight.values()))])) == ()


@pytest.mark.parametrize(
    ("precision", "density", "gains"),
    [("float32", 0.1, True), ("float32", 0.2, False), ("hybrid", 0.4, True), ("hybrid", 0.7, False)],
)
def test_a_layer_is_blocked_where_the_board_gains(precision: Precision, density: float, gains: bool) -> None:
    graph = network(precision, density)
    assert bool(sparse_layers(graph, load_board("rpi4"))) == gains
    assert sparse_layers(graph, load_board("host")) == ()


def test_rows_of_more_hybrid_blocks_than_a_byte_counts_stay_dense() -> None:
    for columns, can in ((255 * 16, True), (256 * 16, False)):
        graph = network("hybrid", 0.1, (columns, 4))
        (layer,) = graph.layers
        assert isinstance(layer, Dense)
        assert can_block(graph, layer) == can


def test_the_report_says_how_layers_are_stored() -> None:
    x: Array = np.zeros((8, 512), np.float32)
    found = describe_sparse_tflite(network("float32", 0.05), load_board("rpi4"), x)
    assert found is not None
    assert (found.description, found.largest_step) == ("layer dense0 in blocks of 1x4", None)
    images = separable(0.2)
    found = describe_sparse_tflite(images, load_board("rpi4"), np.zeros((8, 16, 16, 3), np.float32))
    assert found is not None
    assert found.description == f"layers {', '.join(pointwise(images))} in single weights"
