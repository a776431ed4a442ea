"""The solver's benchmark: who counts as a peer, when a ratio stands, and a whole small run."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import solver
from benchmarks.solver import QUICK, PeerRow, main
from benchmarks.solver_authors import compare_with_authors, load_authors_solver
from benchmarks.solver_ours import iteration_over_products, random_layer_problem, solve_timed
from benchmarks.solver_peers import Peer, PeerTime, draw_neurons, fastest, time_peers
from nettrim_runtime.errors import DataError

BALL = Peer("Clarabel", "CLARABEL", compress=True)
PENALISED = Peer("OSQP", "OSQP", compress=True, is_penalised=True)
SOLVER_OF_THE_SAME_SIGNATURE = """
def net_trim_solver(X, Y, V, epsilon, rho, max_iteration=10000):
    import numpy as np
    return np.vstack([np.ones((X.shape[0] - 1, len(Y))), np.zeros((1, len(Y)))])
"""


def test_penalised_peer_reaches_the_norm_of_the_ball_and_does_not_count() -> None:
    problem = random_layer_problem((8, 3, 40))
    calls: list[None] = []
    times = time_peers(problem, [0, 2], (BALL, PENALISED), lambda: calls.append(None))
    assert len(calls) == 2
    assert [time.counts for time in times] == [True, False]
    assert times[1].objective_error < 1e-3  # OSQP's accuracy
    assert all(0 < time.seconds < 10 for time in times)


def test_peer_that_stops_far_from_the_optimum_does_not_count() -> None:
    quick, exact = PeerTime(replace(BALL, name="SCS"), 0.1, 1e-2), PeerTime(BALL, 0.5, 1e-9)
    assert fastest((quick, exact)) is exact


def test_drawn_neurons_speak() -> None:
    problem = random_layer_problem((8, 6, 40))
    silent = replace(problem, epsilon=np.array([0.0, 1, 1, 0, 1, 0]))
    assert sorted(draw_neurons(silent, 3, np.random.default_rng(0))) == [1, 2, 4]


def test_speedup_needs_a_certificate_of_every_neuron() -> None:
    ours = solve_timed(random_layer_problem((8, 2, 40)))
    row = PeerRow("layer", 8, 2, "distance", replace(ours, seconds=0.01), (PeerTime(BALL, 1.0, 0.0),))
    assert row.speedup() == row.speedup("Clarabel") == 200
    assert row.speedup("SCS") is None
    gaps = np.array([1e-4, 2e-3])
    unproved = replace(ours, solution=replace(ours.solution, relative_gaps=gaps))
    assert replace(row, ours=unproved).speedup() is None


def test_time_of_an_iteration_is_more_than_that_of_its_products() -> None:
    assert iteration_over_products(random_layer_problem((100, 40, 500)), repeats=3) > 0.5  # timings of a busy machine


def test_authors_weights_that_break_the_constraint_leave_slack_to_ours(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "NetTrimSolver_np.py").write_text(SOLVER_OF_THE_SAME_SIGNATURE)
    problem = random_layer_problem((8, 3, 40), "hard")
    found = compare_with_authors(load_authors_solver(tmp_path), problem, 2, repeats=1)
    assert found.problem.W.shape == (8, 2)
    assert found.their_norm == 16
    assert found.our_violation < found.their_violation
    assert found.our_norm <= found.strict_norm
    assert found.is_fair == (found.our_norm <= 16)


def test_folder_without_the_authors_solver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no NetTrimSolver_np\.py in it"):
        load_authors_solver(tmp_path)


def test_without_data_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["solver", "--quick", "--data", str(tmp_path)])
    assert main() == 6


@pytest.mark.slow
def test_whole_run_on_tiny_data_names_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_tiny_data(tmp_path)
    tiny = replace(
        QUICK,
        fc1_samples=40,
        fc2_samples=40,
        iteration_samples=60,
        growth_base=(20, 10, 40),
        growth_factors=(0.5, 1),
        network_samples={"LeNet-300-100": 60},
    )
    monkeypatch.setattr(solver, "QUICK", tiny)
    json_file, svg_file = tmp_path / "solver.json", tmp_path / "solver.svg"
    arguments = ["--quick", "--data", tmp_path, "--json", json_file, "--svg", svg_file]
    monkeypatch.setattr(sys, "argv", ["solver", *map(str, arguments)])
    assert main() == 0
    content = json.loads(json_file.read_text())
    figures, rows = content["figures"], content["rows"]
    assert figures["speedup_vs_cvxpy_784"]["value"] > 1
    assert figures["lenet300_seconds"]["value"] > 0
    assert figures["max_relative_gap"]["goal"] == 1e-3
    assert figures["resnet20_seconds"]["value"] is figures["speedup_vs_authors"]["value"] is None
    reasons = {row["name"]: row["reason"] for row in rows if row["part"] == "missing"}
    assert reasons["the authors' solver"] == "no --authors PATH"
    assert "ResNet-20's convolutions" in reasons
    assert "slope" in svg_file.read_text()


def _write_tiny_data(folder: Path) -> None:
    """Write a LeNet-300-100 with random weights, and images of noise, under the names of the real ones."""
    torch.manual_seed(0)
    linear = torch.nn.Linear
    network = torch.nn.Sequential(linear(784, 300), torch.nn.ReLU(), linear(300, 100), torch.nn.ReLU(), linear(100, 10))
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "lenet_300_100_mnist.pt")
    images = np.zeros((60, 28, 28), np.uint8)
    images[:, 10:18, 10:18] = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(folder / "mnist.npz", x_train=images)
