"""The importers' graph builder: names that many want at once."""

import time

from nettrim.importers.graph_builder import GraphBuilder


def test_names_that_are_wanted_twice_get_numbers() -> None:
    builder = GraphBuilder("a file")
    assert [builder.op_name("conv") for _ in range(3)] == ["conv", "conv_2", "conv_3"]
    names = [builder.op_name(name) for name in ("relu_2", "relu", "relu", "relu")]
    assert names == ["relu_2", "relu", "relu_3", "relu_4"]
    assert [builder.add_input("conv", (1,)) for _ in range(2)] == ["conv", "conv_2"]  # tensors have names of their own


def test_a_name_that_thousands_want_takes_no_longer_each_time() -> None:
    builder, start = GraphBuilder("a file"), time.perf_counter()
    names = [builder.op_name("same") for _ in range(20_000)]
    assert len(set(names)) == 20_000
    assert time.perf_counter() - start < 5  # half a minute where each tries all numbers before
