"""Trained networks with calibration pools and test sets, and their layers as the rivals see them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.quality_methods import Pruned
from benchmarks.solver_layers import CIFAR_MEAN, CIFAR_STD
from nettrim.frontier import Frontier
from nettrim.importers import load_model
from nettrim.layer_plan import LayerPlan, Network
from nettrim.layer_rows import draw_positions
from nettrim.layer_targets import plain_target
from nettrim.prune import PruneSettings, is_prunable
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.ops import Layer

RUN_BYTES = 256 << 20
KEYWORD_FOLDS = 2


class Split(NamedTuple):
    """Samples to calibrate on, without labels, and others to test on."""

    calibration: Array
    x: Array
    y: Array


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and its splits: one, or the folds of a small set. ``n_calibration`` samples are drawn a seed."""

    name: str
    graph: Graph
    splits: tuple[Split, ...]
    n_calibration: int
    max_rows: int


def load_subject(name: str, data: Path) -> Subject:
    """Return one of `SUBJECTS`; ``data`` is a folder with models/ and the archives."""
    model, archive, n_calibration, max_rows = SUBJECTS[name]
    graph = load_model(data / "models" / model).graph
    with np.load(data / archive) as arrays:
        if archive.startswith("kws"):
            return Subject(name, graph, _folds(arrays, graph), n_calibration, max_rows)
        pool, x = (_images(arrays[key], graph) for key in ("x_train", "x_test"))
        split = Split(pool, x, arrays["y_test"].reshape(-1).astype(np.int64))
    return Subject(name, graph, (split,), n_calibration, max_rows)


def draw_calibration(subject: Subject, split: Split, seed: int) -> Array:
    """Return a seed's calibration samples: the folds of a small set are used whole."""
    order = np.random.default_rng(seed).permutation(len(split.calibration))
    return split.calibration[order[: subject.n_calibration]]


def open_network(subject: Subject, samples: Array) -> Network:
    """Return the network and its activations, which are computed when they are asked for."""
    return Network(subject.graph, Frontier(subject.graph, samples, RUN_BYTES))


def rival_plans(subject: Subject, n_samples: int, seed: int) -> list[LayerPlan]:
    """Return the layers that nettrim prunes by default, each held at its own output, as the papers do."""
    graph, rng, settings = subject.graph, np.random.default_rng(seed), PruneSettings(max_rows=subject.max_rows)
    return [
        LayerPlan(layer, plain_target(layer), draw_positions(graph, layer, n_samples, subject.max_rows, rng))
        for layer in graph.layers
        if is_prunable(graph, layer, settings)
    ]


def with_weights(graph: Graph, layer: Layer, found: Pruned) -> Graph:
    """Return the graph with the pruned weights of one layer, which has one group."""
    weight, bias = graph.tensors[layer.weight], graph.tensors[layer.bias]
    W, offset = found
    values = np.ascontiguousarray(W.T.reshape(weight.shape), np.float32)
    return graph.with_tensors((replace(weight, data=values), replace(bias, data=offset.astype(np.float32))))


def _folds(arrays: Mapping[str, Array], graph: Graph) -> tuple[Split, ...]:
    shape = graph.tensors[graph.inputs[0]].shape
    key = "mfcc_25x10" if int(np.prod(shape)) == 25 * 10 else "mfcc_49x10"
    x = arrays[key].reshape(-1, *shape).astype(np.float32)
    y = arrays["y"].astype(np.int64)
    fold = np.random.default_rng(0).permutation(len(x)) % KEYWORD_FOLDS
    return tuple(Split(x[fold != number], x[fold == number], y[fold == number]) for number in range(KEYWORD_FOLDS))


def _images(images: Array, graph: Graph) -> Array:
    shape = graph.tensors[graph.inputs[0]].shape
    scaled = images.astype(np.float32) / 255
    if images.ndim == 4:
        normalised: Array = (scaled - CIFAR_MEAN) / CIFAR_STD
        return normalised
    if shape == (32, 32, 1):
        scaled = np.pad(scaled, ((0, 0), (2, 2), (2, 2)))
    return scaled.reshape(-1, *shape)


SUBJECTS: dict[str, tuple[str, str, int, int]] = {
    "ResNet-20": ("resnet20_cifar10.onnx", "cifar10_lossless.npz", 5_000, 10_000),
    "LeNet-300-100": ("lenet_300_100_mnist.pt", "mnist.npz", 20_000, 20_000),
    "LeNet-5": ("lenet5_mnist.onnx", "mnist.npz", 10_000, 10_000),
    "arm_DNN_M": ("arm_DNN_M.onnx", "kws_arm_features_300.npz", 150, 10_000),
    "arm_DS_CNN_S": ("arm_DS_CNN_S.onnx", "kws_arm_features_300.npz", 150, 10_000),
}  # name -> model file, data set, calibration samples, columns of a layer's problem
