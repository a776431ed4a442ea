"""What is known while an ONNX graph becomes a Graph: constants, and where each activation's values lie.

ONNX keeps images as (channels, height, width), the Graph as (height, width, channels). Every
activation carries the position of each of its values in the graph's tensor, so Transpose,
Reshape and Flatten only rearrange positions, and the next layer's weights are permuted instead. A
transpose is left where an operator without weights needs another order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.graph_builder import GraphBuilder
from nettrim.importers.onnx_node import Node, UnknownInputError, refuse
from nettrim.importers.onnx_transposes import find_transpose, inverse, natural_order
from nettrim_runtime.ops import NO_PADDING, Layer, Pad, Padding, Transpose
from nettrim_runtime.shapes import LARGEST_RANK

Array = npt.NDArray[Any]

TEXT_KINDS = "OSU"  # of NumPy's types


@dataclass(frozen=True, eq=False)
class Value:
    """An ONNX activation.

    Attributes
    ----------
    tensor : str
        The graph's tensor that holds its values.
    positions : Array
        Integers in ONNX's shape without the batch axis: where each value lies in the flattened tensor.
    padding : Padding
        Zeros that a Pad node puts around it, for the convolution that follows.
    is_exclusive : bool
        Whether one node reads it, and the network's outputs do not.
    batch : int
        The place of the batch axis in ONNX's shape.
    """

    tensor: str
    positions: Array
    padding: Padding = NO_PADDING
    is_exclusive: bool = False
    batch: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """ONNX's shape without the batch axis."""
        return self.positions.shape

    @property
    def is_flat(self) -> bool:
        """Whether all axes but the last have length one."""
        return bool(self.positions.shape) and self.positions.shape[-1] == self.positions.size


class Conversion:
    """The state of one conversion.

    Parameters
    ----------
    source : str
        The file, for error messages.
    constants : Mapping of str to Array
        The initializers.
    reads : Counter of str
        How often each ONNX tensor is read; being an output of the network counts.
    """

    def __init__(self, source: str, constants: Mapping[str, Array], reads: Counter[str]) -> None:
        self.builder = GraphBuilder(source)
        self.constants = dict(constants)
        self.rewrites: Counter[str] = Counter()
        self.transposes: list[str] = []  # those that no constant could take in, by name
        self.origins: dict[str, tuple[Layer, Array]] = {}  # moved outputs: whose, and each value's output channel
        self.parts: dict[str, tuple[str, ...]] = {}  # vectors of one size, by what they are joined to
        self._padded: dict[str, Value] = {}
        self._turned: dict[tuple[str, tuple[int, ...], tuple[int, ...]], str] = {}
        self._reads = reads
        self._values: dict[str, Value] = {}

    def constant(self, node: Node, index: int, what: str) -> Array:
        """Return a constant input; refuse the node when it is missing or computed from samples."""
        values = self.optional_constant(node, index, what)
        return refuse(node, f"it has no {what}") if values is None else values

    def optional_constant(self, node: Node, index: int, what: str) -> Array | None:
        """Return a constant input, None when it is left out."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.constants:
            refuse(node, f"its {what} is computed by the network, expected a constant")
        values = self.constants[name]
        return refuse(node, f"its {what} is text, expected numbers") if values.dtype.kind in TEXT_KINDS else values

    def padded_value(self, node: Node, index: int = 0) -> Value:
        """Return an activation that a Pad node may have padded."""
        value = self.value_of_any_order(node, index)
        if value.batch:
            refuse(node, f"its input has the batch at axis {value.batch}, expected the batch axis to stay first")
        return value

    def value_of_any_order(self, node: Node, index: int = 0) -> Value:
        """Return an activation whose batch axis may be another than the first."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name in self.constants or not name:
            refuse(node, "it works on a constant, expected an activation")
        if name not in self._values:
            raise UnknownInputError
        return self._values[name]

    def value(self, node: Node, index: int = 0) -> Value:
        """Return an activation; zeros that no convolution takes in are written by an operator of their own."""
        value = self.padded_value(node, index)
        if value.padding == NO_PADDING:
            return value
        name = node.inputs[index]
        if name not in self._padded:
            top, bottom, left, right = value.padding
            ends = [(0, 0), (top, bottom), (left, right)] if len(value.shape) == 3 else [(0, 0), (left, right)]
            self._padded[name] = self.pad(node, value, ends, name)
        return self._padded[name]

    def image(self, node: Node, value: Value) -> str:
        """Return the tensor (height, width, channels) of (channels, height, width), or (1, length, channels)."""
        if len(value.shape) not in {2, 3}:
            refuse(node, f"its input has shape {value.shape}, expected (channels, height, width) or (channels, length)")
        tensor = self.arrange(node, value, (*range(1, len(value.shape)), 0))
        shape = self.builder.tensors[tensor].shape
        return self.builder.reshape(tensor, shape if len(shape) == 3 else (1, *shape))

    def arrange(self, node: Node, value: Value, order: Sequence[int]) -> str:
        """Return the tensor that has an activation's axes in some order, transposed where it lies otherwise."""
        wanted = value.positions.transpose(order)
        return self.builder.reshape(self._transposed(node, value.tensor, wanted.reshape(-1)), wanted.shape)

    def arrange_as(self, node: Node, value: Value, other: Value) -> str:
        """Return the tensor of an activation with its values where those of another one of its shape lie."""
        sources = value.positions.reshape(-1)[np.argsort(other.positions.reshape(-1))]
        tensor = self._transposed(node, value.tensor, sources)
        return self.builder.reshape(tensor, self.builder.tensors[other.tensor].shape)

    def pad(self, node: Node, value: Value, ends: Sequence[tuple[int, int]], wanted: str) -> Value:
        """Return an activation with zeros before and after the values along each axis."""
        order = natural_order(value.positions)
        tensor = self.arrange(node, value, order)
        before, after = zip(*(ends[axis] for axis in order), strict=True)
        op = Pad(self.builder.op_name(f"{wanted}.pad"), tensor, self.builder.tensor_name(wanted), before, after)
        output = self.builder.add(op)
        return replace(value, tensor=output, positions=self.ordered_positions(output, order), padding=NO_PADDING)

    def ordered_positions(self, tensor: str, order: Sequence[int]) -> Array:
        """Return the positions of an activation whose axes a tensor has in some order."""
        return straight_positions(self.builder.tensors[tensor].shape).transpose(inverse(order))

    def _transposed(self, node: Node, tensor: str, sources: Array) -> str:
        """Return a tensor whose value i is value ``sources[i]`` of another one, and note what that takes."""
        turned = self.turn(node, tensor, sources)
        op = self.builder.producer(turned)
        if turned != tensor and op is not None and op.name not in self.transposes:
            self.transposes.append(op.name)
        return turned

    def turn(self, node: Node, tensor: str, sources: Array) -> str:
        """Return a tensor whose value i is value ``sources[i]`` of another one: itself, or by a transpose."""
        if is_straight(sources):
            return tensor
        found = find_transpose(sources)
        if found is None or len(found[0]) > LARGEST_RANK + 1:
            refuse(node, "its input's values lie in an order that no transpose of at most 5 axes gives")
        if (tensor, *found) not in self._turned:
            source = self.builder.reshape(tensor, found[0])
            name = f"{tensor}.transposed"
            op = Transpose(self.builder.op_name(name), source, self.builder.tensor_name(name), found[1])
            self._turned[tensor, *found] = self.builder.add(op)
        return self._turned[tensor, *found]

    def flat(self, node: Node, value: Value) -> tuple[str, Array]:
        """Return the flat tensor of an activation, and the position of each of its features in it."""
        if not value.is_flat:
            refuse(node, f"its input has shape {value.shape}, expected one axis of features (flatten it first)")
        return self.builder.reshape(value.tensor, (value.positions.size,)), value.positions.reshape(-1)

    def put(self, node: Node, tensor: str, positions: Array, batch: int = 0) -> None:
        """Keep a node's first output, which nothing else in the graph shares."""
        name = node.outputs[0]
        self._values[name] = Value(tensor, positions, is_exclusive=self._reads[name] == 1, batch=batch)

    def put_view(self, node: Node, value: Value, positions: Array) -> None:
        """Keep a node's first output that has the values of its input in another shape or order."""
        name = node.outputs[0]
        exclusive = value.is_exclusive and self._reads[name] == 1
        self._values[name] = replace(value, positions=positions, is_exclusive=exclusive)

    def put_padded(self, node: Node, value: Value, padding: Padding) -> None:
        """Keep a node's first output: its input with zeros around it."""
        name = node.outputs[0]
        exclusive = value.is_exclusive and self._reads[name] == 1
        self._values[name] = replace(value, padding=padding, is_exclusive=exclusive)

    def put_image(self, node: Node, tensor: str, rank: int = 3) -> None:
        """Keep a node's first output that the graph holds as an image, of height 1 when ``rank`` is 2."""
        positions = image_positions(self.builder.tensors[tensor].shape)
        self.put(node, tensor, positions if rank == 3 else positions[:, 0])

    def put_ordered(self, node: Node, tensor: str, order: Sequence[int]) -> None:
        """Keep a node's first output whose axes a tensor has in some order."""
        self.put(node, tensor, self.ordered_positions(tensor, order))

    def put_input(self, name: str, value: Value) -> None:
        """Keep the network's input."""
        self._values[name] = replace(value, is_exclusive=self._reads[name] == 1)

    def between(self, node: Node, suffix: str) -> str:
        """Return the name of a tensor between two operators that one node becomes; the second alone reads it."""
        name = f"{node.outputs[0]}.{suffix}"
        self._reads[name] = 1
        return name

    def find(self, name: str) -> Value | None:
        """Return an activation that has been converted."""
        return self._values.get(name)

    def is_read(self, name: str) -> bool:
        """Whether a node or the network's outputs read a tensor."""
        return self._reads[name] > 0


def image_positions(shape: tuple[int, ...]) -> Array:
    """Return where each value of (channels, height, width) lies in a tensor (height, width, channels)."""
    height, width, channels = shape
    return np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1)


def straight_positions(shape: tuple[int, ...]) -> Array:
    """Return the positions of an activation that the graph holds in ONNX's own order."""
    return np.arange(int(np.prod(shape))).reshape(shape)


def is_straight(positions: Array) -> bool:
    """Whether values lie in the graph's tensor in the order given."""
    return np.array_equal(positions.reshape(-1), np.arange(positions.size))
