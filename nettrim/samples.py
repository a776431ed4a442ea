"""Calibration and test samples: read, checked, and brought into the layout of the graph."""

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nettrim.importers.imported_model import InputIntegers
from nettrim_runtime.errors import DataError

Array = npt.NDArray[Any]
ImageLayout = Literal["NHWC", "NCHW"]

FEWEST_SAMPLES = 8
FEW_SAMPLES = 256  # below it a warning: ranges and guarantees rest on little
SYNTHETIC_SAMPLES = 1024
HELD_OUT_SHARE = 0.2
LARGEST_FILE_BYTES = 1 << 34
LARGEST_MAGNITUDE = 1e15  # beyond it float32 squares overflow
UNREADABLE = (  # what NumPy, zipfile and zlib raise for a damaged or hostile file
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, MemoryError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True)
class InputOptions:
    """What happens to an array before the model sees it: (x * input_scale - mean) / std.

    Attributes
    ----------
    layout : str or None
        "NHWC" or "NCHW": how image arrays are laid out; None means as the model wants them.
    mean, std : tuple of float
        One value, or one a channel.
    """

    input_scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: ImageLayout | None = None

    def __post_init__(self) -> None:
        numbers = {"--input-scale": (self.input_scale,), "--mean": self.mean, "--std": self.std}
        for option, values in numbers.items():
            if not all(math.isfinite(value) for value in values):
                raise DataError(f"{option} is {values}, expected finite numbers")
        if 0 in self.std or self.input_scale == 0:
            raise DataError("--std or --input-scale is 0, expected another number")


@dataclass(frozen=True)
class InputSpec:
    """What a model wants: the shape users' arrays have (without batch), its layout, the graph's shape.

    ``integers`` are what a quantised file's input takes.
    """

    source_shape: tuple[int, ...]
    source_layout: str
    graph_shape: tuple[int, ...]
    options: InputOptions = InputOptions()
    integers: InputIntegers | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples as the graph takes them.

    Attributes
    ----------
    x : Array
        (n_samples, *graph input shape) float32.
    labels : Array or None
        (n_samples,) class numbers.
    source : str
        The file's name, or what they were made from.
    warnings : tuple of str
        What a user should know about them.
    is_synthetic : bool
        True when they are random numbers, not data.
    note : str
        How the file was read, where that might surprise.
    """

    x: Array
    labels: Array | None
    source: str
    warnings: tuple[str, ...] = field(default=())
    is_synthetic: bool = False
    note: str = ""

    def __len__(self) -> int:
        return len(self.x)


def load_samples(path: Path, spec: InputSpec, n_classes: int | None = None, *, needs_labels: bool = False) -> Samples:
    """Read a .npz (x, and y for labels) or a .npy of samples.

    Parameters
    ----------
    n_classes : int, optional
        The model's outputs, to check labels against.
    needs_labels : bool
        Whether a file without y is refused.

    Raises
    ------
    DataError
        When the file cannot be read, or holds NaN, infinities, another shape, too few samples,
        or labels that are not class numbers.
    """
    x, y = _read_arrays(path)
    x = _check_numbers(x, path)
    warnings = []
    if len(x) < FEWEST_SAMPLES:
        raise DataError(
            f"{path}: x holds {len(x)} samples, expected at least {FEWEST_SAMPLES} (256 or more are better)"
        )
    if len(x) < FEW_SAMPLES:
        warnings.append(f"{path.name} holds only {len(x)} samples; {FEW_SAMPLES} or more make the result trustworthy")
    x, note = _real_values(x, path, spec)
    samples = Samples(_to_graph(x, path, spec), None, path.name, tuple(warnings), note=note)
    if np.all(x == x[:1]):
        raise DataError(f"{path}: all {len(x)} samples are equal, expected samples that differ as real inputs do")
    if not np.all(np.abs(samples.x) < LARGEST_MAGNITUDE):
        raise DataError(
            f"{path}: x exceeds {LARGEST_MAGNITUDE:g} once scaled, expected real inputs; "
            "check --input-scale, --mean, --std"
        )
    if y is None and needs_labels:
        raise DataError(f"{path}: holds no array y, expected the labels of the samples x to measure accuracy")
    if y is None:
        return samples
    return replace(samples, labels=_check_labels(y, len(x), n_classes, path))


def synthetic_samples(spec: InputSpec, rng: np.random.Generator) -> Samples:
    """Return standard normal samples of the model's shape, for when there are no data at all."""
    x = rng.standard_normal((SYNTHETIC_SAMPLES, *spec.graph_shape), dtype=np.float32)
    warning = (
        "no calibration data: random Gaussian inputs are used, so every figure and guarantee speaks of those, "
        "not of your inputs; give --data, or put calibration.npz beside the model"
    )
    return Samples(x, None, "Gaussian samples", (warning,), is_synthetic=True)


def split_held_out(samples: Samples, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Return (fit, held out): a fifth of the samples, chosen at random, is kept out of every fit."""
    order = rng.permutation(len(samples))
    n_held_out = max(1, round(HELD_OUT_SHARE * len(samples)))
    # In random order, so that the first few are a fair draw even from a file sorted by class.
    return _take(samples, order[n_held_out:]), _take(samples, order[:n_held_out])


def find_calibration(model: Path) -> Path | None:
    """Return the calibration file beside a model: <stem>.calibration.npz, else calibration.npz, else None."""
    candidates = (model.with_name(f"{model.stem}.calibration.npz"), model.with_name("calibration.npz"))
    return next((path for path in candidates if path.exists()), None)


def _take(samples: Samples, rows: Array) -> Samples:
    labels = None if samples.labels is None else samples.labels[rows]
    return replace(samples, x=samples.x[rows], labels=labels)


def _read_arrays(path: Path) -> tuple[Array, Array | None]:
    if not path.exists():
        raise DataError(f"{path}: no such file; expected a .npz with x (and y for labels) or a .npy")
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a .npz with x (and y for labels) or a .npy")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes, expected at most {LARGEST_FILE_BYTES}")
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            with loaded:
                if "x" not in loaded.files:
                    raise DataError(f"{path}: holds {sorted(loaded.files)}, expected an array x (and y for labels)")
                return loaded["x"], loaded["y"] if "y" in loaded.files else None
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable .npz or .npy; expected a file that numpy.savez or save wrote"
        ) from error


def _check_numbers(x: Array, path: Path) -> Array:
    if x.ndim < 1 or x.dtype.kind not in "buif":
        raise DataError(f"{path}: x has type {x.dtype} and shape {x.shape}, expected numbers (n_samples, ...)")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        flat = np.isfinite(x).reshape(len(x), -1)
        bad = np.flatnonzero(~flat.all(axis=1))
        raise DataError(
            f"{path}: x holds NaN or infinity in {len(bad)} of {len(x)} samples, first in sample {bad[0]}; "
            "expected finite numbers: repair or drop those samples"
        )
    return x


def _real_values(x: Array, path: Path, spec: InputSpec) -> tuple[Array, str]:
    """Return what integers of the model's own input stand for, and a note; other samples as they are.

    An option that scales or shifts makes the integers raw values, as pixels are.
    """
    options, integers = spec.options, spec.integers
    is_raw = options.input_scale != 1.0 or options.mean or options.std
    if integers is None or x.dtype != integers.dtype or is_raw:
        return x, ""
    note = f"{path.name}: x is {x.dtype} as the model's input is, so its integers are taken as the model's own"
    return integers.quantization.dequantize(x), note


def _to_graph(x: Array, path: Path, spec: InputSpec) -> Array:
    """Bring users' arrays into the graph's layout, normalised, float32."""
    options, shape = spec.options, spec.source_shape
    if options.layout is not None and len(shape) == 3 and options.layout != spec.source_layout:
        shape = (shape[1], shape[2], shape[0]) if options.layout == "NHWC" else (shape[2], shape[0], shape[1])
    layout = options.layout or spec.source_layout
    if tuple(n for n in x.shape[1:] if n != 1) != tuple(n for n in shape if n != 1) and not (
        len(spec.graph_shape) == 1 and np.prod(x.shape[1:], dtype=np.int64) == spec.graph_shape[0]
    ):
        raise DataError(
            f"{path}: x has shape {x.shape}, expected (n_samples, {', '.join(map(str, shape))}){_layout_hint(x, spec)}"
        )
    values = x.reshape(len(x), *shape).astype(np.float32)
    if len(shape) == 3 and layout == "NCHW":
        values = values.transpose(0, 2, 3, 1)
    values = np.ascontiguousarray(values.reshape(len(x), *spec.graph_shape))
    if options.input_scale != 1.0:
        values *= np.float32(options.input_scale)
    for parameter, name in ((options.mean, "--mean"), (options.std, "--std")):
        if len(parameter) > 1 and len(parameter) != values.shape[-1]:
            raise DataError(f"{name} has {len(parameter)} values, expected 1 or one a channel ({values.shape[-1]})")
    if options.mean:
        values -= np.asarray(options.mean, np.float32)
    if options.std:
        values /= np.asarray(options.std, np.float32)
    return values


def _layout_hint(x: Array, spec: InputSpec) -> str:
    """Name the option for images of the right size in the other layout."""
    shape = spec.source_shape
    if len(shape) != 3 or spec.options.layout is not None:
        return ""
    other = "NHWC" if spec.source_layout == "NCHW" else "NCHW"
    turned = (*shape[1:], shape[0]) if other == "NHWC" else (shape[2], *shape[:2])
    return f"; it fits with --input-layout {other}" if x.shape[1:] == turned else ""


def _check_labels(y: Array, n_samples: int, n_classes: int | None, path: Path) -> Array:
    y = y.reshape(-1) if y.shape == (n_samples, 1) else y
    if y.shape != (n_samples,) or y.dtype.kind not in "buif" or not np.all(np.isfinite(y) & (y == np.rint(y))):
        raise DataError(f"{path}: y has shape {y.shape} and type {y.dtype}, expected ({n_samples},) class numbers")
    labels = y.astype(np.int64)
    if n_classes is not None and (labels.min() < 0 or labels.max() >= n_classes):
        raise DataError(
            f"{path}: y runs from {labels.min()} to {labels.max()}, "
            f"expected 0 to {n_classes - 1}: the model has {n_classes} outputs"
        )
    return labels
