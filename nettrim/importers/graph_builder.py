"""Builds a Graph operator by operator; names stay unique and constants are checked."""

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Layer, Op, Reshape, op_constants, op_inputs
from nettrim_runtime.shapes import infer_shape

Array = npt.NDArray[Any]

MAX_ACTIVATION_VALUES = 1 << 24  # 64 MiB of floats; more fits no board and would fill the memory here


class GraphBuilder:
    """Operators and tensors of a graph that is not yet complete.

    Parameters
    ----------
    source : str
        The file it comes from, for error messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tensors: dict[str, Tensor] = {}
        self._ops: dict[str, Op] = {}  # by the tensor they write, in execution order
        self._op_names: set[str] = set()
        self._op_numbers: dict[str, int] = {}  # the next one to try behind a name
        self._tensor_numbers: dict[str, int] = {}
        self._reshaped: dict[tuple[str, tuple[int, ...]], str] = {}

    def op_name(self, wanted: str) -> str:
        """Return a name that no operator has yet, and keep it."""
        name = _unused(wanted, self._op_names, self._op_numbers)
        self._op_names.add(name)
        return name

    def tensor_name(self, wanted: str) -> str:
        """Return a name that no tensor has yet."""
        return _unused(wanted, self.tensors, self._tensor_numbers)

    def add_input(self, wanted: str, shape: tuple[int, ...]) -> str:
        """Add an activation that no operator writes; return its name."""
        return self._put(Tensor(self.tensor_name(wanted), shape))

    def add_constant(self, wanted: str, values: Array) -> str:
        """Add float32 values; return their name.

        Raises
        ------
        ModelFileError
            When they hold NaN or infinity.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold is reported below
            data = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(data).all():
            raise ModelFileError(f"{self.source}: constant {wanted!r} holds NaN or infinity, expected trained weights")
        return self._put(Tensor(self.tensor_name(wanted), data.shape, data=data))

    def add(self, op: Op) -> str:
        """Append an operator; return the name of its output, whose shape follows from its inputs."""
        self._put(Tensor(op.output, infer_shape(op, self.tensors)))
        self._ops[op.output] = op
        return op.output

    def reshape(self, tensor: str, shape: tuple[int, ...], wanted: str | None = None) -> str:
        """Return a tensor with the same values in another shape: itself, an earlier one, or a new one."""
        if self.tensors[tensor].shape == shape and wanted is None:
            return tensor
        if (tensor, shape) not in self._reshaped or wanted is not None:
            title = wanted or f"{tensor}.{'flat' if len(shape) == 1 else 'reshaped'}"
            output = self._put(Tensor(self.tensor_name(title), shape))
            self._reshaped[tensor, shape] = self.add(Reshape(self.op_name(title), tensor, output))
        return self._reshaped[tensor, shape]

    def producer(self, tensor: str) -> Op | None:
        """Return the operator that writes a tensor; None for an input."""
        return self._ops.get(tensor)

    def replace_layer(self, layer: Layer, weight: Array, bias: Array) -> None:
        """Give a layer other values of the same shapes; its outputs change, so nothing may have read them."""
        for name, values in ((layer.weight, weight), (layer.bias, bias)):
            del self.tensors[name]
            self.add_constant(name, values)

    def remove(self, op: Op) -> None:
        """Take an operator without constants back; nothing may have read it."""
        del self._ops[op.output]
        del self.tensors[op.output]
        self._op_names.remove(op.name)

    def rename(self, tensor: str, wanted: str) -> str:
        """Give the output of the operator that was added last another name; return it."""
        op = self._ops.pop(tensor)
        name = self.tensor_name(wanted)
        self._put(replace(self.tensors.pop(tensor), name=name))
        self._ops[name] = replace(op, output=name)
        return name

    def build(self, name: str, inputs: Iterable[str], outputs: Iterable[str]) -> Graph:
        """Return the graph, without what no output needs; building checks it."""
        kept, ends = tuple(inputs), tuple(outputs)
        needed, ops = {*kept, *ends}, []
        for op in reversed(self._ops.values()):
            if op.output in needed:
                ops.append(op)
                needed.update((*op_inputs(op), *op_constants(op)))
        tensors = {key: tensor for key, tensor in self.tensors.items() if key in needed}
        return Graph(name, kept, ends, tuple(reversed(ops)), tensors)

    def _put(self, tensor: Tensor) -> str:
        if min(tensor.shape, default=1) < 1 or (tensor.data is None and tensor.size > MAX_ACTIVATION_VALUES):
            raise ModelFileError(
                f"{self.source}: tensor {tensor.name!r} has shape {tensor.shape}, expected sizes of at least one"
                f" and at most {MAX_ACTIVATION_VALUES} values"
            )
        self.tensors[tensor.name] = tensor
        return tensor.name


def _unused(wanted: str, taken: Container[str], numbers: dict[str, int]) -> str:
    """Return a name that is not taken: the one wanted, or that with the next number behind it."""
    if wanted not in taken:
        return wanted
    number = numbers.get(wanted, 2)
    while f"{wanted}_{number}" in taken:
        number += 1
    numbers[wanted] = number
    return f"{wanted}_{number}"
