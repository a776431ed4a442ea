"""The search for the densest network that fits a flash."""

import numpy as np
import pytest

from nettrim.calibrate import activation_ranges
from nettrim.errors import DoesNotFitError
from nettrim.fit_search import prune_to_fit
from nettrim.prune import PruneSettings
from nettrim.quantize import quantize_graph
from nettrim.storage import smallest_formats
from nettrim_exporters.c_header import c_model_facts
from nettrim_runtime.graph import Array, Graph
from tests.graphs import random_mlp

SAMPLES = np.random.default_rng(1).standard_normal((200, 20)).astype(np.float32)


def _size(graph: Graph) -> int:
    return c_model_facts(smallest_formats(quantize_graph(graph, activation_ranges(graph, SAMPLES)))).flash_bytes


def _fit(graph: Graph, flash_bytes: int) -> tuple[Graph, float]:
    found = prune_to_fit(graph, SAMPLES, flash_bytes, PruneSettings(), rng=np.random.default_rng(2), size=_size)
    return found.result.graph, found.sparsity


def _weights(graph: Graph) -> list[Array]:
    return [graph.tensors[layer.weight].values() for layer in graph.layers]


def test_a_network_that_fits_keeps_every_weight() -> None:
    graph = random_mlp(np.random.default_rng(0))
    fitted, sparsity = _fit(graph, _size(graph))
    assert sparsity == 0
    assert all(np.array_equal(a != 0, b != 0) for a, b in zip(_weights(graph), _weights(fitted), strict=True))


@pytest.mark.parametrize("share", [0.88, 0.95])
def test_a_network_that_does_not_fit_loses_no_more_than_it_must(share: float) -> None:
    graph = random_mlp(np.random.default_rng(0))
    flash_bytes = int(share * _size(graph))
    fitted, sparsity = _fit(graph, flash_bytes)
    assert 0.9 * flash_bytes < _size(fitted) <= flash_bytes  # arrays end at multiples of 16 bytes, indices take one
    assert 0 < sparsity < 1


def test_a_flash_that_not_even_the_biases_fit_is_refused() -> None:
    with pytest.raises(DoesNotFitError, match="does not fit 16 bytes of flash at any sparsity"):
        _fit(random_mlp(np.random.default_rng(0)), 16)
