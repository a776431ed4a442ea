"""TRANSPOSE_CONV of a .tflite file: a convolution that gives all outputs of each pixel, which are put side by side."""

from dataclasses import replace

from nettrim.importers.sub_pixel import MOST_VALUES, filled_size, sub_pixel_convolution
from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_layers import add_constants, read_weights
from nettrim.importers.tflite_moves import put_blocks
from nettrim.importers.tflite_windows import read_padding, read_size
from nettrim.importers.window_limits import LARGEST_PADDING
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import UNIT, Conv2d, Size2d, Slice

SIZE, WEIGHTS, IMAGE, BIAS = range(4)  # places of the inputs


def convert_transpose_conv(operator: FileOperator, conversion: Conversion) -> None:
    """TRANSPOSE_CONV, whose integers are those of the convolution it becomes."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.TRANSPOSE_CONV), schema.TransposeConvOptions
    image = conversion.image(conversion.value(operator, IMAGE))
    weights = read_weights(operator, conversion, 4, (0, 1, 2, 3))
    height, width, n_channels = conversion.shape(image)
    if weights.numbers.shape[3] != n_channels:
        refuse(f"weights of shape {weights.numbers.shape} for {n_channels} channels")
    kernel, stride = Size2d(*weights.numbers.shape[1:3]), read_size(options, fields.STRIDE_H, fields.STRIDE_W)
    new_size = _read_size(operator, conversion, weights.n_outputs)
    for n_images, size in ((weights.n_outputs * n_channels, kernel), (weights.n_outputs, new_size)):
        if filled_size(n_images, size, stride) > MOST_VALUES:
            refuse(f"more than {MOST_VALUES} values of its filters or of its output, expected fewer")
    cut = read_padding(options, fields.PADDING, new_size, (kernel, stride, UNIT))
    sizes = Size2d(height, width), new_size
    integers, values = (
        sub_pixel_convolution(part, stride, (cut.top, cut.left), sizes) for part in (weights.numbers, weights.values)
    )
    if max(values.padding) > LARGEST_PADDING:
        refuse(f"an output of {tuple(new_size)} from {height} x {width} pixels, expected what they reach")
    phases = replace(weights, numbers=integers.weight, values=values.weight, copies=stride.height * stride.width)
    title, constants = add_constants(operator, conversion, image, phases, BIAS)
    builder = conversion.builder
    conv = Conv2d(
        builder.op_name(title),
        image,
        *constants,
        builder.tensor_name(f"{operator.name}/phases"),
        padding=values.padding,
        activation=fused_activation(options, fields.FUSED_ACTIVATION_FUNCTION),
    )
    conversion.put(operator, builder.add(conv))
    pixels = put_blocks(operator, conversion, conv.output, stride)
    end = tuple(first + length for first, length in zip(values.begin, new_size, strict=True))
    part = Slice(
        builder.op_name(operator.name),
        pixels,
        builder.tensor_name(operator.name),
        (*values.begin, 0),
        (*end, weights.n_outputs),
        (1, 1, 1),
    )
    conversion.put(operator, builder.add(part))


def _read_size(operator: FileOperator, conversion: Conversion, n_outputs: int) -> Size2d:
    """Return the height and width of the output; where they are computed, those that the converter found."""
    output = conversion.output(operator)
    if conversion.is_constant(operator, SIZE):
        shape = [int(size) for size in conversion.sizes(operator, SIZE, "output shape").reshape(-1)]
    else:
        shape = [*output.shape[:1], *(output.signature or output.shape)[1:]]
    if len(shape) != 4 or shape[0] != 1 or shape[3] != n_outputs or min(shape) < 1:
        refuse(f"an output of shape {shape}, expected [1, height, width, {n_outputs}]")
    return Size2d(*shape[1:3])
