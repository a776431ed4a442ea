"""Norms of operators against those of their matrices, written out column by column."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nettrim import operator_norm
from nettrim.operator_norm import largest_singular_value, lipschitz_bound
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Layer, Padding, Size2d
from tests.graphs import LINEAR, GraphBuilder, matrix_of

Array = npt.NDArray[Any]


def bound_of(graph: Graph) -> float:
    (op,) = graph.ops
    weights = {}
    if isinstance(op, Layer):
        weights[op.name] = graph.tensors[op.weight].values().astype(np.float64)
    return lipschitz_bound(op, graph.tensors, weights)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padded": {"padding": Padding(1, 1, 1, 1)},
    "strided": {"stride": Size2d(2, 3), "padding": Padding(0, 1, 2, 0)},
    "dilated": {"dilation": Size2d(2, 1), "padding": Padding(2, 2, 1, 1)},
    "strided and dilated": {"stride": Size2d(2, 2), "dilation": Size2d(2, 3)},
    "grouped": {"groups": 2, "padding": Padding(1, 1, 1, 1)},
    "depthwise": {"groups": 4, "stride": Size2d(2, 2), "padding": Padding(1, 1, 1, 1)},
    "patches side by side": {"stride": Size2d(3, 2), "kernel": (3, 2)},
    "the whole image": {"kernel": (9, 8)},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolutions_bound_lies_just_above_its_norm(options: dict[str, Any], rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (9, 8, 4))
    builder.conv(8, **{"kernel": (3, 3), **options})
    graph = builder.build()
    norm = np.linalg.norm(matrix_of(graph), 2)
    assert norm <= bound_of(graph) * (1 + 1e-6)  # the matrix is in float32
    assert bound_of(graph) <= 1.4 * norm  # the torus holds more than the image, much more than a row of 3 pixels


def test_without_overlap_a_convolutions_bound_is_its_norm(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6, 6, 4))
    builder.conv(5, (3, 2), stride=Size2d(3, 2))
    graph = builder.build()
    np.testing.assert_allclose(bound_of(graph), np.linalg.norm(matrix_of(graph), 2), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [((2, 2), 2, 0), ((3, 2), 1, 1), ((3, 3), 2, 1), ((8, 6), 1, 0)]
)
def test_an_average_pools_bound_lies_just_above_its_norm(
    size: tuple[int, int], stride: int, padding: int, rng: np.random.Generator
) -> None:
    builder = GraphBuilder(rng, (8, 6, 2))
    builder.average_pool(size, stride, Padding(padding, padding, padding, padding))
    graph = builder.build()
    norm = np.linalg.norm(matrix_of(graph), 2)
    assert norm <= bound_of(graph) * (1 + 1e-6)
    assert bound_of(graph) <= 1.5 * norm


@pytest.mark.parametrize("build", LINEAR.values(), ids=LINEAR)
def test_a_moves_or_means_bound_is_its_norm(build: Callable[[GraphBuilder], object], rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (5, 4, 3))
    build(builder)
    graph = builder.build()
    np.testing.assert_allclose(bound_of(graph), np.linalg.norm(matrix_of(graph), 2), rtol=1e-6)


def test_one_pixel_can_move_every_window_of_a_max_pool_that_reads_it(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (7, 7, 1))
    builder.max_pool(size=3, stride=1)
    graph = builder.build()
    before = np.zeros((1, 7, 7, 1), np.float32)
    after = before.copy()
    after[0, 3, 3, 0] = 1
    moved = np.linalg.norm(run_graph(graph, after) - run_graph(graph, before))
    assert moved == bound_of(graph) == 3


def test_windows_that_do_not_overlap_enlarge_nothing(rng: np.random.Generator) -> None:
    builder = GraphBuilder(rng, (6, 6, 3))
    builder.max_pool()
    assert bound_of(builder.build()) == 1


def test_a_matrix_too_large_for_its_spectrum_still_has_a_bound(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = rng.normal(size=(30, 20))
    norm = largest_singular_value(matrix)
    np.testing.assert_allclose(norm, np.linalg.norm(matrix, 2), rtol=1e-8)
    monkeypatch.setattr(operator_norm, "LARGEST_GRAM", 10)
    assert norm <= largest_singular_value(matrix) <= np.linalg.norm(matrix) * (1 + 1e-8)


def test_a_convolution_with_too_many_frequencies_is_bounded_by_its_patches(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = GraphBuilder(rng, (9, 8, 4))
    builder.conv(6, padding=Padding(1, 1, 1, 1))
    graph = builder.build()
    by_spectrum = bound_of(graph)
    monkeypatch.setattr(operator_norm, "LARGEST_SPECTRUM", 0)
    assert by_spectrum < bound_of(graph) <= 3 * by_spectrum
