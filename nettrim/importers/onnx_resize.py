"""ONNX Resize and Upsample of images to the nearest pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion
from nettrim.importers.onnx_node import Node, axis_place, refuse
from nettrim.importers.window_limits import LARGEST_STEP
from nettrim_runtime.moves import nearest_pixels
from nettrim_runtime.ops import NearestRule, ResizeNearest, Size2d

Array = npt.NDArray[Any]

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def convert_resize(node: Node, conversion: Conversion) -> None:
    """Resize or Upsample of height and width, mode nearest, by a rule that picks the pixels of one of TFLite's."""
    if node.text("mode", "nearest") != "nearest":
        refuse(node, f"mode {node.text('mode', 'nearest')!r}, expected nearest")
    value = conversion.value(node)
    image = conversion.image(node, value)
    shape = (1, *value.shape)
    targets = _read_targets(node, conversion, shape)
    if len(shape) != 4 or any(new != old for old, (new, _) in zip(shape[:2], targets[:2], strict=True)):
        sizes = tuple(new for new, _ in targets)
        refuse(node, f"it makes {sizes} of {shape}, expected an image with a new height and width")
    size = Size2d(*(new for new, _ in targets[2:]))
    wanted = [_pixels(node, old, *target) for old, target in zip(shape[2:], targets[2:], strict=True)]
    for rule in NearestRule:
        found = [nearest_pixels(old, new, rule) for old, new in zip(shape[2:], size, strict=True)]
        if all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True)):
            name, output = conversion.builder.op_name(node.name), conversion.builder.tensor_name(node.outputs[0])
            conversion.put_image(node, conversion.builder.add(ResizeNearest(name, image, output, size, rule)))
            return
    refuse(node, f"from {shape[2:]} to {tuple(size)} it picks other pixels than any of TFLite's three rules")


def _read_targets(node: Node, conversion: Conversion, shape: tuple[int, ...]) -> list[tuple[int, float]]:
    """Return the new size and the scale along each axis, the batch included."""
    scales: Any = node.attributes.get("scales")
    sizes: Array | None = None
    if scales is None and node.opset >= 11:
        scales, sizes = (conversion.optional_constant(node, index, "sizes") for index in (2, 3))
    elif scales is None:
        scales = conversion.constant(node, 1, "scales")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse(node, "a keep_aspect_ratio_policy, expected sizes as they are")
    axes = [axis_place(node, int(axis), len(shape)) for axis in node.attributes.get("axes", range(len(shape)))]
    entries = np.ravel(sizes if sizes is not None and sizes.size else () if scales is None else scales)
    if len(entries) != len(axes) or not (entries > 0).all() or not np.isfinite(entries).all():
        refuse(node, f"scales or sizes {entries.tolist()} along axes {axes}, expected a positive one for each")
    targets = [(size, 1.0) for size in shape]
    for axis, entry in zip(axes, entries.astype(np.float64), strict=True):
        by_size = sizes is not None and sizes.size
        targets[axis] = (int(entry), entry / shape[axis]) if by_size else (int(np.floor(shape[axis] * entry)), entry)
    largest = max(size for size, _ in targets)
    if largest > LARGEST_STEP:
        refuse(node, f"a new size of {largest}, expected at most {LARGEST_STEP}")
    return targets


def _pixels(node: Node, size: int, new_size: int, scale: float) -> Array:
    """Return the pixel that each new one copies along one axis, by ONNX's coordinate and rounding modes."""
    default = "half_pixel" if node.opset >= 11 else "asymmetric"  # Resize 10 and Upsample know no other
    mode = node.text("coordinate_transformation_mode", default)
    rounding = ROUNDINGS.get(node.text("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor"))
    new = np.arange(new_size, dtype=np.float64)
    coordinates = {
        "half_pixel": (new + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (new + 0.5) / scale - 0.5 if new_size > 1 else np.zeros(1),
        "half_pixel_symmetric": size / 2 * (1 - new_size / (scale * size)) + (new + 0.5) / scale - 0.5,
        "asymmetric": new / scale,
        "align_corners": new * (size - 1) / max(new_size - 1, 1),
        "tf_half_pixel_for_nn": (new + 0.5) / scale,
    }
    if mode not in coordinates or rounding is None:
        refuse(node, f"modes {mode!r} and {node.text('nearest_mode', '')!r}, expected {', '.join(coordinates)}")
    pixels: Array = np.clip(rounding(coordinates[mode]), 0, size - 1).astype(np.int64)
    return pixels
