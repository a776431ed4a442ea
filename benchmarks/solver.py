"""The solver against CVXPY's solvers, the authors' own, and its own matrix products, on real layers.

Needs --data: the folder of mnist.npz, cifar10_lossless.npz and models/ that CONTRIBUTING.md describes.
"""

import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.log_log_chart import Curve, render_log_log
from benchmarks.results_file import ROOT, Figure, Results, Row, benchmark_parser, report_results
from benchmarks.solver_authors import AuthorsComparison, compare_with_authors, load_authors_solver
from benchmarks.solver_layers import (
    PATCH_IMAGES,
    SEED,
    LayerChoice,
    convolutions,
    layer_problem,
    load_subject,
    open_layers,
    reason,
)
from benchmarks.solver_network import THREAD_VARIABLES, measure_network
from benchmarks.solver_ours import (
    GROWTH_BASE,
    GROWTH_FACTORS,
    TimedSolve,
    iteration_over_products,
    measure_growth,
    solve_timed,
)
from benchmarks.solver_peers import CLARABEL, PeerTime, all_peers, draw_neurons, fastest, time_peers
from nettrim.layer_plan import Network
from nettrim.layer_problem import Constraint
from nettrim_runtime.errors import ModelFileError, NettrimError

DATA = ROOT.parent / "shared" / "data"
LARGEST_GAP = 1e-3
HEADLINE_EPSILON = 0.1
CONSTRAINTS: tuple[Constraint, ...] = ("distance", "hard")
FC1, FC2 = 0, 1  # LeNet-300-100's layers
CONVOLUTIONAL = ("LeNet-5", "ResNet-20")


@dataclass(frozen=True)
class Plan:
    """How much of everything is measured.

    Attributes
    ----------
    neurons : int
        Drawn for the peers, in each layer and form.
    convolutions : int or None
        Of each network, evenly spread; None means all.
    iteration_samples, growth_base, growth_factors, authors_shape, network_samples
        Sizes: samples of fc1, `solver_ours.measure_growth`, (neurons, samples) of fc1, samples of each network.
    """

    neurons: int
    repeats: int
    fc1_samples: int
    fc2_samples: int
    epsilons: Sequence[float]
    convolutions: int | None
    patches: int
    iteration_samples: int
    growth_base: Sequence[int]
    growth_factors: Sequence[float]
    authors_shape: tuple[int, int]
    network_samples: Mapping[str, int]


FULL = Plan(
    neurons=4,
    repeats=3,
    fc1_samples=2000,
    fc2_samples=1000,
    epsilons=(0.05, 0.1, 0.2),
    convolutions=None,
    patches=3000,
    iteration_samples=20_000,
    growth_base=GROWTH_BASE,
    growth_factors=GROWTH_FACTORS,
    authors_shape=(300, 2000),
    network_samples={"LeNet-300-100": 20_000, "ResNet-20": 2000},
)
QUICK = Plan(
    neurons=1,
    repeats=1,
    fc1_samples=2000,
    fc2_samples=1000,
    epsilons=(HEADLINE_EPSILON,),
    convolutions=2,
    patches=1000,
    iteration_samples=2000,
    growth_base=(100, 50, 500),
    growth_factors=(0.5, 1, 2),
    authors_shape=(10, 500),
    network_samples={"LeNet-300-100": 1000},
)


@dataclass(frozen=True, eq=False)
class SettingRow:
    """One layer at one epsilon in one form, with the default settings."""

    name: str
    shape: tuple[int, int, int]  # inputs, outputs, samples
    constraint: Constraint
    relative_epsilon: float
    ours: TimedSolve


@dataclass(frozen=True, eq=False)
class PeerRow:
    """One layer in one form, by ours and the peers."""

    name: str
    n_inputs: int
    n_outputs: int
    constraint: Constraint
    ours: TimedSolve
    peers: Sequence[PeerTime]

    def speedup(self, solver: str | None = None) -> float | None:
        """Return the fastest peer's time a neuron over ours; None where ours has no certificate or no peer counts."""
        if self.ours.worst_gap > LARGEST_GAP or not any(p.counts and solver in {None, p.peer.name} for p in self.peers):
            return None
        return fastest(self.peers, solver).seconds * self.n_outputs / self.ours.seconds


@dataclass(eq=False)
class Measured:
    """All of a run; what could not be measured has its reason in ``missing``."""

    peers: list[PeerRow] = field(default_factory=list)
    settings: list[SettingRow] = field(default_factory=list)
    growth: Mapping[str, list[tuple[int, int, float]]] = field(default_factory=dict)
    networks: dict[str, Mapping[str, str | float]] = field(default_factory=dict)
    authors: AuthorsComparison | None = None
    iteration_over_gemm: float | None = None
    missing: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Measure, print and write; returns the exit status."""
    parser = benchmark_parser("solver", __doc__ or "")
    parser.add_argument("--authors", type=Path, metavar="PATH", help="a checkout of github.com/DNNToolBox/Net-Trim")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    try:
        measured = measure(plan, options.data or DATA, options.authors, quick=options.quick)
    except (ModelFileError, FileNotFoundError) as error:
        print(f"nothing is measured: {error}", file=sys.stderr)
        return 6
    for name, why in measured.missing.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    curves = {axis: Curve([(size, seconds) for size, _, seconds in of]) for axis, of in measured.growth.items()}
    chart = render_log_log(curves, f"size; the others as in {' x '.join(map(str, plan.growth_base))}", "seconds")
    report_results(Results(figures(measured), list(rows(measured))), options, chart)
    return 0


def measure(plan: Plan, data: Path, authors: Path | None, *, quick: bool) -> Measured:
    """Run every part of the benchmark.

    Raises
    ------
    ModelFileError, FileNotFoundError
        Without LeNet-300-100 or its data.
    """
    measured = Measured()
    lenet = open_layers(load_subject("LeNet-300-100", data, max(plan.iteration_samples, plan.fc1_samples)))
    chosen = (
        LayerChoice("LeNet-300-100 fc2", FC2, plan.fc2_samples),
        LayerChoice("LeNet-300-100 fc1", FC1, plan.fc1_samples),
    )
    for choice in chosen:
        measured.peers += [_measure_peers(lenet, choice, form, plan, quick=quick) for form in CONSTRAINTS]
        measured.settings += _measure_settings(lenet, choice, plan)
    for name in CONVOLUTIONAL:
        _measure_convolutions(measured, name, data, plan)
    largest = LayerChoice("LeNet-300-100 fc1", FC1, plan.iteration_samples)
    measured.iteration_over_gemm = iteration_over_products(layer_problem(lenet, largest, "distance"), plan.repeats)
    measured.growth = measure_growth(plan.growth_base, plan.growth_factors, plan.repeats)
    _measure_authors(measured, lenet, authors, plan)
    for name, n_samples in plan.network_samples.items():
        measured.networks[name] = measure_network(name, data, n_samples)
    return measured


def figures(measured: Measured) -> Mapping[str, Figure]:
    """Return the named figures; None where they could not be measured."""
    speedups: dict[tuple[int, str], PeerRow] = {(row.n_inputs, row.constraint): row for row in measured.peers}
    peer_goals: dict[str, tuple[int, Constraint, str | None, float]] = {
        "speedup_vs_cvxpy_300": (300, "distance", None, 100),
        "speedup_vs_cvxpy_784": (784, "distance", None, 100),
        "speedup_vs_clarabel_784": (784, "distance", CLARABEL, 400),
        "speedup_vs_cvxpy_784_hard": (784, "hard", None, 50),
        "speedup_vs_clarabel_784_hard": (784, "hard", CLARABEL, 200),
    }
    found = {
        name: _ratio(speedups[inputs, form].speedup(solver), goal)
        for name, (inputs, form, solver, goal) in peer_goals.items()
    }
    fair = measured.authors if measured.authors is not None and measured.authors.is_fair else None
    found["speedup_vs_authors"] = _ratio(fair.their_seconds / fair.ours.seconds if fair else None, 50)
    iterations = speedups[784, "distance"].ours.solution.iterations
    solved = [row.ours for row in measured.settings] + [row.ours for row in measured.peers]
    found |= {
        "iteration_over_gemm": Figure(_rounded(measured.iteration_over_gemm), "ratio", "lower", 1.5),
        "iterations_lenet300": Figure(iterations, "iterations", "lower", 200),
        "lenet300_seconds": _seconds(measured.networks.get("LeNet-300-100"), 60),
        "resnet20_seconds": _seconds(measured.networks.get("ResNet-20"), 300),
        "lenet300_peak_memory": _memory(measured.networks.get("LeNet-300-100")),
        "resnet20_peak_memory": _memory(measured.networks.get("ResNet-20")),
        "max_relative_gap": Figure(
            _rounded(max(ours.worst_gap for ours in solved)), "share of ||W||_1", "lower", LARGEST_GAP
        ),
    }
    for axis, points in measured.growth.items():
        slope = Curve([(size, seconds) for size, _, seconds in points]).slope
        found[f"growth_{axis}"] = Figure(_rounded(slope), "exponent", "lower")
    return found


def rows(measured: Measured) -> Iterator[Row]:
    """Yield the measurements behind the figures, and what is missing with its reason."""
    for peer_row in measured.peers:
        yield from _peer_rows(peer_row)
    yield from map(_setting_row, measured.settings)
    for axis, points in measured.growth.items():
        for size, iterations, seconds in points:
            yield {"part": "growth", "axis": axis, "size": size, "iterations": iterations, "seconds": _rounded(seconds)}
    for name, network in measured.networks.items():
        yield {"part": "network", "name": name, **network}
    if measured.authors is not None:
        yield from _authors_rows(measured.authors)
    for name, why in measured.missing.items():
        yield {"part": "missing", "name": name, "reason": why}


def _measure_peers(network: Network, choice: LayerChoice, form: Constraint, plan: Plan, *, quick: bool) -> PeerRow:
    problem = layer_problem(network, choice, form).with_relative_epsilon(HEADLINE_EPSILON)
    neurons = draw_neurons(problem, plan.neurons, np.random.default_rng(SEED))
    ours: list[TimedSolve] = []
    # In turns: what else the machine does slows both.
    peers = time_peers(problem, neurons, all_peers(quick=quick), lambda: ours.append(solve_timed(problem)))
    median = replace(ours[0], seconds=statistics.median(timed.seconds for timed in ours))
    n_inputs, n_outputs = problem.W.shape
    return PeerRow(choice.name, n_inputs, n_outputs, form, median, peers)


def _measure_settings(network: Network, choice: LayerChoice, plan: Plan) -> Iterator[SettingRow]:
    for form in CONSTRAINTS:
        problem = layer_problem(network, choice, form)
        shape = (*problem.W.shape, problem.X.shape[1])
        for epsilon in plan.epsilons:
            ours = solve_timed(problem.with_relative_epsilon(epsilon))
            yield SettingRow(choice.name, shape, form, epsilon, ours)


def _measure_convolutions(measured: Measured, name: str, data: Path, plan: Plan) -> None:
    try:
        subject = load_subject(name, data, PATCH_IMAGES)
    except (NettrimError, FileNotFoundError) as error:
        measured.missing[f"{name}'s convolutions"] = reason(error)
        return
    found = list(convolutions(subject, plan.patches))
    count = len(found) if plan.convolutions is None else min(plan.convolutions, len(found))
    network = open_layers(subject)
    for index in np.linspace(0, len(found) - 1, count).astype(int):
        measured.settings += _measure_settings(network, found[index], plan)


def _measure_authors(measured: Measured, network: Network, checkout: Path | None, plan: Plan) -> None:
    if checkout is None:
        measured.missing["the authors' solver"] = "no --authors PATH"
        return
    n_outputs, n_samples = plan.authors_shape
    problem = layer_problem(network, LayerChoice("fc1", FC1, n_samples), "hard")
    measured.authors = compare_with_authors(load_authors_solver(checkout), problem, n_outputs, plan.repeats)


def _peer_rows(row: PeerRow) -> Iterator[Row]:
    base = {"part": "peers", "layer": row.name, "constraint": row.constraint}
    ours = row.ours.seconds / row.n_outputs
    yield base | {
        "solver": "nettrim",
        "formulation": "whole layer",
        "seconds_per_neuron": _rounded(ours),
        "worst_gap": _rounded(row.ours.worst_gap),
    }
    for time in row.peers:
        peer = time.peer
        options = "".join(f" {key}={value:g}" for key, value in peer.options.items())
        yield base | {
            "solver": peer.name + options,
            "formulation": ("penalised, " if peer.is_penalised else "") + ("compressed" if peer.compress else "direct"),
            "seconds_per_neuron": _rounded(time.seconds),
            "objective_error": _rounded(time.objective_error),
            "times_ours": _rounded(time.seconds / ours),
            "counts": "yes" if time.counts else "no",
        }


def _setting_row(row: SettingRow) -> Row:
    solution = row.ours.solution
    return {
        "part": "settings",
        "layer": row.name,
        "inputs x outputs x samples": " x ".join(map(str, row.shape)),
        "constraint": row.constraint,
        "relative_epsilon": row.relative_epsilon,
        "iterations": solution.iterations,
        "seconds": _rounded(row.ours.seconds),
        "worst_gap": _rounded(row.ours.worst_gap),
        "status": solution.status.value,
    }


def _authors_rows(found: AuthorsComparison) -> Iterator[Row]:
    shape = " x ".join(map(str, (*found.problem.W.shape, found.problem.X.shape[1])))
    base = {"part": "authors", "inputs x outputs x samples": shape}
    theirs = (found.their_seconds, found.their_norm, found.their_violation)
    ours = (found.ours.seconds, found.our_norm, found.our_violation)
    strict = (found.strict.seconds, found.strict_norm, found.strict.solution.primal_residual)
    for name, (seconds, norm, violation) in {"theirs": theirs, "ours": ours, "ours, feasible": strict}.items():
        yield base | {"solver": name, "seconds": _rounded(seconds), "l1_norm": norm, "violation": _rounded(violation)}


def _ratio(value: float | None, goal: float) -> Figure:
    return Figure(_rounded(value), "times", "higher", goal)


def _seconds(network: Mapping[str, str | float] | None, goal: float) -> Figure:
    return Figure(_number(network, "seconds"), "s", "lower", goal)


def _memory(network: Mapping[str, str | float] | None) -> Figure:
    return Figure(_number(network, "peak_bytes"), "bytes", "lower")


def _number(network: Mapping[str, str | float] | None, key: str) -> float | None:
    value = (network or {}).get(key)
    return None if value is None or isinstance(value, str) else _rounded(value)


def _rounded(value: float | None) -> float | None:
    """Return four digits; None for what is not finite, which JSON cannot hold."""
    return float(f"{value:.4g}") if value is not None and np.isfinite(value) else None


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):  # libraries read them once, when they load
        one_thread = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.solver", *sys.argv[1:]], one_thread)
    sys.exit(main())
