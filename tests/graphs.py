"""Small random networks for tests: float graphs, and the same quantised on random samples."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.quantize import quantize_graph
from nettrim.widen import widenable
from nettrim_runtime.engine import prepare, run_graph
from nettrim_runtime.graph import Graph, Quantization, Tensor
from nettrim_runtime.ops import (
    Activation,
    ActivationFunction,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Function,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Mul,
    NearestRule,
    Op,
    Pad,
    Padding,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Size2d,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
)
from nettrim_runtime.shapes import infer_shape

Array = npt.NDArray[Any]

OTHER_SCALES = ((0.031, -7), (0.05, 3), (0.2, 5), (0.001, 0))  # and zero points, to rescale to
RELU, RELU6, NONE = ActivationFunction.RELU, ActivationFunction.RELU6, ActivationFunction.NONE
EVERYWHERE = tuple(function for function in Function if function is not Function.RSQRT)  # of values of any sign


class GraphBuilder:
    """Adds operators one after the other, with random weights; `output` is the tensor added last."""

    def __init__(self, rng: np.random.Generator, input_shape: tuple[int, ...]) -> None:
        self.rng = rng
        self.ops: list[Op] = []
        self.tensors = {"input": Tensor("input", input_shape)}
        self.output = "input"

    def dense(self, n_outputs: int, activation: ActivationFunction = NONE, density: float = 1.0) -> str:
        n_inputs = self.tensors[self.output].shape[0]
        name = f"dense{len(self.ops)}"
        self._constants(name, (n_outputs, n_inputs), density)
        return self._append(
            Dense(name, self.output, f"{name}.weight", f"{name}.bias", f"{name}.out", activation=activation)
        )

    def conv(
        self,
        n_outputs: int,
        kernel: tuple[int, int] = (3, 3),
        activation: ActivationFunction = NONE,
        density: float = 1.0,
        groups: int = 1,
        **options: Any,
    ) -> str:
        n_channels = self.tensors[self.output].shape[2]
        name = f"conv{len(self.ops)}"
        self._constants(name, (n_outputs, *kernel, n_channels // groups), density)
        return self._append(
            Conv2d(
                name,
                self.output,
                f"{name}.weight",
                f"{name}.bias",
                f"{name}.out",
                groups=groups,
                activation=activation,
                **options,
            )
        )

    def max_pool(self, size: int = 2, stride: int = 2, padding: Padding | None = None) -> str:
        name = f"max_pool{len(self.ops)}"
        sizes = (Size2d(size, size), Size2d(stride, stride), padding or Padding())
        return self._append(MaxPool2d(name, self.output, f"{name}.out", *sizes))

    def average_pool(self, size: tuple[int, int], stride: int = 1, padding: Padding | None = None) -> str:
        name = f"average_pool{len(self.ops)}"
        sizes = (Size2d(*size), Size2d(stride, stride), padding or Padding())
        return self._append(AveragePool2d(name, self.output, f"{name}.out", *sizes))

    def add(self, other: str, activation: ActivationFunction = NONE) -> str:
        name = f"add{len(self.ops)}"
        return self._append(Add(name, self.output, other, f"{name}.out", activation=activation))

    def sub(self, other: str, activation: ActivationFunction = NONE) -> str:
        name = f"sub{len(self.ops)}"
        return self._append(Sub(name, self.output, other, f"{name}.out", activation=activation))

    def mul(self, other: str, activation: ActivationFunction = NONE) -> str:
        name = f"mul{len(self.ops)}"
        return self._append(Mul(name, self.output, other, f"{name}.out", activation=activation))

    def concat(self, *others: str) -> str:
        name = f"concat{len(self.ops)}"
        return self._append(Concat(name, (self.output, *others), f"{name}.out"))

    def activation(self, function: ActivationFunction) -> str:
        name = f"activation{len(self.ops)}"
        return self._append(Activation(name, self.output, f"{name}.out", function))

    def function(self, function: Function, alpha: float = 0.0) -> str:
        name = f"{function.value}{len(self.ops)}"
        return self._append(UnaryFunction(name, self.output, f"{name}.out", function, alpha))

    def inverse_root(self) -> str:
        """Add x * rsqrt(x * x + 1)."""
        source = self.output
        n_channels = self.tensors[self.mul(source)].shape[-1]
        self.conv(n_channels, (1, 1), groups=n_channels)
        conv = self.ops[-1]
        assert isinstance(conv, Conv2d)
        for name, value in ((conv.weight, 0.9), (conv.bias, 1.0)):
            data = np.full(self.tensors[name].shape, value, np.float32)
            self.tensors[name] = Tensor(name, data.shape, data=data)
        self.function(Function.RSQRT)
        return self.mul(source)

    def prelu(self) -> str:
        name = f"prelu{len(self.ops)}"
        slope = self.rng.uniform(-0.5, 0.8, self.tensors[self.output].shape[-1]).astype(np.float32)
        self.tensors[f"{name}.slope"] = Tensor(f"{name}.slope", slope.shape, data=slope)
        return self._append(PRelu(name, self.output, f"{name}.slope", f"{name}.out"))

    def reshape(self, *shape: int) -> str:
        name = f"reshape{len(self.ops)}"
        self.tensors[f"{name}.out"] = Tensor(f"{name}.out", shape)
        return self._append(Reshape(name, self.output, f"{name}.out"))

    def flatten(self) -> str:
        return self.reshape(self.tensors[self.output].size)

    def pad(self, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        name = f"pad{len(self.ops)}"
        return self._append(Pad(name, self.output, f"{name}.out", before, after))

    def slice(self, begin: tuple[int, ...], end: tuple[int, ...], stride: tuple[int, ...]) -> str:
        name = f"slice{len(self.ops)}"
        return self._append(Slice(name, self.output, f"{name}.out", begin, end, stride))

    def transpose(self, *permutation: int) -> str:
        name = f"transpose{len(self.ops)}"
        return self._append(Transpose(name, self.output, f"{name}.out", permutation))

    def resize(self, height: int, width: int, rule: NearestRule = NearestRule.ASYMMETRIC) -> str:
        name = f"resize{len(self.ops)}"
        return self._append(ResizeNearest(name, self.output, f"{name}.out", Size2d(height, width), rule))

    def mean(self, *axes: int, keep_dims: bool = True) -> str:
        name = f"mean{len(self.ops)}"
        return self._append(Mean(name, self.output, f"{name}.out", axes, keep_dims))

    def softmax(self) -> str:
        name = f"softmax{len(self.ops)}"
        return self._append(Softmax(name, self.output, f"{name}.out"))

    def log_softmax(self) -> str:
        name = f"log_softmax{len(self.ops)}"
        return self._append(LogSoftmax(name, self.output, f"{name}.out"))

    def build(self, name: str = "net") -> Graph:
        return Graph(name, ("input",), (self.output,), tuple(self.ops), self.tensors)

    def _constants(self, name: str, shape: tuple[int, ...], density: float) -> None:
        weight = self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weight = np.where(self.rng.random(shape) < density, weight, 0).astype(np.float32)
        bias = self.rng.normal(size=shape[0], scale=0.1).astype(np.float32)
        self.tensors[f"{name}.weight"] = Tensor(f"{name}.weight", shape, data=weight)
        self.tensors[f"{name}.bias"] = Tensor(f"{name}.bias", (shape[0],), data=bias)

    def _append(self, op: Op) -> str:
        self.ops.append(op)
        shape = infer_shape(op, {op.output: Tensor(op.output, ()), **self.tensors})
        self.tensors[op.output] = Tensor(op.output, shape)
        self.output = op.output
        return op.output


LINEAR: dict[str, Callable[[GraphBuilder], object]] = {  # on images of 5 x 4 x 3
    "pad": lambda net: net.pad((1, 0, 2), (0, 2, 1)),
    "slice": lambda net: net.slice((1, 0, 0), (5, 4, 2), (3, 2, 1)),
    "transpose": lambda net: net.transpose(2, 0, 1),
    "resize": lambda net: net.resize(7, 9),
    "smaller": lambda net: net.resize(3, 2, NearestRule.HALF_PIXEL_CENTERS),
    "mean": lambda net: net.mean(0, 2),
}


def matrix_of(graph: Graph) -> Array:
    """Return (n_outputs, n_inputs) float64 of a graph that is affine."""
    shape = graph.tensors[graph.inputs[0]].shape
    basis = np.eye(int(np.prod(shape)), dtype=np.float32).reshape(-1, *shape)
    columns = run_graph(graph, basis) - run_graph(graph, np.zeros((1, *shape), np.float32))
    return columns.reshape(len(basis), -1).T.astype(np.float64)


def random_mlp(rng: np.random.Generator, density: float = 1.0) -> Graph:
    """Return 20-16-12-5 with relus and a softmax."""
    builder = GraphBuilder(rng, (20,))
    builder.dense(16, RELU, density)
    builder.dense(12, RELU6, density)
    builder.dense(5, NONE, density)
    builder.softmax()
    return builder.build("mlp")


def random_cnn(rng: np.random.Generator, density: float = 1.0) -> Graph:
    """Return a small residual network on 10 x 8 x 3 images that uses every operator but Concat."""
    builder = GraphBuilder(rng, (10, 8, 3))
    builder.conv(8, (3, 3), RELU, density, padding=Padding(1, 1, 1, 1))
    shortcut = builder.max_pool()
    builder.conv(8, (3, 3), RELU6, density, groups=8, padding=Padding(1, 1, 1, 1))
    builder.conv(8, (1, 1), NONE, density)
    branch = builder.add(shortcut)
    builder.activation(RELU)
    builder.add(branch)
    builder.conv(6, (3, 2), RELU, density, stride=Size2d(2, 1), padding=Padding(0, 1, 1, 0))
    builder.average_pool(builder.tensors[builder.output].shape[:2])
    builder.flatten()
    builder.dense(5, NONE, density)
    builder.softmax()
    return builder.build("cnn")


def random_branches(rng: np.random.Generator, density: float = 1.0) -> Graph:
    """Return two branches on 4 x 4 x 3 images that are joined, and their flat image joined with a layer on it."""
    builder = GraphBuilder(rng, (4, 4, 3))
    first = builder.conv(5, (3, 3), RELU, density, padding=Padding(1, 1, 1, 1))
    builder.output = "input"
    second = builder.conv(4, (1, 1), NONE, density)
    builder.output = first
    builder.concat(second)
    builder.conv(6, (1, 1), RELU, density)
    builder.max_pool()
    flat = builder.flatten()
    hidden = builder.dense(4, RELU, density)
    builder.output = flat
    builder.concat(hidden)
    builder.dense(5, NONE, density)
    builder.softmax()
    return builder.build("branches")


def rescaled(scale: float, zero_point: int) -> Graph:
    """Return 40 int8 values of scale 0.05 and zero point 3 by another scale and zero point, and a relu."""
    tensors = {
        name: Tensor(name, (40,), "int8", Quantization(np.array([own], np.float32), zero))
        for name, own, zero in (("input", 0.05, 3), ("rescaled", scale, zero_point), ("output", scale, zero_point))
    }
    ops = (Requantize("requantize", "input", "rescaled"), Activation("relu", "rescaled", "output", RELU))
    return Graph("rescaled", ("input",), ("output",), ops, tensors)


def random_functions(rng: np.random.Generator, density: float = 1.0) -> Graph:
    """Return layers on 6 x 5 x 3 images with functions of one value behind them, and gates for channels and pixels."""
    builder = GraphBuilder(rng, (6, 5, 3))
    for function in EVERYWHERE:
        builder.conv(4, (2, 1), density=density, padding=Padding(1, 0, 0, 0))
        builder.function(function, 0.2 if function is Function.LEAKY_RELU else 0.0)
    image = builder.conv(4, (1, 1), density=density, groups=4)
    builder.average_pool(builder.tensors[image].shape[:2])
    builder.conv(4, (1, 1), density=density)
    builder.function(Function.SIGMOID)
    gated = builder.mul(image, RELU)
    builder.conv(1, (1, 1), density=density)
    builder.add(gated)
    builder.sub(image, RELU6)
    builder.conv(5, (2, 2), density=density)
    builder.prelu()
    builder.inverse_root()
    builder.flatten()
    builder.function(Function.TANH)
    builder.dense(5, NONE, density)
    builder.log_softmax()
    return builder.build("functions")


def random_moves(rng: np.random.Generator, density: float = 1.0) -> Graph:
    """Return a network on 6 x 5 x 4 images that pads, slices, transposes, resizes and takes means."""
    builder = GraphBuilder(rng, (6, 5, 4))
    builder.conv(6, (3, 3), RELU, density)
    image = builder.resize(8, 6)
    left = builder.slice((0, 0, 0), (8, 6, 2), (1, 1, 1))
    builder.output = image
    builder.slice((0, 0, 2), (8, 6, 6), (1, 1, 1))
    builder.concat(left)
    builder.pad((1, 0, 0), (0, 2, 0))
    builder.slice((1, 0, 0), (9, 8, 6), (2, 1, 1))
    builder.transpose(1, 0, 2)
    builder.conv(5, (3, 3), RELU6, density, padding=Padding(1, 1, 1, 1))
    builder.pad((0, 0, 1), (0, 0, 0))
    builder.mean(0, keep_dims=False)
    builder.transpose(1, 0)
    builder.mean(1)
    builder.flatten()
    builder.dense(5, NONE, density)
    builder.softmax()
    return builder.build("moves")


def random_inputs(graph: Graph, rng: np.random.Generator, n_samples: int) -> Array:
    """Return standard normal float32 samples, or int8 over the whole range for a quantised graph."""
    shape = (n_samples, *graph.tensors[graph.inputs[0]].shape)
    if graph.is_quantized:
        return rng.integers(-128, 128, size=shape, dtype=np.int8)
    return rng.normal(size=shape).astype(np.float32)


def quantized(graph: Graph, rng: np.random.Generator, wide: Collection[str] = ()) -> Graph:
    """Return the graph in int8, and int16 where it is ``wide``, with ranges from 32 random samples."""
    program = prepare(graph, 32)
    program.run(random_inputs(graph, rng, 32))
    ranges = {name: (float(values.min()), float(values.max())) for name, values in program.buffers.items()}
    return quantize_graph(graph, ranges, wide)


def widened(graph: Graph, rng: np.random.Generator, share: float = 1.0) -> Graph:
    """Return the graph with a share of the activations that may be int16 in that type, the others in int8."""
    wide = [found for found in widenable(graph) if rng.random() < share]
    return quantized(graph, rng, frozenset().union(*wide))
