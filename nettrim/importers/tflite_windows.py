"""Operators of a .tflite file that slide a window without weights, and how operators ask for padding."""

from nettrim.importers.flatbuffer import Table
from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.window_limits import LARGEST_PADDING, LARGEST_STEP
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import NO_PADDING, UNIT, AveragePool2d, MaxPool2d, Padding, Size2d, same_padding, window_count


def convert_pool(operator: FileOperator, conversion: Conversion) -> None:
    """MAX_POOL_2D and AVERAGE_POOL_2D."""
    options, fields = conversion.options(operator, schema.BuiltinOptions.POOL_2D), schema.Pool2DOptions
    value = conversion.padded_value(operator)
    image = conversion.image(value.tensor if value.is_lowest else conversion.value(operator))
    around = value.padding if value.is_lowest else NO_PADDING
    kernel = read_size(options, fields.FILTER_HEIGHT, fields.FILTER_WIDTH)
    stride = read_size(options, fields.STRIDE_H, fields.STRIDE_W)
    height, width, _ = conversion.shape(image)
    padded = (height + around.top + around.bottom, width + around.left + around.right)
    padding = added(around, read_padding(options, fields.PADDING, padded, (kernel, stride, UNIT)))
    rows = _reaches(height, kernel.height, stride.height, padding[:2])
    if not (rows and _reaches(width, kernel.width, stride.width, padding[2:])):
        refuse(f"padding of {tuple(padding)} around {height} x {width} pixels, expected a pixel in every window")
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


def added(first: Padding, second: Padding) -> Padding:
    """Return two paddings around each other."""
    return Padding(*(inner + outer for inner, outer in zip(first, second, strict=True)))


def read_size(options: Table, height: schema.Field, width: schema.Field) -> Size2d:
    """Return two options that are a filter's size, a stride or a dilation."""
    size = Size2d(options.integer(height), options.integer(width))
    if min(size) < 1 or max(size) > LARGEST_STEP:
        refuse(f"a filter, stride or dilation of {tuple(size)}, expected 1 to {LARGEST_STEP}")
    return size


def _reaches(size: int, kernel: int, stride: int, ends: tuple[int, ...]) -> bool:
    """Whether every window along an axis covers a pixel, not padding alone."""
    last = (window_count(size, kernel, stride, 1, sum(ends)) - 1) * stride - ends[0]
    return ends[0] < kernel and last < size
