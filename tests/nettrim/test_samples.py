from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from nettrim.importers.imported_model import InputIntegers
from nettrim.samples import (
    InputOptions,
    InputSpec,
    Samples,
    find_calibration,
    load_samples,
    split_held_out,
    synthetic_samples,
)
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Quantization

FLAT = InputSpec((784,), "flat", (784,))
IMAGE = InputSpec((3, 4, 5), "NCHW", (4, 5, 3))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_channels_first_images_become_channels_last(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(300, 3, 4, 5))
    samples = load_samples(save(tmp_path / "c.npz", x=x, y=np.arange(300) % 4), IMAGE, n_classes=4)
    np.testing.assert_array_equal(samples.x, x.transpose(0, 2, 3, 1).astype(np.float32))
    assert samples.labels is not None
    assert samples.warnings == ()


def test_a_layout_option_says_how_the_file_lies(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(20, 4, 5, 3)).astype(np.float32)
    spec = InputSpec((3, 4, 5), "NCHW", (4, 5, 3), InputOptions(layout="NHWC"))
    np.testing.assert_array_equal(load_samples(save(tmp_path / "c.npz", x=x), spec).x, x)


def test_pixels_are_scaled_then_normalised(tmp_path: Path) -> None:
    x = np.full((10, 3, 4, 5), 51, np.uint8)
    x[1:] = 102
    options = InputOptions(input_scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5,))
    values = load_samples(save(tmp_path / "c.npz", x=x), InputSpec((3, 4, 5), "NCHW", (4, 5, 3), options)).x
    np.testing.assert_allclose(values[0, 0, 0], [0.2, 0, -0.2], atol=1e-6)  # float32


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", -5), ("uint8", 131)])
def test_integers_of_the_models_own_type_are_the_models_own(dtype: str, zero_point: int, tmp_path: Path) -> None:
    x = np.arange(10 * 784).reshape(10, 784).astype(dtype)
    integers = InputIntegers(dtype, Quantization(np.array([0.5], np.float32), zero_point))
    spec = InputSpec((784,), "flat", (784,), integers=integers)
    samples = load_samples(save(tmp_path / "c.npz", x=x), spec)
    np.testing.assert_array_equal(samples.x, 0.5 * (x.astype(np.float32) - zero_point))
    assert samples.note == f"c.npz: x is {dtype} as the model's input is, so its integers are taken as the model's own"


@pytest.mark.parametrize(
    "options", [InputOptions(input_scale=0.5), InputOptions(mean=(0.5,)), InputOptions(std=(2.0,))]
)
def test_integers_with_an_option_that_scales_them_are_raw_values(options: InputOptions, tmp_path: Path) -> None:
    x = np.arange(10 * 784).reshape(10, 784).astype(np.int8)
    integers = InputIntegers("int8", Quantization(np.array([0.5], np.float32), 3))
    path = save(tmp_path / "c.npz", x=x)
    found = load_samples(path, InputSpec((784,), "flat", (784,), options, integers))
    np.testing.assert_array_equal(found.x, load_samples(path, InputSpec((784,), "flat", (784,), options)).x)
    assert not found.note


def test_samples_of_another_type_than_the_models_are_real_values(tmp_path: Path) -> None:
    integers = InputIntegers("int8", Quantization(np.array([0.5], np.float32), 3))
    for x in (np.arange(10 * 784).reshape(10, 784) % 100, np.random.default_rng(0).normal(size=(10, 784))):
        for dtype in (np.uint8, np.float32):
            found = load_samples(
                save(tmp_path / "c.npz", x=x.astype(dtype)), InputSpec((784,), "flat", (784,), integers=integers)
            )
            np.testing.assert_array_equal(found.x, x.astype(dtype).astype(np.float32))


def test_images_are_flattened_for_a_dense_model(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 28, 28)).astype(np.float32)
    np.save(tmp_path / "c.npy", x)
    np.testing.assert_array_equal(load_samples(tmp_path / "c.npy", FLAT).x, x.reshape(9, 784))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.full((9, 784), np.nan)}, "NaN or infinity in 9 of 9 samples, first in sample 0"),
        ({"x": np.zeros((9, 783))}, r"x has shape \(9, 783\), expected \(n_samples, 784\)"),
        ({"x": np.zeros((3, 784))}, "x holds 3 samples, expected at least 8"),
        ({"z": np.zeros((9, 784))}, r"holds \['z'\], expected an array x"),
        ({"x": np.array(["a"] * 9)}, "expected numbers"),
        ({"x": np.eye(9, 784), "y": np.array(["cat"] * 9)}, "expected .* class numbers"),
        ({"x": np.eye(9, 784) * 1e30}, r"x exceeds 1e\+15"),
        ({"x": np.ones((9, 784))}, "all 9 samples are equal"),
        ({"x": np.eye(9, 784), "y": np.zeros(8)}, r"y has shape \(8,\)"),
        ({"x": np.eye(9, 784), "y": np.full(9, 10)}, "y runs from 10 to 10, expected 0 to 9"),
        ({"x": np.eye(9, 784), "y": np.full(9, 0.5)}, "expected .* class numbers"),
        ({"x": np.eye(9, 784), "y": np.full(9, np.nan)}, "expected .* class numbers"),
    ],
)
def test_data_that_do_not_fit_are_refused_by_name(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_samples(save(tmp_path / "c.npz", **arrays), FLAT, n_classes=10)


@pytest.mark.parametrize(
    ("model", "samples", "option"),
    [("NCHW", (4, 5, 3), "NHWC"), ("NHWC", (3, 4, 5), "NCHW"), ("NCHW", (4, 6, 3), None)],
)
def test_images_in_the_other_layout_are_refused_with_the_option_that_reads_them(
    model: Literal["NHWC", "NCHW"], samples: tuple[int, ...], option: str | None, tmp_path: Path
) -> None:
    spec = InputSpec((3, 4, 5) if model == "NCHW" else (4, 5, 3), model, (4, 5, 3))
    hint = f"; it fits with --input-layout {option}" if option else ""
    with pytest.raises(DataError, match=rf"expected \(n_samples, [345, ]+\){hint}$"):
        load_samples(save(tmp_path / "c.npz", x=np.random.default_rng(0).normal(size=(9, *samples))), spec)


@pytest.mark.parametrize("content", [b"", b"some text", b"PK\x03\x04 and nothing more", b"\x93NUMPY"])
def test_a_file_that_is_no_array_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.npz or \.npy"):
        load_samples(tmp_path / "c.npz", FLAT)


def test_pickled_objects_in_an_array_are_refused_and_do_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Planted:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path(marker).write_text, ("ran",))

    np.savez(tmp_path / "c.npz", x=np.array([Planted()] * 9, dtype=object))
    with pytest.raises(DataError):
        load_samples(tmp_path / "c.npz", FLAT)
    assert not marker.exists()


def test_a_fifth_is_held_out_and_nothing_is_lost(rng: np.random.Generator) -> None:
    samples = synthetic_samples(FLAT, rng)
    fit, held_out = split_held_out(samples, rng)
    assert (len(fit), len(held_out)) == (819, 205)
    together = np.concatenate([fit.x, held_out.x])
    np.testing.assert_array_equal(np.sort(together[:, 0]), np.sort(samples.x[:, 0]))


def test_the_first_samples_are_a_fair_draw_from_a_file_sorted_by_class(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(10), 100)
    fit, held_out = split_held_out(Samples(np.zeros((1000, 2), np.float32), labels, "sorted"), rng)
    for part in (fit, held_out):
        assert part.labels is not None
        assert len(set(part.labels[:60].tolist())) == 10


def test_the_calibration_file_beside_the_model_is_found_by_its_stem_first(tmp_path: Path) -> None:
    assert find_calibration(tmp_path / "net.pt") is None
    save(tmp_path / "calibration.npz", x=np.zeros(1))
    assert find_calibration(tmp_path / "net.pt") == tmp_path / "calibration.npz"
    save(tmp_path / "net.calibration.npz", x=np.zeros(1))
    assert find_calibration(tmp_path / "net.pt") == tmp_path / "net.calibration.npz"
