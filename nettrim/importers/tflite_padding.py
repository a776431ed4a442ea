"""PAD and PADV2 of a .tflite file: zeros around images wait for a convolution, the lowest value for a max pool."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.tflite_constants import Constant
from nettrim.importers.tflite_conversion import Conversion, Value, integers_of, refuse
from nettrim.importers.tflite_file import FileOperator
from nettrim.importers.tflite_windows import added
from nettrim.importers.window_limits import LARGEST_PADDING
from nettrim_runtime.ops import Pad, Padding

Array = npt.NDArray[Any]


def convert_pad(operator: FileOperator, conversion: Conversion) -> None:
    """PAD and PADV2 with zeros, or with the lowest value around images that max pools read."""
    is_lowest = operator.op_type == "PADV2" and _is_lowest(operator, conversion)
    value = conversion.padded_value(operator)
    if value.is_lowest != is_lowest:
        value = Value(conversion.value(operator))
    rows, rank = conversion.sizes(operator, 1, "paddings"), len(conversion.shape(value.tensor))
    if rows.shape != (rank + 1, 2) or any(rows[0]) or not 0 <= rows.min() <= rows.max() <= LARGEST_PADDING:
        refuse(f"paddings {rows.tolist()} of {rank} axes, expected 0 to {LARGEST_PADDING} behind the batch")
    if rank == 3 and not any(rows[3]):
        _wait(operator, conversion, value, (Padding(*(int(side) for side in rows[1:3].reshape(-1))), is_lowest))
        return
    if is_lowest:
        refuse(f"it pads {rows.tolist()} with the lowest value, expected only the height and width of an image")
    tensor, builder = conversion.value(operator), conversion.builder
    before, after = (tuple(int(side) for side in sides) for sides in rows[1:].T)
    op = Pad(builder.op_name(operator.name), tensor, builder.tensor_name(operator.name), before, after)
    conversion.put_carried(operator, (tensor,), builder.add(op))


def _wait(operator: FileOperator, conversion: Conversion, value: Value, around: tuple[Padding, bool]) -> None:
    """Keep padding around the height and width of an image for the operator that takes it in."""
    padding, is_lowest = around
    if not _is_same_kind(operator, conversion):
        conversion.objections.append(f"{operator.op_type} {operator.name!r} reads and writes different scales")
    conversion.put_view(operator, Value(value.tensor, added(value.padding, padding), is_lowest))


def _is_lowest(operator: FileOperator, conversion: Conversion) -> bool:
    """Whether PADV2 pads with the lowest value, for max pools; False if with zero; refuse other values."""
    constant = conversion.constant(operator, 2, "value")
    if constant.numbers.size != 1:
        refuse(f"it pads with {constant.numbers.size} values, expected one")
    number = constant.numbers.reshape(-1)[0]
    if number == _zero(operator, conversion, constant):
        return False
    lowest = np.finfo(np.float32).min if constant.is_float else np.iinfo(constant.numbers.dtype).min
    if not number <= lowest:
        refuse(f"it pads with {number}, expected zero, or the lowest value in front of a MAX_POOL_2D")
    if not conversion.only_read_by(operator, "MAX_POOL_2D"):
        refuse(f"it pads with {number}, the lowest value, for more than MAX_POOL_2D, expected zero")
    return True


def _zero(operator: FileOperator, conversion: Conversion, constant: Constant) -> int:
    """Return the number that stands for zero among those that are padded."""
    found = conversion.input(operator).quantization
    return 0 if constant.is_float or found is None else int(found.zero_point[0])


def _is_same_kind(operator: FileOperator, conversion: Conversion) -> bool:
    before, after = integers_of(conversion.input(operator)), integers_of(conversion.output(operator))
    return before is after or (before is not None and after is not None and before.same_as(after))
