"""What TensorFlow Lite Micro's interpreter makes of model.tflite: what it lacks, and where it rounds otherwise.

Measured with the interpreter itself (tests/exporters/test_tflite_micro.py): operators not named here give the bits of
the NumPy runtime. Its kernels on a Cortex-M are those of CMSIS-NN, measured by benchmarks/cmsis_nn.py in CMSIS-NN's
default, two roundings; what they lack is from tensorflow/lite/micro/kernels/cmsis_nn and arm_convolve_s16.c.
"""

from collections.abc import Iterable, Mapping

from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import (
    Activation,
    ActivationFunction,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Function,
    Layer,
    MaxPool2d,
    Mul,
    Op,
    Softmax,
    Transpose,
    UnaryFunction,
)

MOST_CONCATENATED = 10  # tensorflow/lite/micro/kernels/concatenation.cc: kMaxInputNum
MOST_TRANSPOSED = 5  # axes, the batch among them; tensorflow/lite/micro/kernels/transpose_common.cc
ROUNDING: Mapping[type[Op], str] = {Dense: "rounds twice: one step in about one output of 500"}
LACKING: Mapping[type[Op], str] = {
    Activation: "equal bits; no clamp to -1..1 that stands alone",
    UnaryFunction: "equal bits; no GELU",
    Transpose: f"equal bits; at most {MOST_TRANSPOSED} axes with the batch",
    Concat: f"equal bits; at most {MOST_CONCATENATED} inputs",
}
CMSIS_NN: Mapping[type[Op], str] = {
    Dense: "rounds twice: one step in about one output of 600; no int16 with a scale an output",
    Conv2d: "equal bits; no groups on int16",
    **dict.fromkeys((MaxPool2d, AveragePool2d, Add, Mul, Softmax), "equal bits"),
}


def micro_gaps(graph: Graph) -> tuple[str, ...]:
    """Return what of a network TensorFlow Lite Micro cannot run, a phrase each; empty where it runs all of it."""
    return tuple(dict.fromkeys(_gaps(graph.ops)))


def cmsis_nn_gaps(graph: Graph) -> tuple[str, ...]:
    """Return what of a network CMSIS-NN's kernels cannot run beyond `micro_gaps`, a phrase each."""
    wide = [layer for layer in graph.layers if graph.tensors[layer.input].dtype == "int16"]
    dense = any(isinstance(layer, Dense) and graph.tensors[layer.weight].shape[0] > 1 for layer in wide)
    in_groups = any(_is_in_groups(graph, layer) for layer in wide)
    phrases = {"dense layers on int16 with a scale an output": dense, "convolutions in groups on int16": in_groups}
    return tuple(phrase for phrase, holds in phrases.items() if holds)


def _is_in_groups(graph: Graph, layer: Layer) -> bool:
    return isinstance(layer, Conv2d) and 1 < layer.groups < graph.tensors[layer.input].shape[-1]


def _gaps(ops: Iterable[Op]) -> Iterable[str]:
    for op in ops:
        if isinstance(op, Activation) and op.activation is ActivationFunction.RELU_N1_TO_1:
            yield "a clamp to -1..1 of its own (RELU_N1_TO_1)"
        if isinstance(op, UnaryFunction) and op.function in {Function.GELU, Function.GELU_TANH}:
            yield "GELU"
        if isinstance(op, Concat) and len(op.inputs) > MOST_CONCATENATED:
            yield f"a concatenation of {len(op.inputs)} inputs, more than {MOST_CONCATENATED}"
        if isinstance(op, Transpose) and 1 + len(op.permutation) > MOST_TRANSPOSED:
            yield f"a transpose of {1 + len(op.permutation)} axes, more than {MOST_TRANSPOSED}"
