"""The models of the shared data and their test samples, in the shape that each model's own file takes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.solver_layers import CIFAR_MEAN, CIFAR_STD
from nettrim.importers import ImportedModel, load_model

Array = npt.NDArray[Any]

RANDOM_SAMPLES = 1000  # where there is no data set
CALIBRATION_SAMPLES = 1000  # of a training set
HELD_BACK = 0.25  # of a test set that comes without a training set: calibrated on, and not tested
KEYWORD_SCALE, KEYWORD_ZERO_POINT = np.float32(0.5847029), 83  # of mlperf_kws_int8's input, by which kws01 is quantised


@dataclass(frozen=True)
class Entry:
    """A model's file, the archive of its test samples ("" for random ones), and what makes inputs of those.

    ``twin`` is a file of the same network that its own runtime can run here; "" for the file itself. ``training`` is
    the archive with x_train to calibrate on, where ``archive`` has none; ``key`` the samples' name in such an archive.
    """

    file: str
    archive: str = ""
    prepare: Callable[[Array], Array] = field(default=lambda x: x)
    twin: str = ""
    training: str = ""
    key: str = "x"


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its test samples.

    Attributes
    ----------
    x : Array
        (n_samples, *source shape) float32, as the file's own network takes them.
    y : Array or None
        (n_samples,) classes.
    calibration : Array
        (n_calibration, *source shape) float32.
    n_tested : int
        Samples of x, from the first, that are not among those calibrated on.
    twin : Path
        The file that is run to compare with: ``path``, or another of the same network.
    """

    name: str
    path: Path
    twin: Path
    model: ImportedModel
    x: Array
    y: Array | None
    calibration: Array
    n_tested: int

    def as_inputs(self, x: Array) -> Array:
        """Return samples (n, *source shape) as nettrim's graph takes them."""
        graph = self.model.graph
        x = x.transpose(0, 2, 3, 1) if self.model.input_layout == "NCHW" else x
        return np.ascontiguousarray(x.reshape(len(x), *graph.tensors[graph.inputs[0]].shape))


def load_subject(entry: Entry, data: Path, n_samples: int | None) -> Subject:
    """Return a model with its first ``n_samples`` test samples, or all.

    Raises
    ------
    NettrimError
        When the model cannot be read.
    """
    path, twin = data / "models" / entry.file, data / "models" / (entry.twin or entry.file)
    model = load_model(path)
    if not entry.archive:
        rng = np.random.default_rng(0)
        x, calibration = (
            rng.normal(size=(count, *model.source_shape)).astype(np.float32)
            for count in (n_samples or RANDOM_SAMPLES, CALIBRATION_SAMPLES)
        )
        return Subject(entry.file, path, twin, model, x, None, calibration, len(x))
    raw, labels = _test_set(data / entry.archive, entry.key)
    x = entry.prepare(raw).reshape(len(raw), *model.source_shape).astype(np.float32)
    training = _training_set(data / (entry.training or entry.archive))
    if training is None:
        n_tested = len(x) - round(HELD_BACK * len(x))
        calibration = x[n_tested:]
    else:
        n_tested = len(x)
        calibration = entry.prepare(training).reshape(len(training), *model.source_shape).astype(np.float32)
    x, labels = x[:n_samples], labels[:n_samples]
    return Subject(entry.file, path, twin, model, x, labels, calibration, min(n_tested, len(x)))


def _test_set(path: Path, key: str) -> tuple[Array, Array]:
    with np.load(path) as arrays:
        is_split = "x_test" in arrays.files
        labels = arrays["y_test" if is_split else "y"]
        return arrays["x_test" if is_split else key], labels.reshape(-1).astype(np.int64)


def _training_set(path: Path) -> Array | None:
    with np.load(path) as arrays:
        if "x_train" not in arrays.files:
            return None
        images = arrays["x_train"]
    training: Array = images[np.random.default_rng(0).permutation(len(images))[:CALIBRATION_SAMPLES]]
    return training


def _digits(x: Array) -> Array:
    return x.astype(np.float32) / 255


def _padded_digits(x: Array) -> Array:
    return np.pad(_digits(x), ((0, 0), (2, 2), (2, 2)))


def _normalised_images(x: Array) -> Array:
    images: Array = (x.astype(np.float32) / 255 - CIFAR_MEAN) / CIFAR_STD
    return images.transpose(0, 3, 1, 2)


def _keywords(x: Array) -> Array:
    return (x.astype(np.float32) - KEYWORD_ZERO_POINT) * KEYWORD_SCALE


MNIST, CIFAR, IMAGES = "mnist.npz", "cifar10_lossless.npz", "ic01_test.npz"
KEYWORDS, FEATURES = "kws01_test.npz", "kws_arm_features_300.npz"
ENTRIES = (
    *(Entry(f"hello_world_{kind}.tflite") for kind in ("float", "int8")),
    *(Entry(f"mlperf_ad_{kind}.tflite") for kind in ("float32", "int8")),
    *(Entry(f"mlperf_ic_{kind}.tflite", IMAGES, training=CIFAR) for kind in ("float32", "int8")),
    *(Entry(f"mlperf_kws_{kind}.tflite", KEYWORDS, _keywords) for kind in ("float32", "int8")),
    Entry("tinyengine_lenet-300-100_q.tflite", MNIST, _digits),
    *(Entry(f"tinymaix_mnist_{kind}_f.tflite", MNIST, _digits) for kind in ("dw", "resnet", "valid")),
    Entry("mlperf_ic.h5", IMAGES, twin="mlperf_ic_float32.tflite", training=CIFAR),
    *(
        Entry(f"tinymaix_mnist_{kind}.h5", MNIST, _digits, f"tinymaix_mnist_{kind}_f.tflite")
        for kind in ("resnet", "valid")
    ),
    Entry("lenet_300_100_mnist.pt", MNIST, _digits),
    Entry("lenet5_mnist.onnx", MNIST, _padded_digits),
    Entry("mnist-8_onnxzoo.onnx", MNIST),
    Entry("robust_mnist_conv.onnx", MNIST, _digits),
    *(Entry(f"arm_DNN_{size}.onnx", FEATURES, key="mfcc_25x10") for size in ("S", "M")),
    Entry("arm_DS_CNN_S.onnx", FEATURES, key="mfcc_49x10"),
    Entry("resnet20_cifar10.onnx", CIFAR, _normalised_images),
)
