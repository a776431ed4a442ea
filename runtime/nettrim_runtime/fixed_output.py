"""The scales and zero points that TFLite's int8 specification prescribes for outputs of a known range."""

import numpy as np

from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import Function, LogSoftmax, Op, Softmax, UnaryFunction

PROBABILITY = Quantization(np.array([1 / 256], np.float32), -128)
LOGARITHM = Quantization(np.array([16 / 256], np.float32), 127)
FUNCTIONS = {Function.SIGMOID: PROBABILITY, Function.TANH: Quantization(np.array([1 / 128], np.float32), 0)}


def fixed_output(op: Op) -> Quantization | None:
    """Return the quantization that an operator's int8 output must have, None where its range decides."""
    if isinstance(op, Softmax):
        return PROBABILITY
    if isinstance(op, LogSoftmax):
        return LOGARITHM
    return FUNCTIONS.get(op.function) if isinstance(op, UnaryFunction) else None
