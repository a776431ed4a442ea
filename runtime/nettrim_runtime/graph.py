"""The network as data: tensors by name, operators in execution order, invariants checked when built."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.csr import CsrMatrix
from nettrim_runtime.errors import GraphError
from nettrim_runtime.ops import (
    Carrier,
    Conv2d,
    Dense,
    Function,
    Layer,
    Op,
    PRelu,
    Requantize,
    UnaryFunction,
    is_int8_only,
    op_constants,
    op_inputs,
)
from nettrim_runtime.shapes import infer_shape, require

Array = npt.NDArray[Any]

DTYPES = ("float32", "int8", "int16", "int32", "int64")
INTEGER_ACTIVATIONS = {"int8": "int32", "int16": "int64"}  # and the type of the biases that go with them


@dataclass(frozen=True, eq=False)
class Quantization:
    """real value = scale * (integer - zero_point).

    Attributes
    ----------
    scale : Array
        float32, (1,) for the whole tensor or (n_channels,) along ``axis``.
    zero_point : int
        The integer that stands for 0.0; 0 for weights and biases.
    axis : int or None
        The axis that ``scale`` runs along, None for one scale a tensor.
    """

    scale: Array
    zero_point: int = 0
    axis: int | None = None

    def quantize(self, values: Array) -> Array:
        """Return int8 of the same shape: round half to even, then saturate. One scale a tensor only."""
        integers = np.rint(np.asarray(values, np.float32) / self.scale[0]) + np.float32(self.zero_point)
        quantized: Array = np.clip(integers, -128, 127).astype(np.int8)
        return quantized

    def dequantize(self, integers: Array) -> Array:
        """Return the float32 values that integers stand for. One scale a tensor only."""
        values: Array = (integers.astype(np.int32) - self.zero_point).astype(np.float32) * self.scale[0]
        return values

    def same_as(self, other: "Quantization") -> bool:
        """Whether both map integers to the same real values."""
        return (
            self.zero_point == other.zero_point and self.axis == other.axis and np.array_equal(self.scale, other.scale)
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """An edge of the graph: an activation, or a constant when ``data`` is there.

    Attributes
    ----------
    shape : tuple of int
        Activations: without the batch axis. Weights: (n_outputs, n_inputs), or
        (n_outputs, kernel_height, kernel_width, n_channels / groups).
    dtype : str
        "float32", and "int8" of one scale for the weights of a hybrid dense layer; of a quantised graph "int8" or
        "int16" (activations, zero point 0), "int8" (weights), "int32" or "int64" (biases of layers on int8 and int16).
    quantization : Quantization or None
        None of floats.
    data : Array, CsrMatrix or None
        A constant's values; a CsrMatrix has a row an output: (shape[0], product of the rest).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    quantization: Quantization | None = None
    data: Array | CsrMatrix | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the values when all are stored."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def stored_bytes(self) -> int:
        """Bytes of a constant as it is stored."""
        return self.data.stored_bytes if isinstance(self.data, CsrMatrix) else self.dense_bytes

    @property
    def nnz(self) -> int:
        """Number of a constant's values that are not zero."""
        return self.data.nnz if isinstance(self.data, CsrMatrix) else int(np.count_nonzero(self.values()))

    def real_values(self) -> Array:
        """Return what the values of a constant with one scale, or none, stand for: float32, dense, in ``shape``."""
        return self.values() if self.quantization is None else self.quantization.dequantize(self.values())

    def values(self) -> Array:
        """Return a constant's values, dense, in ``shape``."""
        if self.data is None:
            raise GraphError(f"tensor {self.name!r} is an activation, expected a constant")
        dense = self.data.to_dense() if isinstance(self.data, CsrMatrix) else self.data
        return dense.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network of one input or more; building one checks it.

    Raises
    ------
    GraphError
        When an operator reads what is not yet computed, a shape or type does not follow
        from the inputs, a tensor is missing, unused or produced twice.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        _check(self)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The operators with weights, in execution order; of those that share theirs the first."""
        found = {op.weight: op for op in reversed(self.ops) if isinstance(op, Dense | Conv2d)}
        return tuple(op for op in self.ops if isinstance(op, Dense | Conv2d) and found[op.weight] is op)

    def sharing(self, weight: str) -> tuple[Layer, ...]:
        """Return the operators that read a weight: as many as steps of a recurrent layer, else one."""
        return tuple(op for op in self.ops if isinstance(op, Dense | Conv2d) and op.weight == weight)

    @property
    def is_quantized(self) -> bool:
        """Whether the activations are integers."""
        return self.tensors[self.inputs[0]].dtype in INTEGER_ACTIVATIONS

    def consumers(self, tensor: str) -> tuple[Op, ...]:
        """Return the operators that read an activation."""
        return tuple(op for op in self.ops if tensor in op_inputs(op))

    def with_tensors(self, tensors: Iterable[Tensor]) -> "Graph":
        """Return the same network with some tensors replaced, by name."""
        return replace(self, tensors={**self.tensors, **{tensor.name: tensor for tensor in tensors}})

    def quantization(self, tensor: str) -> Quantization:
        """Return a tensor's quantization, which a quantised graph always has."""
        found = self.tensors[tensor].quantization
        if found is None:
            raise GraphError(f"{self.name}: tensor {tensor!r} has no quantization, expected a quantised graph")
        return found


def is_hybrid(graph: Graph, op: Dense) -> bool:
    """Return whether a layer's weights are int8 and its activations floats."""
    return not graph.is_quantized and graph.tensors[op.weight].dtype == "int8"


def layer_macs(graph: Graph, op: Layer) -> int:
    """Return the multiply-accumulates that a layer's weights take in one run, zeros included."""
    weight = graph.tensors[op.weight]
    return sum(graph.tensors[each.output].size for each in graph.sharing(op.weight)) * weight.size // weight.shape[0]


def _check(graph: Graph) -> None:
    known = set(graph.inputs)
    names = [op.name for op in graph.ops]
    if len(set(names)) != len(names):
        raise GraphError(f"{graph.name}: two operators have one name")
    for name, tensor in graph.tensors.items():
        if name != tensor.name or tensor.dtype not in DTYPES:
            raise GraphError(f"{graph.name}: tensor {name!r} is called {tensor.name!r}, type {tensor.dtype!r}")
    for op in graph.ops:
        _check_op(graph, op, known)
        known.add(op.output)
    if not graph.inputs or not graph.outputs or not set(graph.outputs) <= known:
        raise GraphError(f"{graph.name}: outputs {graph.outputs} are not all computed from inputs {graph.inputs}")
    used = known.union(*(op_constants(op) for op in graph.ops)) if graph.ops else known
    if used != set(graph.tensors):
        raise GraphError(f"{graph.name}: tensors {sorted(used ^ set(graph.tensors))} are missing or unused")


def _check_op(graph: Graph, op: Op, known: set[str]) -> None:
    names = (*op_inputs(op), *op_constants(op), op.output)
    missing = [name for name in names if name not in graph.tensors]
    require(not missing, op, f"tensors {missing} are missing")
    require(set(op_inputs(op)) <= known, op, "it reads a tensor that no earlier operator writes")
    require(op.output not in known, op, f"tensor {op.output!r} is written twice")
    expected = infer_shape(op, graph.tensors)
    require(graph.tensors[op.output].shape == expected, op, f"output should have shape {expected}")
    for name in (*op_inputs(op), op.output):
        require(graph.tensors[name].data is None, op, f"tensor {name!r} is a constant, expected an activation")
    for name in op_constants(op):
        _check_constant(op, graph.tensors[name])
    if isinstance(op, Dense | Conv2d):
        bias, n_outputs = graph.tensors[op.bias], graph.tensors[op.weight].shape[0]
        require(bias.shape == (n_outputs,), op, f"bias has shape {bias.shape}, expected ({n_outputs},)")
    _check_types(graph, op)


def _check_constant(op: Op, tensor: Tensor) -> None:
    data = tensor.data
    if data is None:
        raise GraphError(f"{type(op).__name__} {op.name!r}: constant {tensor.name!r} has no data")
    values = data.data if isinstance(data, CsrMatrix) else data
    shape = (tensor.shape[0], tensor.size // tensor.shape[0]) if isinstance(data, CsrMatrix) else tensor.shape
    require(data.shape == shape, op, f"constant {tensor.name!r} holds {data.shape}, expected {shape}")
    require(values.dtype == tensor.dtype, op, f"constant {tensor.name!r} holds {values.dtype}, not {tensor.dtype}")


def _check_types(graph: Graph, op: Op) -> None:
    tensors, names = graph.tensors, (*op_inputs(op), op.output)
    quantized, expected = graph.is_quantized, tensors[op_inputs(op)[0]].dtype
    known = tuple(INTEGER_ACTIVATIONS) if quantized else ("float32",)
    for name in names:
        found = tensors[name].dtype
        require(found in known, op, f"tensor {name!r} is {found}, expected {' or '.join(known)}")
        require(found == expected or isinstance(op, Requantize), op, f"tensor {name!r} is {found}, not {expected}")
        require((tensors[name].quantization is not None) == quantized, op, f"tensor {name!r}: quantization and type")
        centred = found != "int16" or graph.quantization(name).zero_point == 0
        require(centred, op, f"tensor {name!r} is int16 with a zero point, expected zero point 0")
    if isinstance(op, Dense | Conv2d):
        found_types = (tensors[op.weight].dtype, tensors[op.bias].dtype)
        hybrid = isinstance(op, Dense) and is_hybrid(graph, op)
        types = ("int8" if quantized or hybrid else "float32", INTEGER_ACTIVATIONS.get(expected, "float32"))
        require(found_types == types, op, f"constants are {found_types}, expected {types}")
        if quantized or hybrid:
            scale, n_scales = graph.quantization(op.weight).scale, 1 if hybrid else tensors[op.weight].shape[0]
            require(scale.shape == (n_scales,), op, f"weight scale has shape {scale.shape}, expected ({n_scales},)")
    if isinstance(op, UnaryFunction):
        slope = op.alpha if op.function is Function.LEAKY_RELU else -op.alpha
        require(0 <= slope < math.inf, op, f"alpha {op.alpha}, expected zero or more of a leaky ReLU, else zero")
    if isinstance(op, PRelu):
        found, wanted = tensors[op.slope].dtype, "int8" if quantized else "float32"
        require(found == wanted, op, f"slopes are {found}, expected {wanted}")
        if quantized:
            own = graph.quantization(op.slope)
            is_plain = own.scale.shape == (1,) and own.zero_point == 0
            require(is_plain, op, "slopes with a zero point or several scales, expected one scale and none")
    if is_int8_only(op):
        require(expected != "int16", op, "its input is int16, expected int8 or float32")
    if quantized and isinstance(op, Carrier):
        output = graph.quantization(op.output)
        same = all(graph.quantization(name).same_as(output) for name in op_inputs(op))
        require(same, op, "inputs and output must share one quantization")
