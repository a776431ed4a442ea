"""Which convolutions of one pixel XNNPACK multiplies sparse on ARM: all between a stem and a global average pool.

It takes over a stretch of float operators on images, channels first, where it knows each of them and more than two
thirds of the weights of all convolutions of one pixel are zeros (XNNPACK, src/subgraph.c, sparse inference). Where the
stretch ends at an operator that it does not know, results were off by up to half a per cent: such networks stay dense
(`benchmarks.sparse_tflite` counts a network of this kind).
"""

from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    NO_PADDING,
    UNIT,
    Activation,
    Add,
    AveragePool2d,
    Conv2d,
    Function,
    Op,
    Padding,
    Size2d,
    UnaryFunction,
    op_inputs,
)

LEAST_ZEROS = 2 / 3
IMAGE_CHANNELS = 3  # that the stem reads
HALVING = Size2d(2, 2)
PADDINGS = {3: Padding(1, 1, 1, 1), 5: Padding(2, 2, 2, 2)}  # of a depthwise convolution, by its kernel
FUNCTIONS = {Function.HARD_SWISH, Function.LEAKY_RELU, Function.SIGMOID}


def sparse_convolutions(graph: Graph) -> tuple[str, ...]:
    """Return the names of the convolutions of one pixel, none where XNNPACK would not run all of them sparse."""
    pools = [place for place, op in enumerate(graph.ops) if _is_global_pool(graph, op)]
    if graph.is_quantized or not pools or pools[0] == 0:
        return ()
    stem, *stretch = graph.ops[: pools[0]]
    found = [op for op in stretch if isinstance(op, Conv2d) and _is_pointwise(graph, op)]
    is_whole = _is_stem(graph, stem) and all(op in found or _is_known(graph, op) for op in stretch)
    if not found or not is_whole or any(_reads_images(graph, op) for op in graph.ops[pools[0] + 1 :]):
        return ()
    weights = [graph.tensors[op.weight] for op in found]
    if any(weight.nnz == 0 for weight in weights):  # DENSIFY takes no constant without a value
        return ()
    zeros = 1 - sum(weight.nnz for weight in weights) / sum(weight.size for weight in weights)
    return tuple(op.name for op in found) if zeros > LEAST_ZEROS else ()


def _is_stem(graph: Graph, op: Op) -> bool:
    return (
        isinstance(op, Conv2d)
        and op.input == graph.inputs[0]
        and graph.tensors[op.weight].shape[1:] == (3, 3, IMAGE_CHANNELS)
        and (op.stride, op.padding, op.dilation) == (HALVING, PADDINGS[3], UNIT)
    )


def _is_pointwise(graph: Graph, op: Conv2d) -> bool:
    is_plain = (op.stride, op.padding, op.groups) == (UNIT, NO_PADDING, 1)
    return is_plain and graph.tensors[op.weight].shape[1:3] == (1, 1)


def _is_known(graph: Graph, op: Op) -> bool:
    match op:
        case Conv2d():
            n_outputs, height, width, _ = graph.tensors[op.weight].shape
            is_depthwise = op.groups == n_outputs == graph.tensors[op.input].shape[2] and op.dilation == UNIT
            is_square = height == width and op.stride in {UNIT, HALVING}
            return is_depthwise and is_square and op.padding == PADDINGS.get(height)
        case Add():
            return graph.tensors[op.first].shape == graph.tensors[op.second].shape
        case UnaryFunction():
            return op.function in FUNCTIONS
        case _:
            return isinstance(op, Activation)


def _is_global_pool(graph: Graph, op: Op) -> bool:
    return (
        isinstance(op, AveragePool2d)
        and op.kernel_size == graph.tensors[op.input].shape[:2]
        and op.padding == NO_PADDING
    )


def _reads_images(graph: Graph, op: Op) -> bool:
    """Whether an operator reads more than one pixel."""
    return any(len(shape) == 3 and shape[:2] != UNIT for shape in (graph.tensors[name].shape for name in op_inputs(op)))
