"""Networks that C is not written for, each refused with what was expected and found."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from nettrim_exporters.c_header import check_c, render_c_header
from nettrim_exporters.c_layers import INT32_MAX
from nettrim_runtime.errors import DataError, GraphError, UnsupportedOperatorError
from nettrim_runtime.ops import Padding
from tests.exporters.test_c_header import small_mlp
from tests.graphs import (
    GraphBuilder,
    random_cnn,
    random_mlp,
)


def test_a_sum_that_could_leave_int32_is_refused() -> None:
    graph = small_mlp()
    layer = graph.layers[0]
    bias = graph.tensors[layer.bias]
    largest = np.full(bias.shape, INT32_MAX, np.int32)

    with pytest.raises(UnsupportedOperatorError, match=f"Dense '{layer.name}': the sum of output"):
        render_c_header(graph.with_tensors([replace(bias, data=largest)]), "net")


def test_a_golden_vector_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"golden vector of 'input': int8 \(19,\), expected int8 \(20,\)"):
        render_c_header(small_mlp(), "net", (np.zeros(19, np.int8), np.zeros(5, np.int8)))


def test_a_float_graph_passes_the_check_but_is_not_rendered() -> None:
    graph = random_cnn(np.random.default_rng(0))

    check_c(graph)
    with pytest.raises(GraphError, match="expected a quantised one"):
        render_c_header(graph, "net")


def test_two_outputs_are_refused_before_quantisation() -> None:
    graph = random_mlp(np.random.default_rng(0))

    with pytest.raises(UnsupportedOperatorError, match="supports one of each"):
        check_c(replace(graph, outputs=(graph.ops[0].output, *graph.outputs)))


def test_a_softmax_of_more_values_than_its_sum_holds_is_refused() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (512,))
    builder.softmax()

    with pytest.raises(UnsupportedOperatorError, match="Softmax 'softmax0': 512 values in a row, supported are 511"):
        check_c(builder.build())


def test_a_window_in_the_padding_alone_is_refused() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (4, 4, 1))
    builder.max_pool(2, 1, Padding(2, 0, 0, 0))

    with pytest.raises(UnsupportedOperatorError, match="padding smaller than the window"):
        check_c(builder.build())


@pytest.mark.parametrize(("width", "is_counted"), [(1 << 16, True), ((1 << 16) + 1, False)])
def test_an_image_that_16_bits_cannot_count_is_not_resized(width: int, is_counted: bool) -> None:
    builder = GraphBuilder(np.random.default_rng(0), (1, width, 1))
    builder.resize(1, 2)
    refusal = pytest.raises(UnsupportedOperatorError, match="supported are 65536 along each axis")

    with nullcontext() if is_counted else refusal:
        check_c(builder.build())
