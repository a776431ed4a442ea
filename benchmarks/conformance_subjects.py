"""The models of the shared data and their test samples, in the shape that each model's own file takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.solver_layers import CIFAR_MEAN, CIFAR_STD
from nettrim.importers import ImportedModel, load_model

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

RANDOM_SAMPLES = 1000  # where there is no data set
KEYWORD_SCALE, KEYWORD_ZERO_POINT = np.float32(0.5847029), 83  # of mlperf_kws_int8's input, by which kws01 is quantised


@dataclass(frozen=True)
class Entry:
    """A model's file, the archive of its test samples ("" for random ones), and what makes inputs of those.

    ``twin`` is a file of the same network that its own runtime can run here; "" for the file itself.
    """

    file: str
    archive: str
    prepare: Callable[[Arrays], Array]
    twin: str = ""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its test samples.

    Attributes
    ----------
    x : Array
        (n_samples, *source shape) float32, as the file's own network takes them.
    y : Array or None
        (n_samples,) classes.
    twin : Path
        The file that is run to compare with: ``path``, or another of the same network.
    """

    name: str
    path: Path
    twin: Path
    model: ImportedModel
    x: Array
    y: Array | None

    @property
    def graph_inputs(self) -> Array:
        """(n_samples, *graph input shape): the samples as nettrim's graph takes them."""
        graph, x = self.model.graph, self.x
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
        shape = (n_samples or RANDOM_SAMPLES, *model.source_shape)
        return Subject(
            entry.file, path, twin, model, np.random.default_rng(0).normal(size=shape).astype(np.float32), None
        )
    with np.load(data / entry.archive) as arrays:
        labels = arrays["y_test"] if "y_test" in arrays.files else arrays["y"]
        x, y = entry.prepare(arrays)[:n_samples], labels.reshape(-1).astype(np.int64)[:n_samples]
    return Subject(entry.file, path, twin, model, x.reshape(len(x), *model.source_shape).astype(np.float32), y)


def _random(_: Arrays) -> Array:
    raise AssertionError("random samples need no archive")


def _digits(arrays: Arrays) -> Array:
    return arrays["x_test"].astype(np.float32) / 255


def _raw_digits(arrays: Arrays) -> Array:
    return arrays["x_test"]


def _padded_digits(arrays: Arrays) -> Array:
    return np.pad(_digits(arrays), ((0, 0), (2, 2), (2, 2)))


def _normalised_images(arrays: Arrays) -> Array:
    images: Array = (arrays["x_test"].astype(np.float32) / 255 - CIFAR_MEAN) / CIFAR_STD
    return images.transpose(0, 3, 1, 2)


def _keywords(arrays: Arrays) -> Array:
    centred = arrays["x"].astype(np.float32) - KEYWORD_ZERO_POINT
    return centred * KEYWORD_SCALE


def _images(arrays: Arrays) -> Array:
    return arrays["x"]


def _short_features(arrays: Arrays) -> Array:
    return arrays["mfcc_25x10"]


def _long_features(arrays: Arrays) -> Array:
    return arrays["mfcc_49x10"]


ENTRIES = (
    Entry("hello_world_float.tflite", "", _random),
    Entry("hello_world_int8.tflite", "", _random),
    Entry("mlperf_ad_float32.tflite", "", _random),
    Entry("mlperf_ad_int8.tflite", "", _random),
    Entry("mlperf_ic_float32.tflite", "ic01_test.npz", _images),
    Entry("mlperf_ic_int8.tflite", "ic01_test.npz", _images),
    Entry("mlperf_kws_float32.tflite", "kws01_test.npz", _keywords),
    Entry("mlperf_kws_int8.tflite", "kws01_test.npz", _keywords),
    Entry("tinyengine_lenet-300-100_q.tflite", "mnist.npz", _digits),
    Entry("tinymaix_mnist_dw_f.tflite", "mnist.npz", _digits),
    Entry("tinymaix_mnist_resnet_f.tflite", "mnist.npz", _digits),
    Entry("tinymaix_mnist_valid_f.tflite", "mnist.npz", _digits),
    Entry("mlperf_ic.h5", "ic01_test.npz", _images, "mlperf_ic_float32.tflite"),
    Entry("tinymaix_mnist_resnet.h5", "mnist.npz", _digits, "tinymaix_mnist_resnet_f.tflite"),
    Entry("tinymaix_mnist_valid.h5", "mnist.npz", _digits, "tinymaix_mnist_valid_f.tflite"),
    Entry("lenet_300_100_mnist.pt", "mnist.npz", _digits),
    Entry("lenet5_mnist.onnx", "mnist.npz", _padded_digits),
    Entry("mnist-8_onnxzoo.onnx", "mnist.npz", _raw_digits),
    Entry("robust_mnist_conv.onnx", "mnist.npz", _digits),
    Entry("arm_DNN_S.onnx", "kws_arm_features_300.npz", _short_features),
    Entry("arm_DNN_M.onnx", "kws_arm_features_300.npz", _short_features),
    Entry("arm_DS_CNN_S.onnx", "kws_arm_features_300.npz", _long_features),
    Entry("resnet20_cifar10.onnx", "cifar10_lossless.npz", _normalised_images),
)
