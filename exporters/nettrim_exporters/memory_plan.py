"""Buffer lifetimes to arena offsets: the exact memory that one run of a quantised graph needs."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nettrim_exporters.c_conv import conv_image
from nettrim_exporters.c_values import ALIGNMENT_BYTES
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Conv2d, Reshape, op_inputs


class Place(enum.Enum):
    """Whose memory a buffer lies in."""

    INPUT = "input"
    OUTPUT = "output"
    ARENA = "arena"


@dataclass(frozen=True)
class Buffer:
    """Bytes that one activation, its reshapes, or the scratch of one operator occupy.

    Attributes
    ----------
    tensors : tuple of str
        The activations that share the bytes; none for scratch.
    scratch_of : str or None
        The operator whose padded image it is.
    first, last : int
        Positions of the operators that write it first and read it last; a graph input is written at -1
        and a graph output read at ``len(graph.ops)``.
    offset : int
        Bytes from the start of the arena; 0 in the caller's buffers.
    """

    tensors: tuple[str, ...]
    scratch_of: str | None
    size_bytes: int
    first: int
    last: int
    place: Place
    offset: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """Where every activation lies during a run.

    Attributes
    ----------
    arena_bytes : int
        The end of the last buffer in the arena; 0 when the caller's input and output are enough.
    """

    buffers: tuple[Buffer, ...]
    arena_bytes: int

    def buffer_of(self, tensor: str) -> Buffer:
        """Return the buffer that holds an activation."""
        return next(buffer for buffer in self.buffers if tensor in buffer.tensors)

    def scratch_of(self, op_name: str) -> Buffer | None:
        """Return the scratch of an operator, or None when it needs none."""
        return next((buffer for buffer in self.buffers if buffer.scratch_of == op_name), None)


def plan_memory(graph: Graph) -> MemoryPlan:
    """Place every activation of a graph so that buffers alive at the same time never overlap.

    Activations count one byte a value, int16 ones two, so a float graph is planned as its int8 form will be. A graph's
    input stays in the caller's input buffer and its output is written straight into the caller's output buffer; a
    reshape shares the bytes of its input (when that is the graph's input, an output among them has to be copied at the
    end).
    """
    buffers = [*_activation_buffers(graph), *_scratch_buffers(graph)]
    inside = [buffer for buffer in buffers if buffer.place is Place.ARENA]
    outside = [buffer for buffer in buffers if buffer.place is not Place.ARENA]
    placed = place_buffers(inside)
    arena_bytes = max((buffer.offset + buffer.size_bytes for buffer in placed), default=0)
    return MemoryPlan((*outside, *placed), arena_bytes)


def value_bytes(graph: Graph, tensor: str) -> int:
    """Return the bytes of one value of an activation: 2 of int16, else 1."""
    return 2 if graph.tensors[tensor].dtype == "int16" else 1


def place_buffers(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    """Give each buffer an offset: the largest first, each into the smallest gap that holds it (best fit).

    Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020: greedy by size.
    """
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda one: (-one.size_bytes, one.first, one.last)):
        neighbours = [other for other in placed if other.first <= buffer.last and buffer.first <= other.last]
        placed.append(replace(buffer, offset=_best_offset(buffer.size_bytes, neighbours)))
    return tuple(sorted(placed, key=lambda one: (one.first, one.offset)))


def _best_offset(size_bytes: int, neighbours: Iterable[Buffer]) -> int:
    best_offset, best_gap = None, 0
    free_from = 0
    for other in sorted(neighbours, key=lambda one: one.offset):
        gap = other.offset - free_from
        if gap >= size_bytes and (best_offset is None or gap < best_gap):
            best_offset, best_gap = free_from, gap
        free_from = max(free_from, _aligned(other.offset + other.size_bytes))
    return free_from if best_offset is None else best_offset


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _activation_buffers(graph: Graph) -> list[Buffer]:
    """Return one buffer an activation that is not a reshape of another."""
    root = {name: name for name in graph.inputs}
    first = dict.fromkeys(graph.inputs, -1)
    last = dict(first)
    for position, op in enumerate(graph.ops):
        for name in op_inputs(op):
            last[root[name]] = position
        root[op.output] = root[op.input] if isinstance(op, Reshape) else op.output
        first.setdefault(root[op.output], position)
        last[root[op.output]] = position
    for name in graph.outputs:
        last[root[name]] = len(graph.ops)
    return [
        Buffer(
            tensors=tuple(name for name, base in root.items() if base == tensor),
            scratch_of=None,
            size_bytes=graph.tensors[tensor].size * value_bytes(graph, tensor),
            first=first[tensor],
            last=last[tensor],
            place=_place(graph, [name for name, base in root.items() if base == tensor]),
        )
        for tensor in first
    ]


def _place(graph: Graph, tensors: Iterable[str]) -> Place:
    names = set(tensors)
    if names & set(graph.inputs):
        return Place.INPUT
    return Place.OUTPUT if names & set(graph.outputs) else Place.ARENA


def _scratch_buffers(graph: Graph) -> list[Buffer]:
    buffers = []
    for position, op in enumerate(graph.ops):
        if isinstance(op, Conv2d) and (image := conv_image(graph, op)).is_padded:
            size_bytes = image.size * value_bytes(graph, op.input)
            buffers.append(Buffer((), op.name, size_bytes, position, position, Place.ARENA))
    return buffers
