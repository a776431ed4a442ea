"""One operator of a quantised graph as a call of the function that CMSIS-NN has for it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.fixed_point import activation_range, add_parameters, product_multiplier, quantize_multiplier
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    NO_PADDING,
    UNIT,
    ActivationFunction,
    Add,
    AveragePool2d,
    Clamping,
    Conv2d,
    Dense,
    Layer,
    MaxPool2d,
    Mul,
    Op,
    Padding,
    Size2d,
    Softmax,
    op_inputs,
)
from nettrim_runtime.softmax import distance_multiplier
from nettrim_runtime.softmax_int16 import exponential_table, reciprocal_table, wide_distance_multiplier

Array = npt.NDArray[Any]

NOTHING = np.zeros(0, np.int8)


class Function(enum.IntEnum):
    """The functions, by their numbers in cmsis_nn_calls.c."""

    CONVOLVE = 0
    DEPTHWISE = 1
    FULLY_CONNECTED = 2
    MAX_POOL = 3
    AVERAGE_POOL = 4
    ADD = 5
    MULTIPLY = 6
    SOFTMAX = 7


@dataclass(frozen=True, eq=False)
class Call:
    """A function, its numbers and its arrays.

    Attributes
    ----------
    first, second : Array
        (n_samples, *shape) int8 or int16; of a layer the second is its weight in CMSIS-NN's order, of a softmax on
        int16 the table of exponentials, and ``bias`` that of reciprocals.
    output_shape : tuple of int
        Of one sample.
    multiplier, shift : Array
        int32: one an output channel, or those of a sum's first input, second input and output, or one.
    limits : tuple of int
        The clamp of the output; of a softmax the farthest distance from the largest input, and nothing.
    zero_points : tuple of int
        Of the first input, the second and the output.
    kernel : tuple of int
        Height, width, channels.
    """

    function: Function
    first: Array
    output_shape: tuple[int, ...]
    multiplier: Array
    shift: Array
    limits: tuple[int, int]
    zero_points: tuple[int, int, int] = (0, 0, 0)
    second: Array = field(default_factory=NOTHING.copy)
    bias: Array = field(default_factory=NOTHING.copy)
    kernel: tuple[int, int, int] = (1, 1, 1)
    stride: Size2d = UNIT
    padding: Padding = NO_PADDING
    dilation: Size2d = UNIT
    left_shift: int = 0
    is_per_channel: bool = False

    @property
    def n_outputs(self) -> int:
        """Values that the call gives, all samples together."""
        return len(self.first) * int(np.prod(self.output_shape))

    def to_bytes(self) -> bytes:
        """Return what cmsis_nn_calls.c reads: the fields of its ``struct call`` as int32, then the arrays."""
        arrays = (self.first, self.second, self.bias, self.multiplier, self.shift)
        header = (
            *(self.function, self.first.dtype == np.int16, len(self.first)),
            *(*_image(self.first.shape[1:]), *_image(self.output_shape), *self.kernel),
            *(*self.stride, self.padding.top, self.padding.left, *self.dilation),
            *(*self.zero_points, *self.limits, self.left_shift, self.is_per_channel),
            *(*(array.nbytes for array in arrays), self.n_outputs * self.first.itemsize),
        )
        return np.array(header, "<i4").tobytes() + b"".join(array.tobytes() for array in arrays)


def cmsis_call(graph: Graph, op: Op, buffers: Mapping[str, Array]) -> Call | None:
    """Return the call that stands for an operator, None where CMSIS-NN has no function of its own arithmetic for it.

    Parameters
    ----------
    buffers : Mapping
        Every activation by name, (n_samples, *shape); those that the operator reads are copied.
    """
    inputs = [buffers[name].copy() for name in op_inputs(op)]
    shape = graph.tensors[op.output].shape
    zero_points = _zero_points(graph, op)
    limits = _limits(graph, op)
    match op:
        case Dense():
            return _layer_call(graph, op, inputs[0])
        case Conv2d():
            call = _convolution_call(op, _layer_call(graph, op, inputs[0]))
            is_known = call.function is Function.DEPTHWISE or op.groups == 1 or inputs[0].dtype == np.int8
            return call if is_known else None  # arm_convolve_s16 reads every filter as one over all channels
        case MaxPool2d() | AveragePool2d():
            function = Function.MAX_POOL if isinstance(op, MaxPool2d) else Function.AVERAGE_POOL
            call = Call(function, inputs[0], shape, NOTHING, NOTHING, limits)
            return replace(call, kernel=(*op.kernel_size, 1), stride=op.stride, padding=op.padding)
        case Add():
            found = add_parameters(graph, op)
            multipliers = (found.first_multiplier, found.second_multiplier, found.output_multiplier)
            scaling = _int32(*multipliers), _int32(found.first_shift, found.second_shift, found.output_shift)
            left_shift = found.left_shift
            return Call(Function.ADD, inputs[0], shape, *scaling, limits, zero_points, inputs[1], left_shift=left_shift)
        case Mul():
            scaling = _scaling([product_multiplier(graph, op)])
            return Call(Function.MULTIPLY, inputs[0], shape, *scaling, limits, zero_points, inputs[1])
        case Softmax() if inputs[0].dtype == np.int16:
            scaling = _scaling([wide_distance_multiplier(graph.quantization(op.input).scale[0])])
            call = Call(Function.SOFTMAX, inputs[0], shape, *scaling, limits)
            return replace(call, second=exponential_table(), bias=reciprocal_table())
        case Softmax():
            multiplier, shift, farthest = distance_multiplier(float(graph.quantization(op.input).scale[0]))
            return Call(Function.SOFTMAX, inputs[0], shape, *_scaling([(multiplier, shift)]), (-farthest, 0))
        case _:
            return None


def _layer_call(graph: Graph, op: Layer, values: Array) -> Call:
    weight, scale = graph.tensors[op.weight].values(), graph.quantization(op.weight).scale
    scales = [float(graph.quantization(name).scale[0]) for name in (op.input, op.output)]
    return Call(
        Function.FULLY_CONNECTED,
        values,
        graph.tensors[op.output].shape,
        *_scaling([quantize_multiplier(scales[0] * float(each) / scales[1]) for each in scale]),
        _limits(graph, op),
        _zero_points(graph, op),
        weight,
        graph.tensors[op.bias].values(),
        is_per_channel=bool(np.any(scale != scale[0])),
    )


def _convolution_call(op: Conv2d, call: Call) -> Call:
    _, height, width, channels = call.second.shape
    is_depthwise = op.groups == call.first.shape[-1] and op.groups > 1
    return replace(
        call,
        function=Function.DEPTHWISE if is_depthwise else Function.CONVOLVE,
        second=np.ascontiguousarray(np.moveaxis(call.second, 0, -1)) if is_depthwise else call.second,
        kernel=(height, width, channels),
        stride=op.stride,
        padding=op.padding,
        dilation=op.dilation,
    )


def _limits(graph: Graph, op: Op) -> tuple[int, int]:
    activation = op.activation if isinstance(op, Clamping) else ActivationFunction.NONE
    return activation_range(graph.quantization(op.output), activation, graph.tensors[op.output].dtype)


def _zero_points(graph: Graph, op: Op) -> tuple[int, int, int]:
    names = op_inputs(op)
    first, second, output = (graph.quantization(name).zero_point for name in (names[0], names[-1], op.output))
    return first, second, output


def _scaling(pairs: list[tuple[int, int]]) -> tuple[Array, Array]:
    multipliers, shifts = zip(*pairs, strict=True)
    return _int32(*multipliers), _int32(*shifts)


def _int32(*values: int) -> Array:
    return np.array(values, np.int32)


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as height, width and channels."""
    height, width, channels = (1, 1, *shape)[-3:]
    return height, width, channels
