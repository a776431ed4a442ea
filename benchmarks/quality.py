"""Accuracy against sparsity: nettrim and the one-shot methods that users can download, without labels or retraining.

    python -m benchmarks.quality --data DIR [--quick] [--json FILE] [--svg FILE] [--parts DIR]

Everyone gets the same calibration samples, the number of weights a layer that nettrim's budget chooses, and the same
test set. ALPS runs on the original inputs and, as its paper does, on those of the network pruned so far; the better
one counts.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality_chart import render_accuracy
from benchmarks.quality_methods import METHODS
from benchmarks.quality_paper_network import ALLOWED_DROP, PaperNetwork, measure_paper_network
from benchmarks.quality_subjects import (
    SUBJECTS,
    Split,
    Subject,
    draw_calibration,
    load_subject,
    open_network,
    rival_plans,
    with_weights,
)
from benchmarks.results_file import Figure, Results, Row, benchmark_parser, current_commit, report_results
from nettrim.calibrate import choose_tails, quantize_on, quantizer
from nettrim.deployment_inputs import DEFAULT_DISAGREEMENT
from nettrim.evaluate import run_deployed
from nettrim.goal_search import measure_drop, prune_to_drop
from nettrim.layer_plan import layer_problem
from nettrim.prune import PruneResult, PruneSettings, measure_budget, prune
from nettrim.samples import Samples, split_held_out
from nettrim.statistics import predicted_classes, relative_error
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

COMPARED = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97)
SEEDS = (0, 1, 2)
SEQUENTIAL = ("ALPS",)  # run also on the inputs of the network pruned so far: SparseGPT lies too far behind to gain
OURS = "nettrim"
LEAD_AT = 0.9
MNIST = ("LeNet-300-100", "LeNet-5")
GOALS = {
    ("LeNet-300-100", 0.92): ("lenet300_acc_92", 98.2),
    ("LeNet-300-100", 0.95): ("lenet300_acc_95", 98.0),
    ("LeNet-300-100", 0.97): ("lenet300_acc_97", 97.6),
    ("LeNet-5", 0.9): ("lenet5_acc_90", 98.3),
    ("ResNet-20", 0.5): ("resnet20_acc_50", 91.0),
    ("ResNet-20", 0.7): ("resnet20_acc_70", 88.5),
}


@dataclass(frozen=True)
class Measured:
    """One method on one network at one sparsity and seed: per cent, over all folds of the test set."""

    network: str
    method: str
    sparsity: float
    seed: int
    accuracy: float
    output_error: float
    int8_accuracy: float | None = None
    reached: float = 0.0
    seconds: float = 0.0


def measure(name: str, seed: int, sparsities: Sequence[float], data: Path, *, quick: bool = False) -> list[Measured]:
    """Prune one network with one seed's calibration samples, half of them if quick, by every method."""
    subject = load_subject(name, data)
    if quick:
        subject = replace(subject, n_calibration=subject.n_calibration // 2, max_rows=subject.max_rows // 2)
    found: dict[tuple[str, float], list[Mapping[str, float]]] = {}
    for split in subject.splits:
        samples = draw_calibration(subject, split, seed)
        tails, original = choose_tails(subject.graph, samples), run_graph(subject.graph, split.x)
        ours, seconds = _prune_ours(subject, samples, sparsities, seed)
        for sparsity, result in ours.items():
            row = _score(original, result.graph, split) | {"seconds": seconds[sparsity]}
            row["int8_accuracy"] = _int8_accuracy(result.graph, samples, split, tails)
            found.setdefault((OURS, sparsity), []).append(row)
        counts = {sparsity: _counts(result) for sparsity, result in ours.items()}
        for method, graphs in _prune_rivals(subject, samples, counts, seed).items():
            for sparsity, graph in graphs.items():
                found.setdefault((method, sparsity), []).append(_score(original, graph, split))
    rows = []
    for (method, sparsity), parts in found.items():
        means = {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}
        rows.append(Measured(name, method, sparsity, seed, **means))
    return rows


def measure_default_goal(name: str, data: Path) -> Row:
    """Prune one network as a user who gives no goal, and judge it on samples that the search has not seen."""
    subject = load_subject(name, data)
    split = subject.splits[0]
    samples = Samples(draw_calibration(subject, split, 0), None, name)
    fit, held_out = split_held_out(samples, np.random.default_rng(0))
    settings = PruneSettings(max_rows=subject.max_rows)
    rng, graph = np.random.default_rng(0), subject.graph
    start = time.perf_counter()
    tails = choose_tails(graph, fit.x)
    found = prune_to_drop(
        graph, fit, DEFAULT_DISAGREEMENT, settings, rng=rng, quantizer=partial(quantizer, tails=tails)
    )
    seconds = time.perf_counter() - start
    deployed = quantize_on(found.result.graph, fit.x, found.wide, tails)
    right = predicted_classes(run_deployed(deployed, split.x)) == split.y
    return {
        "part": "no goal given",
        "network": name,
        "sparsity": round(1 - _density(found.result.graph), 4),
        "agreement_held_out": round(1 - measure_drop(graph, deployed, held_out), 4),
        "agreement_test": round(1 - measure_drop(graph, deployed, Samples(split.x, None, name)), 4),
        "int8_accuracy": round(100 * float(np.mean(right)), 2),
        "dense": round(100 * float(np.mean(predicted_classes(run_graph(graph, split.x)) == split.y)), 2),
        "trials": len(found.trials),
        "seconds": round(seconds, 1),
    }


def _prune_ours(
    subject: Subject, samples: Array, sparsities: Sequence[float], seed: int
) -> tuple[dict[float, PruneResult], dict[float, float]]:
    settings = PruneSettings(sparsity=0.9, max_rows=subject.max_rows)
    budget = measure_budget(subject.graph, samples, settings, np.random.default_rng(seed))
    results, seconds = {}, {}
    for sparsity in sparsities:
        start = time.perf_counter()
        settings = PruneSettings(sparsity=sparsity, max_rows=subject.max_rows)
        results[sparsity] = prune(subject.graph, samples, settings, np.random.default_rng(seed), budget=budget)
        seconds[sparsity] = time.perf_counter() - start
    return results, seconds


def _counts(result: PruneResult) -> dict[str, int]:
    return {layer.name: layer.solution.nnz for layer in result.layers if layer.solution is not None}


def _prune_rivals(
    subject: Subject, samples: Array, counts: Mapping[float, Mapping[str, int]], seed: int
) -> dict[str, dict[float, Graph]]:
    """Return each rival's network at each sparsity, and of `SEQUENTIAL` ones a second, by name."""
    graph, network = subject.graph, open_network(subject, samples)
    graphs = {method: dict.fromkeys(counts, graph) for method in METHODS}
    plans = rival_plans(subject, len(samples), seed)
    while plans:
        plan = plans.pop(0)
        problem = layer_problem(network, network, plan, "distance")
        network.release(plans)
        for method, prepare in METHODS.items():
            prune_layer = prepare(problem)
            for sparsity, kept in counts.items():
                pruned = prune_layer(kept[plan.layer.name])
                graphs[method][sparsity] = with_weights(graphs[method][sparsity], plan.layer, pruned)
    for method in SEQUENTIAL:
        graphs[f"{method}, sequential"] = {
            sparsity: _prune_sequentially(subject, samples, method, kept, seed) for sparsity, kept in counts.items()
        }
    return graphs


def _prune_sequentially(subject: Subject, samples: Array, method: str, kept: Mapping[str, int], seed: int) -> Graph:
    network = open_network(subject, samples)
    plans = rival_plans(subject, len(samples), seed)
    while plans:
        plan = plans.pop(0)
        problem = layer_problem(network, network, plan, "distance")
        pruned = METHODS[method](problem)(kept[plan.layer.name])
        network = replace(network, graph=with_weights(network.graph, plan.layer, pruned))
        network.release(plans)
    return network.graph


def _score(original: Array, graph: Graph, split: Split) -> dict[str, float]:
    outputs = run_graph(graph, split.x)
    return {
        "accuracy": 100 * float(np.mean(predicted_classes(outputs) == split.y)),
        "output_error": relative_error(outputs, original),
        "reached": 1 - _density(graph),
    }


def _density(graph: Graph) -> float:
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    return sum(weight.nnz for weight in weights) / sum(weight.size for weight in weights)


def _int8_accuracy(graph: Graph, samples: Array, split: Split, tails: Mapping[str, float]) -> float:
    deployed = quantize_on(graph, samples, tails=tails)
    return 100 * float(np.mean(predicted_classes(run_deployed(deployed, split.x)) == split.y))


def summarise(measured: Sequence[Measured]) -> tuple[dict[str, Figure], list[Row]]:
    """Return the figures, and a row for each network, method and sparsity: means and spread over the seeds."""
    groups: dict[tuple[str, float, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.network, one.sparsity, one.method), []).append(one)
    rows: list[Row] = []
    means, spreads = {}, {}
    for key, parts in sorted(groups.items()):
        accuracies = [part.accuracy for part in parts]
        means[key], spreads[key] = float(np.mean(accuracies)), float(np.ptp(accuracies))
        int8 = [part.int8_accuracy for part in parts if part.int8_accuracy is not None]
        rows.append(
            {
                "network": key[0],
                "sparsity": key[1],
                "method": key[2],
                "accuracy": round(means[key], 3),
                "spread": round(spreads[key], 3),
                "output_error": round(float(np.mean([part.output_error for part in parts])), 4),
                "int8_accuracy": round(float(np.mean(int8)), 3) if int8 else None,
                "reached": round(float(np.mean([part.reached for part in parts])), 4),
                "seconds": round(float(np.mean([part.seconds for part in parts])), 1),
            }
        )
    return _figures(means, rows), rows


def _figures(means: Mapping[tuple[str, float, str], float], rows: Sequence[Row]) -> dict[str, Figure]:
    figures = {
        name: Figure(means.get((network, sparsity, OURS)), "%", "higher", goal)
        for (network, sparsity), (name, goal) in GOALS.items()
    }
    best = {
        key: max(mean for (*other, method), mean in means.items() if tuple(other) == key and method != OURS)
        for key in {(network, sparsity) for network, sparsity, _ in means}
    }
    leads = {key: means[*key, OURS] - other for key, other in best.items()}
    at_90 = [lead for (_, sparsity), lead in leads.items() if sparsity == LEAD_AT]
    compared = [lead for (_, sparsity), lead in leads.items() if sparsity in COMPARED]
    drops = [
        float(row["accuracy"]) - float(row["int8_accuracy"])  # type: ignore[arg-type]
        for row in rows
        if row["network"] in MNIST and row["method"] == OURS
    ]
    figures["mean_lead_90"] = Figure(float(np.mean(at_90)) if at_90 else None, "points", "higher", 0.0)
    figures["worst_deficit"] = Figure(max(0.0, -min(compared)) if compared else None, "points", "lower", 0.0)
    figures["worst_int8_extra_drop_mnist"] = Figure(max(drops) if drops else None, "points", "lower", 0.2)
    return figures


def _sparsities(network: str, *, quick: bool) -> tuple[float, ...]:
    """Return those that are compared, and those that only a goal asks for."""
    asked = {sparsity for name, sparsity in GOALS if name == network}
    return (LEAD_AT,) if quick else tuple(sorted({*COMPARED, *asked}))


def keep_part(folder: Path | None, name: str, measure_part: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a part of the run measures, as JSON has it; from ``folder`` if it is there, else it goes there.

    So a run that was ended goes on where it was. Each part is a file with the commit it was measured at.
    """
    path = folder / f"{name}.json" if folder else None
    if path is not None and path.exists():
        return json.loads(path.read_text())["result"]
    found = measure_part(*arguments)
    rows = [asdict(one) if isinstance(one, Measured) else one for one in found] if isinstance(found, list) else found
    text = json.dumps({"commit": current_commit(), "result": rows}, indent=1)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    print(f"done: {name}", file=sys.stderr, flush=True)
    return json.loads(text)["result"]


def paper_figures(measured: Sequence[PaperNetwork]) -> tuple[dict[str, Figure], list[Row]]:
    """Return the largest sparsity at which the mean accuracy falls by `ALLOWED_DROP` at most, and the fall there."""
    dense = float(np.mean([one.accuracy for one in measured]))
    rows: list[Row] = []
    best: tuple[float | None, float | None, float | None] = None, None, None
    for index, (sparsity, *_) in enumerate(measured[0].pruned):
        accuracies = [one.pruned[index][1] for one in measured]
        polished = float(np.mean([one.pruned[index][2] for one in measured]))
        drop = dense - float(np.mean(accuracies))
        rows.append(
            {
                "part": "network of the papers",
                "sparsity": sparsity,
                "dense": round(dense, 3),
                "accuracy": round(float(np.mean(accuracies)), 3),
                "spread": round(float(np.ptp(accuracies)), 3),
                "polished": round(polished, 3),
            }
        )
        if drop <= ALLOWED_DROP or best[0] is None:
            best = sparsity, drop, dense - polished
    figures = {
        "paper_net_sparsity": Figure(best[0], "share of weights", "higher", 0.95),
        "paper_net_drop": Figure(best[1], "points", "lower", ALLOWED_DROP),
        "paper_net_drop_polished": Figure(best[2], "points", "lower"),
    }
    return figures, rows


def main() -> int:
    """Run and print; returns the exit status."""
    parser = benchmark_parser("quality", __doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="only these")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="draws of calibration samples: 1 to 3")
    parser.add_argument("--parts", type=Path, help="folder of the parts measured already: a run that was ended goes on")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data: the folder with models/ and the data sets is needed")
    networks, seeds = (["LeNet-5"], SEEDS[:1]) if options.quick else (options.networks, SEEDS[: options.seeds])
    data, quick = options.data, options.quick
    with ProcessPoolExecutor(os.cpu_count()) as workers:

        def submit(name: str, measure_part: Callable[..., Any], *arguments: Any) -> Future[Any]:
            return workers.submit(keep_part, options.parts, name, measure_part, *arguments)

        compared = [
            submit(f"{name}-{seed}", partial(measure, quick=quick), name, seed, _sparsities(name, quick=quick), data)
            for seed in seeds
            for name in networks
        ]
        trained = [] if quick else [submit(f"paper-{seed}", measure_paper_network, data, seed) for seed in seeds]
        goals = [] if quick else [submit(f"goal-{name}", measure_default_goal, name, data) for name in networks]
        measured = [Measured(**row) for future in compared for row in future.result()]
        papers = [PaperNetwork(*future.result()) for future in trained]
        defaults = [future.result() for future in goals]
    figures, rows = summarise(measured)
    if papers:
        found, more = paper_figures(papers)
        figures, rows = figures | found, rows + more
    rows += defaults
    for row in defaults:
        if row["network"] == "LeNet-300-100":
            figures["default_goal_sparsity_lenet300"] = Figure(float(row["sparsity"] or 0), "share", "higher")
    report_results(Results(figures, rows), options, render_accuracy(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
