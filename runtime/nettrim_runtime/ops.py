"""The operators of a network: one frozen dataclass each, `Op` their union.

Shapes never include the batch axis. Images are (height, width, channels).
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple


class ActivationFunction(enum.Enum):
    """A clamp fused into the operator before it; the values are the names in files and tables."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    RELU_N1_TO_1 = "relu_n1_to_1"

    @property
    def lower(self) -> float:
        """The smallest value it lets through."""
        return {"none": float("-inf"), "relu": 0.0, "relu6": 0.0, "relu_n1_to_1": -1.0}[self.value]

    @property
    def upper(self) -> float:
        """The largest value it lets through."""
        return {"none": float("inf"), "relu": float("inf"), "relu6": 6.0, "relu_n1_to_1": 1.0}[self.value]


class Function(enum.Enum):
    """A function of one value that is no clamp; the values are the names in files and tables."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    HARD_SWISH = "hard_swish"
    LEAKY_RELU = "leaky_relu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RSQRT = "rsqrt"  # 1 / sqrt(x) of positive values


class NearestRule(enum.Enum):
    """Which pixel the nearest one is when an image is resized; the values are the names in files.

    Of pixel i: floor(i * scale), floor((i + 1/2) * scale), each with scale = old size / new size, or i * (old size - 1)
    / (new size - 1) rounded half up.
    """

    ASYMMETRIC = "asymmetric"
    HALF_PIXEL_CENTERS = "half_pixel_centers"
    ALIGN_CORNERS = "align_corners"


class Size2d(NamedTuple):
    """A height and a width: of a filter, a stride or a dilation."""

    height: int
    width: int


class Padding(NamedTuple):
    """Rows and columns added around an image."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


UNIT = Size2d(1, 1)
NO_PADDING = Padding()


@dataclass(frozen=True)
class Dense:
    """activation(weight @ input + bias): weight (n_outputs, n_inputs), bias (n_outputs,)."""

    name: str
    input: str
    weight: str
    bias: str
    output: str
    activation: ActivationFunction = ActivationFunction.NONE


@dataclass(frozen=True)
class Conv2d:
    """2-d correlation: weight (n_outputs, kernel_height, kernel_width, n_channels / groups), padded with zeros.

    ``groups == n_channels`` is a depthwise convolution.
    """

    name: str
    input: str
    weight: str
    bias: str
    output: str
    stride: Size2d = UNIT
    padding: Padding = NO_PADDING
    dilation: Size2d = UNIT
    groups: int = 1
    activation: ActivationFunction = ActivationFunction.NONE


@dataclass(frozen=True)
class MaxPool2d:
    """The largest value of each window; padding never wins."""

    name: str
    input: str
    output: str
    kernel_size: Size2d
    stride: Size2d
    padding: Padding = NO_PADDING


@dataclass(frozen=True)
class AveragePool2d:
    """The mean of each window over the pixels that are there: padding does not count."""

    name: str
    input: str
    output: str
    kernel_size: Size2d
    stride: Size2d
    padding: Padding = NO_PADDING


@dataclass(frozen=True)
class Add:
    """activation(first + second), where an axis of length one stands for all places along it."""

    name: str
    first: str
    second: str
    output: str
    activation: ActivationFunction = ActivationFunction.NONE


@dataclass(frozen=True)
class Sub:
    """activation(first - second), broadcast as `Add`."""

    name: str
    first: str
    second: str
    output: str
    activation: ActivationFunction = ActivationFunction.NONE


@dataclass(frozen=True)
class Mul:
    """activation(first * second), broadcast as `Add`."""

    name: str
    first: str
    second: str
    output: str
    activation: ActivationFunction = ActivationFunction.NONE


@dataclass(frozen=True)
class Concat:
    """The channels of two or more inputs side by side: joined along the last axis, all other sizes equal."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Activation:
    """A clamp that stands alone, because its input is also used elsewhere."""

    name: str
    input: str
    output: str
    activation: ActivationFunction


@dataclass(frozen=True)
class UnaryFunction:
    """A function of every value by itself; ``alpha``, zero or more, is leaky ReLU's slope below zero."""

    name: str
    input: str
    output: str
    function: Function
    alpha: float = 0.0


@dataclass(frozen=True)
class PRelu:
    """The input where it is positive, elsewhere slope * input: slope (n_channels,)."""

    name: str
    input: str
    slope: str
    output: str


@dataclass(frozen=True)
class Reshape:
    """The same values in the shape of the output tensor."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Pad:
    """Zeros ``before`` and ``after`` the values along each axis."""

    name: str
    input: str
    output: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Slice:
    """Along each axis every ``stride``-th value from ``begin`` up to, without, ``end``."""

    name: str
    input: str
    output: str
    begin: tuple[int, ...]
    end: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Transpose:
    """Axes in another order: axis i of the output is axis ``permutation[i]`` of the input."""

    name: str
    input: str
    output: str
    permutation: tuple[int, ...]


@dataclass(frozen=True)
class ResizeNearest:
    """An image of another height and width, each pixel a copy of the nearest one."""

    name: str
    input: str
    output: str
    size: Size2d
    rule: NearestRule = NearestRule.ASYMMETRIC


@dataclass(frozen=True)
class Mean:
    """The mean over some axes, in increasing order; with ``keep_dims`` they stay, of length one."""

    name: str
    input: str
    output: str
    axes: tuple[int, ...]
    keep_dims: bool = True


@dataclass(frozen=True)
class Softmax:
    """exp(input) / sum(exp(input)) over the last axis."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class LogSoftmax:
    """input - log(sum(exp(input))) over the last axis."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Requantize:
    """The same real values by other integers: int8 as int16, or back, or int8 of another scale."""

    name: str
    input: str
    output: str


Move = Pad | Slice | Transpose | ResizeNearest  # values copied to other places
Op = (
    Dense
    | Conv2d
    | MaxPool2d
    | AveragePool2d
    | Add
    | Sub
    | Mul
    | Concat
    | Activation
    | UnaryFunction
    | PRelu
    | Reshape
    | Move
    | Mean
    | Softmax
    | LogSoftmax
    | Requantize
)
Layer = Dense | Conv2d  # the operators that have weights
Pairwise = Add | Sub | Mul  # two activations, value by value
Clamping = Dense | Conv2d | Add | Sub | Mul | Activation  # operators with a clamp of their own
Carrier = (
    MaxPool2d | AveragePool2d | Concat | Activation | Reshape | Move
)  # in int8, all they touch has one quantisation
# Never on int16: TFLite has no kernel for hard swish and log-softmax. That of GELU fills its table in float32 with the
# C library's erfc or tanh, and no choice of scales keeps all entries off the borders of rounding. That of RSQRT stops
# the interpreter at a value below zero, which int8 with a range from zero does not have.
INT8_FUNCTIONS = (Function.HARD_SWISH, Function.GELU, Function.GELU_TANH, Function.RSQRT)

OPERATORS: tuple[type[Op], ...] = (
    *(Dense, Conv2d, MaxPool2d, AveragePool2d, Add, Concat, Activation, Reshape, Softmax),
    *(Requantize, UnaryFunction, Sub, Mul, PRelu, LogSoftmax, Pad, Slice, Transpose, ResizeNearest, Mean),
)


def is_int8_only(op: Op) -> bool:
    """Whether an operator of integers computes on int8 and never on int16."""
    return isinstance(op, LogSoftmax) or (isinstance(op, UnaryFunction) and op.function in INT8_FUNCTIONS)


def op_inputs(op: Op) -> tuple[str, ...]:
    """Return the names of the activations an operator reads; its constants are not among them."""
    if isinstance(op, Pairwise):
        return (op.first, op.second)
    if isinstance(op, Concat):
        return op.inputs
    return (op.input,)


def op_constants(op: Op) -> tuple[str, ...]:
    """Return the names of an operator's weight and bias, its slope, or nothing."""
    if isinstance(op, PRelu):
        return (op.slope,)
    if isinstance(op, Dense | Conv2d):
        return (op.weight, op.bias)
    return ()


def window_count(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """Return how many windows fit along one axis of an image.

    Parameters
    ----------
    size, padding : int
        Pixels along the axis, and pixels added on both sides together.
    """
    return (size + padding - (kernel - 1) * dilation - 1) // stride + 1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what TFLite's SAME adds before and after one axis: ceil(size / stride) windows."""
    windows = -(-size // stride)
    total = max(0, (windows - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2
