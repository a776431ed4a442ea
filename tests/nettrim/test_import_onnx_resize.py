"""ONNX Resize and Upsample, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.ops import NearestRule, ResizeNearest
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, write_onnx

MODES = [
    ({}, [2.0, 3.0], NearestRule.ASYMMETRIC),
    ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [2.0, 2.0], NearestRule.ASYMMETRIC),
    ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, [0.5, 1.5], NearestRule.ASYMMETRIC),
    ({"coordinate_transformation_mode": "pytorch_half_pixel"}, [1.5, 2.5], None),
    ({"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}, [0.75, 1.5], None),
    (
        {"coordinate_transformation_mode": "align_corners", "nearest_mode": "round_prefer_ceil"},
        [2.5, 1.5],
        NearestRule.ALIGN_CORNERS,
    ),
]


@pytest.mark.parametrize(("modes", "scales", "rule"), MODES)
@pytest.mark.parametrize("by_size", [False, True])
def test_resize_to_the_nearest_pixels_is_carried_over(
    tmp_path: Path, modes: dict[str, str], scales: list[float], rule: NearestRule | None, by_size: bool
) -> None:
    sizes = [1, 3, int(8 * scales[0]), int(6 * scales[1])]
    target = {"t": np.array(sizes)} if by_size else {"t": np.array([1, 1, *scales], np.float32)}
    resize = node("Resize", "x none none t" if by_size else "x none t", "y", mode="nearest", **modes)
    constants = {**target, "none": np.zeros(0, np.float32)}
    path = write_onnx(tmp_path / "m.onnx", [resize], [1, 3, 8, 6], constants, 11 if "tf" in str(modes) else 13)
    (op,) = assert_runs_as_in_onnx_runtime(path).graph.ops
    assert isinstance(op, ResizeNearest)
    assert rule in {None, op.rule}


@pytest.mark.parametrize(
    ("opset", "upsample", "constants"),
    [
        (7, node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 2.0]), {}),
        (9, node("Upsample", "x scales", "y"), {"scales": np.array([1, 1, 2, 3], np.float32)}),
        (10, node("Resize", "x scales", "y"), {"scales": np.array([1, 1, 2, 1], np.float32)}),
        (18, node("Resize", "x - scales", "y", axes=[2, 3]), {"scales": np.array([2, 2], np.float32)}),
    ],
)
def test_older_and_newer_forms_are_carried_over(
    tmp_path: Path, opset: int, upsample: Any, constants: dict[str, Any]
) -> None:
    path = write_onnx(tmp_path / "m.onnx", [upsample], ["N", 3, 4, 5], constants, opset)
    assert "transposes left: 0" in assert_runs_as_in_onnx_runtime(path).notes


@pytest.mark.parametrize(
    ("resize", "scales", "reason"),
    [
        (node("Resize", "x - t", "y", mode="linear"), [1, 1, 2, 2], "mode 'linear', expected nearest"),
        (node("Resize", "x - t", "y"), [1, 2, 2, 2], r"expected an image with a new height and width"),
        (node("Resize", "x - t", "y", nearest_mode="ceil"), [1, 1, 2, 2], "other pixels than any of TFLite's"),
        (
            node("Resize", "x - t", "y", coordinate_transformation_mode="tf_crop_and_resize"),
            [1, 1, 2, 2],
            "modes 'tf_crop_and_resize'",
        ),
        (node("Resize", "x - t", "y"), [1, 1, 1e6, 2], "a new size of"),
        (node("Resize", "x - t", "y"), [1, 1, -1, 2], "expected a positive one for each"),
    ],
)
def test_other_resizes_are_refused(tmp_path: Path, resize: Any, scales: list[float], reason: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", [resize], ["N", 3, 4, 5], {"t": np.array(scales, np.float32)}, 13)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)
