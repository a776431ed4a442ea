"""ONNX nodes that only rearrange values: none of them leaves an operator behind."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, axis_place, read_integers, refuse

Array = npt.NDArray[Any]


def convert_flatten(node: Node, conversion: Conversion) -> None:
    """Flatten from the first axis after the batch."""
    value = conversion.value(node)
    axis = node.integer("axis", 1)
    axis += (len(value.shape) + 1) if axis < 0 else 0
    if axis < 1 or int(np.prod(value.shape[: axis - 1])) != 1:
        refuse(node, f"axis {axis} of {('batch', *value.shape)}, expected everything but the batch axis as one row")
    conversion.put_view(node, value, value.positions.reshape(-1))


def convert_reshape(node: Node, conversion: Conversion) -> None:
    """Reshape to a constant shape that keeps the batch axis, first as a rule."""
    target = read_integers(node, conversion.constant(node, 1, "shape"))
    value = _unpadded(node, conversion)
    shape, batch = _resolve(node, value, target)
    conversion.put_view(node, replace(value, batch=batch), value.positions.reshape(shape))


def convert_squeeze(node: Node, conversion: Conversion) -> None:
    """Squeeze of named axes other than the batch."""
    axes = _read_axes(node, conversion)
    value = _unpadded(node, conversion)
    if axes is None:
        refuse(node, "it names no axes, so it would drop the batch axis of one sample; name them")
    rank = len(value.shape) + 1
    dropped = {axis_place(node, axis, rank) for axis in axes}
    sizes = dict(enumerate((*value.shape[: value.batch], 0, *value.shape[value.batch :])))
    if any(sizes[axis] != 1 for axis in dropped):
        refuse(node, f"axes {axes} of {('batch', *value.shape)}, expected axes of length one after the batch")
    shape = [size for axis, size in sizes.items() if axis not in {*dropped, value.batch}]
    moved = replace(value, batch=value.batch - sum(axis < value.batch for axis in dropped))
    conversion.put_view(node, moved, value.positions.reshape(shape))


def convert_unsqueeze(node: Node, conversion: Conversion) -> None:
    """Unsqueeze after the batch axis."""
    axes = _read_axes(node, conversion) or []
    value = conversion.value(node)
    rank = len(value.shape) + 1 + len(axes)
    added = {axis_place(node, axis, rank) for axis in axes}
    if 0 in added or len(added) != len(axes):
        refuse(node, f"axes {axes} of {('batch', *value.shape)}, expected different axes after the batch")
    sizes = iter(value.shape)
    shape = [1 if axis in added else next(sizes) for axis in range(1, rank)]
    conversion.put_view(node, value, value.positions.reshape(shape))


def convert_transpose(node: Node, conversion: Conversion) -> None:
    """Transpose; the batch axis may move, for a recurrent node and back."""
    value = _unpadded(node, conversion)
    rank = len(value.shape) + 1
    perm = node.attributes.get("perm", range(rank)[::-1])
    if sorted(perm) != list(range(rank)):
        refuse(node, f"perm {list(perm)}, expected each of {rank} axes once")
    moved = replace(value, batch=list(perm).index(value.batch))
    order = [axis - (axis > value.batch) for axis in perm if axis != value.batch]
    conversion.put_view(node, moved, value.positions.transpose(order))


def convert_identity(node: Node, conversion: Conversion) -> None:
    """Identity."""
    value = _unpadded(node, conversion)
    conversion.put_view(node, value, value.positions)


def convert_dropout(node: Node, conversion: Conversion) -> None:
    """Dropout, which does nothing after training."""
    training = conversion.optional_constant(node, 2, "training_mode")
    if training is not None and bool(np.any(training)):
        refuse(node, "training_mode is set, expected a model exported for inference")
    convert_identity(node, conversion)


def _unpadded(node: Node, conversion: Conversion) -> Value:
    """Return the input, wherever its batch axis is; one that waits for padding has it in front."""
    value = conversion.value_of_any_order(node)
    return value if value.batch else conversion.value(node)


def _resolve(node: Node, value: Value, target: list[int]) -> tuple[list[int], int]:
    """Return the shape without the batch axis, and the place of that axis."""
    before = int(np.prod(value.shape[: value.batch]))
    source = (*value.shape[: value.batch], 1, *value.shape[value.batch :])  # the batch counts as one
    if not node.integer("allowzero", 0):
        target = [source[axis] if size == 0 and axis < len(source) else size for axis, size in enumerate(target)]
    known = int(np.prod([size for size in target if size != -1]))
    if target.count(-1) == 1 and known > 0:
        target = [value.positions.size // known if size == -1 else size for size in target]
    places = [place for place, size in enumerate(target) if size == 1 and int(np.prod(target[:place])) == before]
    if min(target, default=0) < 1 or int(np.prod(target)) != value.positions.size or not places:
        refuse(node, f"shape {target} from {('batch', *value.shape)}, expected the batch axis to stay first")
    batch = value.batch if value.batch in places else places[0]
    return target[:batch] + target[batch + 1 :], batch


def _read_axes(node: Node, conversion: Conversion) -> list[int] | None:
    axes: Any = node.attributes.get("axes")
    if node.opset >= 13:
        axes = conversion.optional_constant(node, 1, "axes")
    return None if axes is None else read_integers(node, axes)
