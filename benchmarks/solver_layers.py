"""Layers of real networks as convex problems: the subjects of the solver's benchmark."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import numpy as np

from nettrim.frontier import Frontier
from nettrim.importers import load_model
from nettrim.layer_plan import LayerPlan, Network
from nettrim.layer_plan import layer_problem as problem_of
from nettrim.layer_problem import Constraint, LayerProblem
from nettrim.layer_rows import draw_positions
from nettrim.layer_targets import find_target, plain_target
from nettrim_runtime.graph import Array, Graph

SEED = 0
RUN_BYTES = 64 << 20  # of the buffers that activations are computed in
PATCH_IMAGES = 1000  # from which a convolution's patches are drawn
CIFAR_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # what ResNet-20 was trained on
CIFAR_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its training images, (n_samples, *input shape) float32."""

    name: str
    graph: Graph
    samples: Array


@dataclass(frozen=True)
class LayerChoice:
    """Which layer of a network, and how many columns of it."""

    name: str
    index: int  # in execution order
    n_columns: int


def load_subject(name: str, data: Path, n_samples: int) -> Subject:
    """Return one of `SUBJECTS`.

    Parameters
    ----------
    data : Path
        A folder with mnist.npz, cifar10_lossless.npz and models/.

    Raises
    ------
    NettrimError
        When the importer cannot carry the network over.
    FileNotFoundError
        When the folder lacks the files.
    """
    model, archive, prepare_images = SUBJECTS[name]
    graph = load_model(data / "models" / model).graph
    with np.load(data / archive) as arrays:
        images = arrays["x_train"][:n_samples]
    return Subject(name, graph, prepare_images(images.astype(np.float32) / 255))


def open_layers(subject: Subject) -> Network:
    """Return the network and its activations, which are computed when they are asked for."""
    return Network(subject.graph, Frontier(subject.graph, subject.samples, RUN_BYTES))


def layer_problem(network: Network, choice: LayerChoice, constraint: Constraint) -> LayerProblem:
    """Return a layer's problem in the parallel scheme, one ball a neuron; epsilon is set by the caller.

    The distance form holds the response behind the Add, clamp or pooling that alone reads the layer, as `prune`
    does; the hard form is the published one.
    """
    layer = network.graph.layers[choice.index]
    target = find_target(network.graph, layer, ()) if constraint == "distance" else plain_target(layer)
    rng = np.random.default_rng(SEED)
    n_samples = len(network.frontier.value(network.graph, network.graph.inputs[0]))
    positions = draw_positions(network.graph, layer, n_samples, choice.n_columns, rng, pool=target.pool)
    problem = problem_of(network, network, LayerPlan(layer, target, positions), constraint)
    return problem.with_relative_epsilon(0.1, "neuron")


def convolutions(subject: Subject, n_columns: int) -> Iterator[LayerChoice]:
    """Yield the convolutions of a network that are not depthwise."""
    for index, layer in enumerate(subject.graph.layers):
        shape = subject.graph.tensors[layer.weight].shape
        if len(shape) == 4 and shape[3] * getattr(layer, "groups", 1) == subject.graph.tensors[layer.input].shape[-1]:
            yield LayerChoice(f"{subject.name} {layer.name}", index, n_columns)


def reason(error: Exception) -> str:
    """Return what kept a network out of the benchmark, in one line."""
    return shorten(f"{type(error).__name__}: {error}", 160)


def _flat(images: Array) -> Array:
    return images.reshape(len(images), -1)


def _padded(images: Array) -> Array:
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis]


def _normalised(images: Array) -> Array:
    scaled: Array = (images - CIFAR_MEAN) / CIFAR_STD
    return scaled


SUBJECTS: dict[str, tuple[str, str, Callable[[Array], Array]]] = {
    "LeNet-300-100": ("lenet_300_100_mnist.pt", "mnist.npz", _flat),
    "LeNet-5": ("lenet5_mnist.onnx", "mnist.npz", _padded),
    "ResNet-20": ("resnet20_cifar10.onnx", "cifar10_lossless.npz", _normalised),
}  # name -> model file, data set, images (n, height, width[, channels]) in 0..1 -> samples
