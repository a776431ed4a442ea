"""Which of TFLite's operators each operator is, and in which version."""

from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import ActivationFunction, Add, AveragePool2d, Function, MaxPool2d, Mul, Sub

Code = schema.BuiltinOperator

# The version of each operator on float, int8 and int16 tensors (op_version.cc beside the schema).
TYPES = ("float32", "int8", "int16")
VERSIONS = {
    Code.ADD: (1, 2, 4),
    Code.AVERAGE_POOL_2D: (1, 2, 3),
    Code.CONCATENATION: (1, 2, 3),
    Code.CONV_2D: (1, 3, 4),
    Code.DEPTHWISE_CONV_2D: (1, 3, 5),
    Code.FULLY_CONNECTED: (1, 4, 7),
    Code.GELU: (1, 2, 2),
    Code.HARD_SWISH: (1, 1, 1),
    Code.LEAKY_RELU: (1, 1, 2),
    Code.LOG_SOFTMAX: (1, 2, 2),
    Code.LOGISTIC: (1, 2, 3),
    Code.MAX_POOL_2D: (1, 2, 3),
    Code.MUL: (1, 2, 4),
    Code.RELU: (1, 2, 3),
    Code.RELU_N1_TO_1: (1, 1, 1),
    Code.RELU6: (1, 2, 3),
    Code.RESHAPE: (1, 1, 1),
    Code.SOFTMAX: (1, 2, 3),
    Code.RSQRT: (1, 2, 2),
    Code.SUB: (1, 2, 5),
    Code.PAD: (1, 2, 3),
    Code.PADV2: (1, 2, 2),
    Code.TRANSPOSE: (1, 2, 5),
    Code.MEAN: (1, 2, 3),
    Code.STRIDED_SLICE: (1, 2, 4),
    Code.RESIZE_NEAREST_NEIGHBOR: (1, 2, 4),
    Code.PRELU: (1, 1, 1),
    Code.QUANTIZE: (1, 2, 3),
    Code.TANH: (1, 2, 3),
}
GROUPED_CONV_2D_VERSION = 6  # op_version.cc: is_grouped_convolution
HYBRID_FULLY_CONNECTED_VERSION = 3  # op_version.cc: int8 weights beside floats, one scale
DILATED_DEPTHWISE_VERSION = 2  # op_version.cc: float DEPTHWISE_CONV_2D with a dilation

FUSED = {
    ActivationFunction.NONE: schema.ActivationFunctionType.NONE,
    ActivationFunction.RELU: schema.ActivationFunctionType.RELU,
    ActivationFunction.RELU6: schema.ActivationFunctionType.RELU6,
    ActivationFunction.RELU_N1_TO_1: schema.ActivationFunctionType.RELU_N1_TO_1,
}
STAND_ALONE = {
    ActivationFunction.RELU: Code.RELU,
    ActivationFunction.RELU6: Code.RELU6,
    ActivationFunction.RELU_N1_TO_1: Code.RELU_N1_TO_1,
}
PAIRWISE = {
    Add: (Code.ADD, schema.BuiltinOptions.ADD),
    Sub: (Code.SUB, schema.BuiltinOptions.SUB),
    Mul: (Code.MUL, schema.BuiltinOptions.MUL),
}
FUNCTIONS = {
    Function.SIGMOID: Code.LOGISTIC,
    Function.TANH: Code.TANH,
    Function.HARD_SWISH: Code.HARD_SWISH,
    Function.LEAKY_RELU: Code.LEAKY_RELU,
    Function.GELU: Code.GELU,
    Function.GELU_TANH: Code.GELU,
    Function.RSQRT: Code.RSQRT,
}
POOLS = {MaxPool2d: Code.MAX_POOL_2D, AveragePool2d: Code.AVERAGE_POOL_2D}
