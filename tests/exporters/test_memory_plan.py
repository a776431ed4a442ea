"""The memory plan, against lifetimes derived a second time and in another way."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim_exporters.memory_plan import Buffer, Place, place_buffers, plan_memory
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Add, Conv2d, Padding, Reshape, Size2d, op_inputs
from tests.graphs import RELU, GraphBuilder, random_cnn

# (size, first, length): buffers of 1 to 200 bytes, alive for 1 to 6 operators
BLOCKS = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 12), st.integers(0, 5)), max_size=14)
LAYERS = st.lists(st.sampled_from(["conv", "padded", "pool", "add", "concat", "reshape", "activation"]), max_size=9)


def arena_buffers(blocks: list[tuple[int, int, int]]) -> list[Buffer]:
    return [
        Buffer((str(i),), None, size, first, first + length, Place.ARENA)
        for i, (size, first, length) in enumerate(blocks)
    ]


def random_graph(layers: list[str], seed: int) -> Graph:
    """Return a network of these layers on 6 x 6 x 4 images; additions and concatenations reach back to any of them."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder(rng, (6, 6, 4))
    images = ["input"]
    for layer in layers:
        shape = builder.tensors[builder.output].shape
        match layer:
            case "conv":
                builder.conv(4, (1, 1))
            case "padded":
                builder.conv(4, (3, 3), padding=Padding(1, 1, 1, 1))
            case "pool":
                builder.max_pool(1, 1)
            case "add":
                builder.add(str(rng.choice(images)))
            case "concat":
                builder.concat(str(rng.choice(images)))
                builder.conv(4, (1, 1))
            case "reshape":
                builder.reshape(*shape)
            case "activation":
                builder.activation(RELU)
        images.append(builder.output)
    return builder.build()


def live_sets(graph: Graph) -> list[set[str]]:
    """Return, for each operator, the activations that hold values still needed, walking backwards."""
    needed = set(graph.outputs)
    sets = []
    for op in reversed(graph.ops):
        sets.append(needed | {op.output} | set(op_inputs(op)))
        needed = (needed - {op.output}) | set(op_inputs(op))
    return sets[::-1]


@given(BLOCKS)
def test_buffers_alive_together_never_overlap_and_are_aligned(blocks: list[tuple[int, int, int]]) -> None:
    placed = place_buffers(arena_buffers(blocks))

    assert sorted(buffer.tensors for buffer in placed) == sorted((str(i),) for i in range(len(blocks)))
    assert all(buffer.offset % 16 == 0 and buffer.offset >= 0 for buffer in placed)
    for one, other in itertools.combinations(placed, 2):
        times = set(range(one.first, one.last + 1)) & set(range(other.first, other.last + 1))
        bytes_of_one = set(range(one.offset, one.offset + one.size_bytes))
        assert not times or bytes_of_one.isdisjoint(range(other.offset, other.offset + other.size_bytes))


@settings(deadline=None)
@given(LAYERS, st.integers(0, 1000))
def test_no_operator_of_a_random_graph_sees_two_live_buffers_overlap(layers: list[str], seed: int) -> None:
    graph = random_graph(layers, seed)
    plan = plan_memory(graph)

    ends = [b.offset + b.size_bytes for b in plan.buffers if b.place is Place.ARENA]
    assert plan.arena_bytes == max(ends, default=0)
    for op, live in zip(graph.ops, live_sets(graph), strict=True):
        taken: dict[int, Buffer] = {}
        scratch = plan.scratch_of(op.name)
        buffers = {plan.buffer_of(name) for name in live} | ({scratch} if scratch else set())
        for buffer in buffers:
            if buffer.place is Place.ARENA:
                for byte in range(buffer.offset, buffer.offset + buffer.size_bytes):
                    assert taken.setdefault(byte, buffer) is buffer, (op.name, byte)


@settings(deadline=None)
@given(LAYERS, st.integers(0, 1000))
def test_every_activation_has_a_buffer_that_holds_it(layers: list[str], seed: int) -> None:
    graph = random_graph(layers, seed)
    plan = plan_memory(graph)

    for name in (*graph.inputs, *(op.output for op in graph.ops)):
        assert plan.buffer_of(name).size_bytes == graph.tensors[name].size
    for op in graph.ops:
        if isinstance(op, Reshape):
            assert plan.buffer_of(op.input) is plan.buffer_of(op.output)
        if isinstance(op, Add):
            assert plan.buffer_of(op.output) is not plan.buffer_of(op.first)


def test_input_and_output_stay_with_the_caller() -> None:
    graph = random_cnn(np.random.default_rng(0))
    plan = plan_memory(graph)

    assert plan.buffer_of("input").place is Place.INPUT
    assert plan.buffer_of(graph.outputs[0]).place is Place.OUTPUT


def test_a_chain_needs_its_two_largest_neighbours_and_no_more() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (64,))
    for n_outputs in (48, 32, 96, 16, 8):
        builder.dense(n_outputs)

    assert plan_memory(builder.build()).arena_bytes == 32 + 96


def test_one_layer_needs_no_arena() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (8,))
    builder.dense(4)

    assert plan_memory(builder.build()).arena_bytes == 0


def test_a_freed_gap_is_used_again() -> None:
    long_lived = Buffer(("a",), None, 100, 0, 3, Place.ARENA)
    early = Buffer(("b",), None, 64, 0, 1, Place.ARENA)
    late = Buffer(("c",), None, 48, 2, 3, Place.ARENA)
    offsets = {buffer.tensors[0]: buffer.offset for buffer in place_buffers([late, early, long_lived])}

    assert offsets == {"a": 0, "b": 112, "c": 112}


def test_the_smallest_gap_that_fits_is_taken() -> None:
    pillars = [Buffer((name,), None, size, 0, 9, Place.ARENA) for name, size in (("a", 200), ("b", 90), ("c", 44))]
    holes = [Buffer((name,), None, size, 0, 0, Place.ARENA) for name, size in (("wide", 96), ("narrow", 48))]
    new = Buffer(("new",), None, 40, 5, 9, Place.ARENA)
    offsets = {buffer.tensors[0]: buffer.offset for buffer in place_buffers([*pillars, *holes, new])}

    assert offsets["wide"] < offsets["narrow"] == offsets["new"]


def test_padding_needs_scratch_only_as_far_as_windows_reach() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (5, 5, 2))
    builder.conv(3, (2, 2), stride=Size2d(3, 3), padding=Padding(0, 2, 0, 2))  # windows end at the image's edge
    builder.conv(3, (2, 2), padding=Padding(1, 0, 1, 0))
    graph = builder.build()
    plan = plan_memory(graph)
    scratch = [plan.scratch_of(op.name) for op in graph.ops if isinstance(op, Conv2d)]

    assert scratch[0] is None
    assert scratch[1] is not None
    assert scratch[1].size_bytes == 3 * 3 * 3
