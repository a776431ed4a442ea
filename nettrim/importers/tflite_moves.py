"""Operators of a .tflite file that copy values to other places: transposes, blocks of pixels, nearest pixels."""

from nettrim.importers.tflite_conversion import Conversion, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.window_limits import LARGEST_STEP
from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.ops import NearestRule, ResizeNearest, Size2d, Transpose

ROWS_AND_BLOCKS = (0, 2, 1, 3)  # (rows, columns, block height, rest) as (rows, block height, columns, rest), or back


def convert_transpose(operator: FileOperator, conversion: Conversion) -> None:
    """TRANSPOSE that leaves the batch axis first; of axes of length one a reshape."""
    tensor = conversion.value(operator)
    order = [int(axis) for axis in conversion.sizes(operator, 1, "permutation").reshape(-1)]
    if sorted(order) != list(range(len(conversion.shape(tensor)) + 1)) or order[0]:
        refuse(f"permutation {order}, expected the batch axis to stay first")
    builder, permutation = conversion.builder, tuple(axis - 1 for axis in order[1:])
    shape = conversion.shape(tensor)
    long = [axis for axis in permutation if shape[axis] > 1]
    if long == sorted(long):
        turned = builder.reshape(tensor, tuple(shape[axis] for axis in permutation))
    else:
        turned = builder.add(
            Transpose(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), permutation)
        )
    conversion.put_carried(operator, (tensor,), turned)


def convert_depth_to_space(operator: FileOperator, conversion: Conversion) -> None:
    """DEPTH_TO_SPACE: the channels of each pixel become a block of pixels."""
    options = conversion.options(operator, schema.BuiltinOptions.DEPTH_TO_SPACE)
    size, tensor = options.integer(schema.BlockOptions.BLOCK_SIZE), conversion.image(conversion.value(operator))
    n_channels = conversion.shape(tensor)[2]
    if not 1 <= size <= LARGEST_STEP or n_channels % (size * size):
        refuse(f"blocks of {size} x {size} pixels from {n_channels} channels, expected a multiple")
    put_blocks(operator, conversion, tensor, Size2d(size, size))


def convert_space_to_depth(operator: FileOperator, conversion: Conversion) -> None:
    """SPACE_TO_DEPTH: each block of pixels becomes the channels of one."""
    options = conversion.options(operator, schema.BuiltinOptions.SPACE_TO_DEPTH)
    size, tensor = options.integer(schema.BlockOptions.BLOCK_SIZE), conversion.image(conversion.value(operator))
    height, width, n_channels = conversion.shape(tensor)
    if not 1 <= size <= LARGEST_STEP or height % size or width % size:
        refuse(f"blocks of {size} x {size} pixels of {height} x {width}, expected whole ones")
    builder, title = conversion.builder, operator.name
    split = builder.reshape(tensor, (height // size, size, width // size, size * n_channels))
    op = Transpose(builder.op_name(title), split, builder.tensor_name(f"{title}/blocks"), ROWS_AND_BLOCKS)
    conversion.put_carried(operator, (tensor,), builder.add(op))
    blocks = builder.reshape(op.output, (height // size, width // size, size * size * n_channels), title)
    conversion.put_carried(operator, (op.output,), blocks)


def put_blocks(operator: FileOperator, conversion: Conversion, tensor: str, block: Size2d) -> str:
    """Keep the channels of each pixel as a block of pixels, row by row; return that image."""
    builder, title = conversion.builder, f"{operator.name}/pixels"
    height, width, n_channels = conversion.shape(tensor)
    split = builder.reshape(tensor, (height, width, block.height, n_channels // block.height))
    op = Transpose(builder.op_name(title), split, builder.tensor_name(title), ROWS_AND_BLOCKS)
    conversion.put_carried(operator, (tensor,), builder.add(op))
    n_left = n_channels // (block.height * block.width)
    pixels = builder.reshape(op.output, (height * block.height, width * block.width, n_left))
    conversion.put_carried(operator, (op.output,), pixels)
    return pixels


def convert_resize_nearest(operator: FileOperator, conversion: Conversion) -> None:
    """RESIZE_NEAREST_NEIGHBOR of images."""
    options = conversion.options(operator, schema.BuiltinOptions.RESIZE_NEAREST_NEIGHBOR)
    image = conversion.image(conversion.value(operator))
    sizes = [int(size) for size in conversion.sizes(operator, 1, "size").reshape(-1)]
    fields = schema.ResizeNearestNeighborOptions
    aligned, centred = (options.integer(field) for field in (fields.ALIGN_CORNERS, fields.HALF_PIXEL_CENTERS))
    if len(sizes) != 2 or not 1 <= min(sizes) <= max(sizes) <= LARGEST_STEP or (aligned and centred):
        refuse(f"a new size of {sizes}, expected a height and a width, and one rule")
    rule = NearestRule.ALIGN_CORNERS if aligned else NearestRule.ASYMMETRIC
    rule = NearestRule.HALF_PIXEL_CENTERS if centred else rule
    builder = conversion.builder
    op = ResizeNearest(builder.op_name(operator.name), image, builder.tensor_name(operator.name), Size2d(*sizes), rule)
    conversion.put_carried(operator, (image,), builder.add(op))
