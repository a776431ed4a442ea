"""What TensorFlow Lite Micro's interpreter makes of model.tflite: what it lacks, and where it rounds otherwise.

Measured with the interpreter itself (tests/exporters/test_tflite_micro.py): operators not named here give the bits of
the NumPy runtime.
"""

from collections.abc import Iterable

from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Activation, ActivationFunction, Concat, Dense, Function, Op, UnaryFunction

MOST_CONCATENATED = 10  # tensorflow/lite/micro/kernels/concatenation.cc: kMaxInputNum
LACKING = "RELU_N1_TO_1 and GELU"
ROUNDING = {Dense: "rounds twice: one step in about one output of 500"}


def micro_gaps(graph: Graph) -> tuple[str, ...]:
    """Return what of a network TensorFlow Lite Micro cannot run, a phrase each; empty where it runs all of it."""
    return tuple(dict.fromkeys(_gaps(graph.ops)))


def _gaps(ops: Iterable[Op]) -> Iterable[str]:
    for op in ops:
        if isinstance(op, Activation) and op.activation is ActivationFunction.RELU_N1_TO_1:
            yield "a clamp to -1..1 of its own (RELU_N1_TO_1)"
        if isinstance(op, UnaryFunction) and op.function in {Function.GELU, Function.GELU_TANH}:
            yield "GELU"
        if isinstance(op, Concat) and len(op.inputs) > MOST_CONCATENATED:
            yield f"a concatenation of {len(op.inputs)} inputs, more than {MOST_CONCATENATED}"
