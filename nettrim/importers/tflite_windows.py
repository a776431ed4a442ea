"""Operators of a .tflite file that slide a window without weights, and how operators ask for padding."""

from nettrim.importers.flatbuffer import Table
from nettrim.importers.tflite_conversion import Conversion, fused_activation, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import NO_PADDING, UNIT, AveragePool2d, MaxPool2d, Padding, Size2d, same_padding

LARGEST_STEP = 1 << 15  # of filters, strides and dilations: what 16-bit fields of boards' kernels hold
LARGEST_PADDING = 1 << 10  # far above any filter, and a padded image still fits the memory
IMAGE_AXES = (1, 2)  # height and width, behind the batch


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


def convert_mean(operator: FileOperator, conversion: Conversion) -> None:
    """MEAN over the height and width of images: an average pool over all of them."""
    options = conversion.options(operator, schema.BuiltinOptions.REDUCER)
    image = conversion.image(conversion.value(operator))
    axes = conversion.sizes(operator, 1, "axes").reshape(-1)
    rank = len(conversion.shape(image)) + 1
    if tuple(sorted({int(axis) % rank for axis in axes})) != IMAGE_AXES:
        refuse(f"a mean over the axes {axes.tolist()}, expected {list(IMAGE_AXES)}, the height and width of images")
    height, width, n_channels = conversion.shape(image)
    size, builder = Size2d(height, width), conversion.builder
    op = AveragePool2d(builder.op_name(operator.name), image, builder.tensor_name(operator.name), size, size)
    pooled = builder.add(op)
    keeps_axes = options.integer(schema.ReducerOptions.KEEP_DIMS)
    result = pooled if keeps_axes else builder.reshape(pooled, (n_channels,))
    conversion.put(operator, pooled)
    conversion.put(operator, result)
    if image in conversion.integers:
        conversion.objections.append(f"MEAN {operator.name!r} rounds integers otherwise than an average pool")


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
