"""Dense layers in blocks of 1x16: the published schema reads them back, LiteRT gives the predicted bits."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import OpResolverType
from graphs import GraphBuilder, quantized, random_inputs
from test_tflite import DEFAULT, REFERENCE, run_litert

from nettrim.sparse_tflite import describe_sparse_tflite, sparse_layers, with_two_roundings
from nettrim_boards.board import load_board
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_blocks import block_density, can_block, encode_blocks
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import ActivationFunction, Dense

Array = npt.NDArray[Any]


def blocked_weight(rng: np.random.Generator, shape: tuple[int, int], density: float) -> Array:
    kept = rng.random((shape[0], shape[1] // 16)) < density
    return rng.integers(-127, 128, shape).astype(np.int8) * np.repeat(kept, 16, axis=1)


def network(density: float, sizes: tuple[int, ...] = (512, 48, 10), seed: int = 0) -> Graph:
    """Return a quantised chain of dense layers, the first with the density of blocks asked for."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder(rng, sizes[:1])
    for size in sizes[1:]:
        builder.dense(size, ActivationFunction.RELU)
    graph = builder.build()
    weight = graph.tensors[graph.layers[0].weight]
    mask = blocked_weight(rng, weight.shape, density) != 0  # type: ignore[arg-type]  # a matrix
    return quantized(graph.with_tensors([replace(weight, data=weight.values() * mask)]), rng)


def decode(model: Any, tensor: Any) -> Array:
    """Return the dense matrix of a blocked tensor, following the comments of schema.fbs block by block."""
    rows, blocks, width = tensor.sparsity.dimMetadata
    values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8).reshape(-1, width.denseSize)
    dense = np.zeros((rows.denseSize, blocks.denseSize, width.denseSize), np.int8)
    segments, indices = blocks.arraySegments.values, blocks.arrayIndices.values
    for row in range(rows.denseSize):
        for place in range(segments[row], segments[row + 1]):
            dense[row, indices[place]] = values[place]
    return dense.reshape(rows.denseSize, -1)


@pytest.mark.parametrize(("columns", "n_bytes"), [(512, 1), (16 * 256, 1), (16 * 257, 2)])
def test_the_published_schema_reads_the_weights_back(columns: int, n_bytes: int) -> None:
    graph = network(0.2, (columns, 9, 4))
    layer = graph.layers[0]
    content = render_tflite(graph, blocked=[layer.name])
    model = published.ModelT.InitFromPackedBuf(content, 0)
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    tensor = tensors[layer.weight]
    assert np.array_equal(decode(model, tensor), graph.tensors[layer.weight].values())
    assert list(tensor.shape) == [9, columns]
    assert list(tensor.sparsity.traversalOrder) == [0, 1, 2]
    assert list(tensor.sparsity.blockMap) == [1]
    assert np.asarray(tensor.sparsity.dimMetadata[1].arrayIndices.values).dtype.itemsize == n_bytes
    assert tensors[graph.layers[1].weight].sparsity is None
    codes = [(code.builtinCode, code.version) for code in model.operatorCodes]
    assert codes == [(published.BuiltinOperator.FULLY_CONNECTED, 8), (published.BuiltinOperator.FULLY_CONNECTED, 4)]


@pytest.mark.parametrize("resolver", [REFERENCE, DEFAULT])
@pytest.mark.parametrize("density", [0.02, 0.2, 0.6, 1.0])
def test_litert_gives_the_bits_of_the_graph_with_two_roundings(
    density: float, resolver: OpResolverType, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = network(density, seed=round(100 * density))
    layers = [graph.layers[0].name]
    samples = random_inputs(graph, np.random.default_rng(1), 200)
    expected = run_graph(with_two_roundings(graph, layers), samples)
    outputs = run_litert(render_tflite(graph, blocked=layers), samples, resolver)
    capfd.readouterr()
    assert np.array_equal(outputs, expected)
    assert np.abs(expected.astype(int) - run_graph(graph, samples)).max() <= 2


def test_rows_without_a_block_are_encoded() -> None:
    weight = np.zeros((4, 32), np.int8)
    weight[1, 20] = 5
    kept, sparsity = encode_blocks(weight, 16)
    assert kept.tolist() == weight[1, 16:].tolist()
    assert sparsity.segments.tolist() == [0, 0, 1, 1, 1]
    assert sparsity.indices.tolist() == [1]
    assert block_density(weight, 16) == 1 / 8


@pytest.mark.parametrize(("columns", "keeps_one", "blocks"), [(32, True, True), (40, True, False), (32, False, False)])
def test_rows_of_broken_blocks_and_empty_matrices_stay_dense(columns: int, keeps_one: bool, blocks: bool) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (columns,))
    builder.dense(4)
    graph = quantized(builder.build(), np.random.default_rng(1))
    (layer,) = graph.layers
    assert isinstance(layer, Dense)
    weight = graph.tensors[layer.weight]
    graph = graph.with_tensors([replace(weight, data=weight.values() * keeps_one)])
    assert can_block(graph, layer) == blocks


def test_a_sparse_file_is_smaller() -> None:
    graph = network(0.1)
    dense, sparse = render_tflite(graph), render_tflite(graph, blocked=[graph.layers[0].name])
    saved = 0.9 * graph.tensors[graph.layers[0].weight].size
    assert len(dense) - len(sparse) > 0.9 * saved


@pytest.mark.parametrize(
    ("board", "density", "sizes", "gains"),
    [
        ("rpi4", 0.1, (512, 48, 10), True),
        ("rpi4", 0.3, (512, 48, 10), False),  # more blocks than the dense kernel takes instructions for
        ("rpi4", 0.1, (128, 48, 10), False),  # short rows: the outputs' own cost outweighs
        ("host", 0.1, (512, 48, 10), False),
        ("nucleo-f446re", 0.1, (512, 48, 10), False),
    ],
)
def test_a_layer_is_blocked_where_the_board_gains(
    board: str, density: float, sizes: tuple[int, ...], gains: bool
) -> None:
    graph = network(density, sizes)
    assert bool(sparse_layers(graph, load_board(board))) == gains


def test_the_sparse_file_is_compared_with_the_dense_one() -> None:
    graph = network(0.1)
    x = np.random.default_rng(2).normal(size=(50, 512)).astype(np.float32)
    found = describe_sparse_tflite(graph, load_board("rpi4"), x)
    assert found is not None
    assert found.layers == (graph.layers[0].name,)
    integers = graph.quantization("input").quantize(x)
    dense, sparse = run_graph(graph, integers), run_graph(found.reference, integers)
    assert found.largest_step == np.abs(dense.astype(int) - sparse).max()
    assert found.changed_classes == np.sum(dense.argmax(axis=1) != sparse.argmax(axis=1))
    assert describe_sparse_tflite(graph, load_board("host"), x) is None


def test_constants_of_other_operators_stay() -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (64,))
    builder.dense(8)
    builder.prelu()
    graph = quantized(builder.build(), rng)
    layers, samples = [graph.layers[0].name], random_inputs(graph, rng, 50)
    outputs = run_litert(render_tflite(graph, blocked=layers), samples)
    assert np.array_equal(outputs, run_graph(with_two_roundings(graph, layers), samples))
