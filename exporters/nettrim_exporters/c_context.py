"""What the C text of every operator is made of: where tensors lie, constants, calls and structs."""

from dataclasses import dataclass
from typing import Any, assert_never

import numpy.typing as npt

from nettrim_exporters.c_values import CArray
from nettrim_exporters.memory_plan import Buffer, MemoryPlan, Place
from nettrim_runtime.graph import Graph

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class CStep:
    """One operator of the run function.

    Attributes
    ----------
    op_name : str
        The operator's name in the graph.
    comment : str
        What it is, safe inside a C comment.
    arrays : tuple of CArray
        Its constants.
    statements : tuple of str
        C statements of one block, the kernel call last.
    """

    op_name: str
    comment: str
    arrays: tuple[CArray, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Context:
    """What every operator of one graph needs: where tensors lie, and how its arrays are called."""

    graph: Graph
    plan: MemoryPlan
    prefix: str

    def pointer(self, tensor: str) -> str:
        """Return the C expression of an activation's address, of its type."""
        return wide_pointer(self.plan.buffer_of(tensor)) if self.suffix(tensor) else self.bytes(tensor)

    def bytes(self, tensor: str) -> str:
        """Return the C expression of an activation's address, of bytes."""
        buffer = self.plan.buffer_of(tensor)
        match buffer.place:
            case Place.INPUT:
                return "in"
            case Place.OUTPUT:
                return "out"
            case Place.ARENA:
                return f"bytes + {buffer.offset}"
            case _:
                assert_never(buffer.place)

    def suffix(self, tensor: str) -> str:
        """Return what the names of kernels on an activation's type end in."""
        return "16" if self.graph.tensors[tensor].dtype == "int16" else ""

    def size(self, tensor: str) -> int:
        return self.graph.tensors[tensor].size


def call_text(kernel: str, *arguments: object) -> str:
    return f"{kernel}({', '.join(map(str, arguments))});"


def struct_text(declaration: str, **fields: object) -> str:
    """Return a constant struct; positional, because C++ has no designated initializers before C++20."""
    values = [f"    {value}, /* {name} */" for name, value in fields.items()]
    return "\n".join([f"const {declaration} = {{", *values, "};"])


def wide_pointer(buffer: Buffer) -> str:
    """Return the address of int16 values in the arena, whose buffers start at multiples of 16."""
    return f"(int16_t *)(void *)(bytes + {buffer.offset})"
