"""The operators of torch's libraries that a network in a file may call: they compute with tensors and do nothing else.

A list of what is allowed, because torch has two thousand operators and some write files (`torch.save`), map them
(`torch.from_file`) or reinterpret memory (`torch.as_strided`).
"""

LAYERS = frozenset(
    {
        *("conv1d", "conv2d", "convolution", "_convolution", "_convolution_mode", "linear", "addmm", "mm", "matmul"),
        *("bmm", "t", "batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "group_norm"),
        *("layer_norm", "native_layer_norm", "instance_norm", "dropout", "dropout_", "feature_dropout"),
        *("feature_dropout_", "alpha_dropout", "max_pool1d", "max_pool2d", "max_pool2d_with_indices", "avg_pool1d"),
        *("avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool1d"),
        *("adaptive_max_pool2d", "adaptive_avg_pool3d", "pixel_shuffle", "channel_shuffle", "bilinear"),
        *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d"),
        *("upsample_bicubic2d", "upsample_trilinear3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d"),
        *("_upsample_nearest_exact3d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_lanczos2d_aa"),
        *("gru", "lstm", "embedding", "conv_transpose1d", "conv_transpose2d"),
    }
)
ACTIVATIONS = frozenset(
    {
        *("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "prelu"),
        *("_prelu_kernel", "elu", "elu_", "celu", "celu_", "selu", "selu_", "gelu", "silu", "silu_", "mish", "mish_"),
        *("softplus", "sigmoid", "sigmoid_", "tanh", "tanh_", "hardsigmoid", "hardsigmoid_", "hardswish"),
        *("hardswish_", "threshold", "threshold_", "log_sigmoid", "softmax", "_softmax", "log_softmax"),
        *("_log_softmax", "softsign", "hardshrink", "softshrink", "clamp", "clamp_", "clip", "clamp_min", "clamp_max"),
    }
)
ARITHMETIC = frozenset(
    {
        *("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "rsub", "neg", "negative", "positive", "abs"),
        *("exp", "log", "sqrt", "rsqrt", "reciprocal", "pow", "square", "floor", "ceil", "round", "sign", "minimum"),
        *("maximum", "mean", "sum", "amax", "amin", "max", "min", "erf", "sin", "cos", "where"),
    }
)
SHAPES = frozenset(
    {
        *("flatten", "unflatten", "view", "_unsafe_view", "reshape", "permute", "transpose", "squeeze", "unsqueeze"),
        *(
            "contiguous",
            "clone",
            "alias",
            "detach",
            "detach_",
            "to",
            "_to_copy",
            "float",
            "type_as",
            "cat",
            "concat",
            "stack",
        ),
        *("chunk", "split", "split_with_sizes", "slice", "select", "pad", "constant_pad_nd", "expand", "size"),
        *("sym_size", "lift_fresh_copy"),
    }
)
CONSTANTS = frozenset({"zeros", "zeros_like", "new_zeros", "arange"})  # first states, places in a sequence
TENSOR_OPERATORS = LAYERS | ACTIVATIONS | ARITHMETIC | SHAPES | CONSTANTS
SCRIPT_HELPERS = frozenset(  # of TorchScript's numbers, lists, text and control flow
    {
        # they only compute, and parameters and layers are called so
        *("std", "var", "gamma", "outer", "inner", "trace", "roll", "take", "prod", "logit", "repeat", "real", "ones"),
        *("full", "diff", "dist", "flip", "unbind", "unsafe_chunk", "unsafe_split"),
        *("NumToTensor", "RaiseException", "__and__", "__contains__", "__derive_index", "__getitem__", "__is__"),
        *("__isnot__", "__not__", "__or__", "__range_length", "annotate", "append", "dim", "dtype", "device", "eq"),
        *("floordiv", "format", "ge", "greater", "gt", "le", "len", "less", "list", "lt", "mode", "name", "ne"),
        *("range", "remainder", "set", "str", "stride", "tensor", "unchecked_cast", "warn", "Int", "Float", "cpu"),
        *(
            "Bool",
            "int",
            "bool",
            "IntImplicit",
            "ScalarImplicit",
            "FloatImplicit",
            "item",
            "numel",
            "is_floating_point",
        ),
        *("norm", "index", "index_select", "copy", "data", "values", "keys", "items", "sort", "type", "equal"),
        *("layout", "pin_memory"),
    }
)
