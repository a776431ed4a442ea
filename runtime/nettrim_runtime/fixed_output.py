"""The scales and zero points that TFLite's integer specification prescribes for outputs of a known range."""

import numpy as np

from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import Function, LogSoftmax, Op, Softmax, UnaryFunction

PROBABILITY = Quantization(np.array([1 / 256], np.float32), -128)
LOGARITHM = Quantization(np.array([16 / 256], np.float32), 127)
FUNCTIONS = {Function.SIGMOID: PROBABILITY, Function.TANH: Quantization(np.array([1 / 128], np.float32), 0)}
WIDE = Quantization(np.array([1 / 32768], np.float32), 0)  # on int16, all of them


def fixed_output(op: Op, dtype: str = "int8") -> Quantization | None:
    """Return the quantization that an operator's output must have, None where its range decides.

    Parameters
    ----------
    dtype : str
        Of the output, "int8" or "int16".
    """
    found = None
    if isinstance(op, Softmax):
        found = PROBABILITY
    elif isinstance(op, LogSoftmax):
        found = LOGARITHM
    elif isinstance(op, UnaryFunction):
        found = FUNCTIONS.get(op.function)
    return WIDE if found is not None and dtype == "int16" else found
