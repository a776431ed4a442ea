"""The network of the Net-Trim papers: 784-300-1000-100-10, trained with dropout and weight decay, then pruned.

Aghasi, Abdi, Nguyen, Romberg (2017), section 5: more than 95 % of the weights go at no loss of accuracy.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nettrim.importers.linear_chain import build_linear_chain
from nettrim.polish import polish
from nettrim.prune import PruneSettings, measure_budget, prune
from nettrim.statistics import predicted_classes
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

SIZES = (784, 300, 1000, 100, 10)
EPOCHS, BATCH_SIZE, LEARNING_RATE, MOMENTUM, DROPOUT, WEIGHT_DECAY = 20, 128, 0.1, 0.9, 0.2, 5e-4
SPARSITIES = (0.95, 0.96, 0.97, 0.98)
CALIBRATION_SAMPLES, MAX_ROWS = 20_000, 10_000
ALLOWED_DROP = 0.1  # points


class PaperNetwork(NamedTuple):
    """What became of it: per cent of accuracy before, and (sparsity, accuracy, accuracy after a polish) after."""

    accuracy: float
    pruned: tuple[tuple[float, float, float], ...]


def measure_paper_network(data: Path, seed: int) -> PaperNetwork:
    """Train and prune it; the test digits serve for the accuracies only."""
    with np.load(data / "mnist.npz") as arrays:
        x, test = (arrays[key].reshape(-1, 784).astype(np.float32) / 255 for key in ("x_train", "x_test"))
        y, labels = (arrays[key].astype(np.int64) for key in ("y_train", "y_test"))
    graph = train(x, y, seed)
    samples = x[np.random.default_rng(seed).permutation(len(x))[:CALIBRATION_SAMPLES]]
    settings = PruneSettings(sparsity=SPARSITIES[0], max_rows=MAX_ROWS)
    budget = measure_budget(graph, samples, settings, np.random.default_rng(seed))
    pruned = []
    for sparsity in SPARSITIES:
        settings = PruneSettings(sparsity=sparsity, max_rows=MAX_ROWS)
        result = prune(graph, samples, settings, np.random.default_rng(seed), budget=budget)
        polished = polish(graph, result.graph, samples, np.random.default_rng(seed))
        pruned.append((sparsity, _accuracy(result.graph, test, labels), _accuracy(polished, test, labels)))
    return PaperNetwork(_accuracy(graph, test, labels), tuple(pruned))


def train(x: Array, y: Array, seed: int) -> Graph:
    """Return the network as a graph: SGD, dropout behind every hidden layer, weight decay on all weights."""
    import torch  # noqa: PLC0415  # heavy

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    layers: list[torch.nn.Module] = []
    for n_inputs, n_outputs in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(n_inputs, n_outputs), torch.nn.ReLU(), torch.nn.Dropout(DROPOUT)]
    model = torch.nn.Sequential(*layers[:-2])
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    steps = EPOCHS * -(-len(x) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, cycle_momentum=False)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch]))
            optimizer.step()
            schedule.step()
    arrays = {name: values.numpy() for name, values in model.state_dict().items()}
    names = [name.removesuffix(".weight") for name in arrays if name.endswith(".weight")]
    return build_linear_chain(Path("paper_network.pt"), names, arrays)


def _accuracy(graph: Graph, x: Array, labels: Array) -> float:
    return 100 * float(np.mean(predicted_classes(run_graph(graph, x)) == labels))
