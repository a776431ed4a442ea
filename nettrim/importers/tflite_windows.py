"""Operators of a .tflite file that slide a window without weights, and how operators ask for padding."""

from nettrim.importers.flatbuffer import Table
from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import NO_PADDING, UNIT, AveragePool2d, MaxPool2d, Padding, Size2d, same_padding

LARGEST_STEP = 1 << 15  # of filters, strides and dilations: what 16-bit fields of boards' kernels hold
LARGEST_PADDING = 1 << 10  # far above any filter, and a padded image still fits the memory


def convert_pool(operator: FileOperator, conversion: Conversion) -> None:
    """MAX_POOL_2D and AVERAGE_POOL_2D."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.POOL_2D), schema.Pool2DOptions
    image = conversion.image(conversion.value(operator))
    kernel = read_size(options, fields.FILTER_HEIGHT, fields.FILTER_WIDTH)
    stride = read_size(options, fields.STRIDE_H, fields.STRIDE_W)
    height, width, _ = conversion.shape(image)
    padding = read_padding(options, fields.PADDING, (height, width), (kernel, stride, UNIT))
    builder = conversion.builder
    pool = MaxPool2d if operator.op_type == "MAX_POOL_2D" else AveragePool2d
    op = pool(builder.op_name(operator.name), image, builder.tensor_name(operator.name), kernel, stride, padding)
    activation = fused_activation(options, fields.FUSED_ACTIVATION_FUNCTION)
    pooled = builder.add(op)
    conversion.put_carried(operator, (image,), pooled)
    conversion.put(operator, conversion.activated(operator, pooled, activation))


def read_padding(
    options: Table, field: schema.Field, image: tuple[int, int], window: tuple[Size2d, Size2d, Size2d]
) -> Padding:
    """Return the padding that SAME or VALID stand for.

    Parameters
    ----------
    image : tuple of int
        Height and width.
    window : tuple of Size2d
        Filter, stride and dilation.
    """
    code = options.integer(field)
    if code == schema.Padding.VALID:
        return NO_PADDING
    if code != schema.Padding.SAME:
        refuse(f"padding {code}, expected SAME or VALID")
    rows, columns = (same_padding(size, *steps) for size, *steps in zip(image, *window, strict=True))
    padding = Padding(*rows, *columns)
    if max(padding) > LARGEST_PADDING:
        refuse(f"SAME padding of {tuple(padding)}, expected at most {LARGEST_PADDING} a side")
    return padding


def read_size(options: Table, height: schema.Field, width: schema.Field) -> Size2d:
    """Return two options that are a filter's size, a stride or a dilation."""
    size = Size2d(options.integer(height), options.integer(width))
    if min(size) < 1 or max(size) > LARGEST_STEP:
        refuse(f"a filter, stride or dilation of {tuple(size)}, expected 1 to {LARGEST_STEP}")
    return size
