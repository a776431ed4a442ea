"""A small network of depthwise separable convolutions, trained on CIFAR-10: of the kind that XNNPACK runs sparse."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from nettrim.importers import load_model
from nettrim_runtime.graph import Array, Graph

STEM, BLOCKS = 24, ((48, 1), (96, 2), (96, 1), (192, 2), (192, 1))  # channels; channels and stride
EPOCHS, BATCH_SIZE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 15, 64, 0.1, 0.9, 1e-3
IMAGE_SHAPE = (3, 32, 32)
MEAN, DEVIATION = 0.47, 0.25


def load_images(data: Path) -> tuple[Array, Array, Array, Array]:
    """Return training images (n, 32, 32, 3) float32 and classes, then test images and classes."""
    with np.load(data / "cifar10_lossless.npz") as arrays:
        x, test = ((arrays[key].astype(np.float32) / 255 - MEAN) / DEVIATION for key in ("x_train", "x_test"))
        y, labels = (arrays[key].reshape(-1).astype(np.int64) for key in ("y_train", "y_test"))
    return x.astype(np.float32), y, test.astype(np.float32), labels


def train_network(x: Array, y: Array, seed: int = 0, n_epochs: int = EPOCHS) -> Graph:
    """Return the trained network as a graph: SGD on images that are mirrored at random."""
    import torch  # noqa: PLC0415  # heavy

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = _network()
    images, labels = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))), torch.from_numpy(y)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = n_epochs * -(-len(x) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, cycle_momentum=False)
    for _ in range(n_epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            mirrored = images[batch].flip(3) if torch.rand(()) < 0.5 else images[batch]
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(model(mirrored), labels[batch]))
            optimizer.step()
            schedule.step()
    with tempfile.TemporaryDirectory(prefix="nettrim-") as scratch:
        path = Path(scratch, "separable.pt")
        torch.save(model.eval(), path)
        return load_model(path, input_shape=IMAGE_SHAPE).graph


def _network() -> Any:
    from torch import nn  # noqa: PLC0415  # heavy

    layers = [nn.Conv2d(3, STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU()]
    n_channels = STEM
    for n_outputs, stride in BLOCKS:
        layers += [nn.Conv2d(n_channels, n_channels, 3, stride, 1, groups=n_channels, bias=False)]
        layers += [nn.BatchNorm2d(n_channels), nn.ReLU(), nn.Conv2d(n_channels, n_outputs, 1, bias=False)]
        layers += [nn.BatchNorm2d(n_outputs), nn.ReLU()]
        n_channels = n_outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_channels, 10))
