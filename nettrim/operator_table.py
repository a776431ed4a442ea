"""The README's table of operators: what each is read from, and what it can do beside float and int8 in every room.

    python -m nettrim.operator_table README.md

writes it between the markers of a Markdown file.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nettrim_exporters.tflite_codes import FUNCTIONS
from nettrim_exporters.tflite_micro import CMSIS_NN, LACKING, ROUNDING
from nettrim_runtime.ops import (
    INT8_FUNCTIONS,
    OPERATORS,
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Layer,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Mul,
    Op,
    Pad,
    PRelu,
    Requantize,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    UnaryFunction,
)

BEGIN, END = "<!-- operators: begin -->", "<!-- operators: end -->"


@dataclass(frozen=True)
class Sources:
    """The names by which files know an operator; one may stand for several."""

    onnx: tuple[str, ...] = ()
    tflite: tuple[str, ...] = ()
    keras: tuple[str, ...] = ()


SOURCES: dict[type[Op], Sources] = {
    Dense: Sources(("Gemm", "MatMul"), ("FULLY_CONNECTED", "BATCH_MATMUL"), ("Dense",)),
    Conv2d: Sources(("Conv",), ("CONV_2D", "DEPTHWISE_CONV_2D"), ("Conv2D", "DepthwiseConv2D")),
    MaxPool2d: Sources(
        ("MaxPool", "GlobalMaxPool"), ("MAX_POOL_2D", "REDUCE_MAX"), ("MaxPooling2D", "GlobalMaxPooling2D")
    ),
    AveragePool2d: Sources(
        ("AveragePool", "GlobalAveragePool", "ReduceMean"),
        ("AVERAGE_POOL_2D", "MEAN"),
        ("AveragePooling2D", "GlobalAveragePooling2D"),
    ),
    Add: Sources(("Add",), ("ADD",), ("Add",)),
    Sub: Sources(("Sub",), ("SUB",), ("Subtract",)),
    Mul: Sources(("Mul", "Div", "Neg", "Pow"), ("MUL", "DIV", "SQUARE", "POW"), ("Multiply",)),
    Concat: Sources(("Concat",), ("CONCATENATION", "PACK"), ("Concatenate",)),
    Activation: Sources(
        ("Relu", "Clip", "Max", "Min"),
        ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "MINIMUM", "MAXIMUM"),
        ("ReLU", "Relu", "Relu6"),
    ),
    UnaryFunction: Sources(
        ("Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Gelu"),
        ("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU", "GELU", "RSQRT"),
        ("Activation", "LeakyReLU", "Sigmoid", "Silu", "Tanh"),
    ),
    PRelu: Sources(("PRelu",), ("PRELU",), ("PReLU",)),
    Reshape: Sources(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze"), ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), ("Reshape", "Flatten")
    ),
    Softmax: Sources(("Softmax",), ("SOFTMAX",), ("Softmax",)),
    LogSoftmax: Sources(("LogSoftmax",), ("LOG_SOFTMAX",)),
    Pad: Sources(("Pad",), ("PAD", "PADV2"), ("ZeroPadding2D",)),
    Slice: Sources(("Slice", "Split", "Gather"), ("SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK", "GATHER")),
    Transpose: Sources(("Transpose",), ("TRANSPOSE", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH")),
    ResizeNearest: Sources(("Resize", "Upsample"), ("RESIZE_NEAREST_NEIGHBOR",)),
    Mean: Sources(("ReduceMean",), ("MEAN", "SUM")),
    Requantize: Sources((), ("QUANTIZE", "DEQUANTIZE")),
}
# Made of several of these operators, or folded into them.
COMPOSED = Sources(
    onnx=("BatchNormalization", "ConvTranspose", "GRU", "HardSigmoid", "LSTM", "LayerNormalization", "Swish"),
    tflite=("DENSIFY", "SQUARED_DIFFERENCE", "TRANSPOSE_CONV"),
    keras=("BatchNormalization", "Divide", "Normalization", "Rescaling", "SeparableConv2D"),
)
# Gone from a trained network, or names under which a file keeps other layers.
WITHOUT_OPERATOR = Sources(
    onnx=("Dropout", "Identity"),
    keras=(
        *("ActivityRegularization", "AlphaDropout", "BatchNormalizationV1", "Dropout", "GaussianDropout"),
        *("GaussianNoise", "Identity", "InputLayer", "RandomContrast", "RandomFlip", "RandomRotation"),
        *("RandomTranslation", "RandomZoom", "SpatialDropout2D", "TFOpLambda", "TrueDivide"),
    ),
)


def render_operator_table() -> str:
    """Return the table as Markdown."""
    head = ("operator", "ONNX", ".tflite", "Keras", "pruned", "int16", "TensorFlow Lite Micro", "with CMSIS-NN")
    rows = [head, ("---",) * len(head), *(_row(operator) for operator in OPERATORS)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    composed = f"{', '.join((*COMPOSED.onnx, *COMPOSED.tflite))} (Keras: {', '.join(COMPOSED.keras)})"
    return f"{table}\nMade of these: {composed}.\n"


def with_table(text: str) -> str:
    """Return a text with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render_operator_table()}{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write the table into the files named."""
    for name in arguments:
        path = Path(name)
        path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def _row(operator: type[Op]) -> tuple[str, ...]:
    sources = SOURCES[operator]
    names = (", ".join(names) for names in (sources.onnx, sources.tflite, sources.keras))
    pruned = "yes" if issubclass(operator, Layer) else ""
    return operator.__name__, *names, pruned, _wide(operator), _micro(operator), CMSIS_NN.get(operator, "")


def _wide(operator: type[Op]) -> str:
    """Say whether an operator's activations may be int16."""
    if operator is UnaryFunction:
        return f"no {', '.join(dict.fromkeys(FUNCTIONS[function].name for function in INT8_FUNCTIONS))}"
    return {LogSoftmax: "", PRelu: "in files"}.get(operator, "yes")


def _micro(operator: type[Op]) -> str:
    return ROUNDING.get(operator, "") or LACKING.get(operator, "") or "equal bits"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
