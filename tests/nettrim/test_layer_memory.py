"""A layer's memory is bounded by a formula, and its rows by the budget."""

import subprocess
import sys

import pytest

from nettrim.layer_memory import FEWEST_ROWS, rows_within, solver_bytes
from nettrim_runtime.errors import DataError

MEASURE = """
import sys
from pathlib import Path

import numpy as np

from nettrim.activations import RELU
from nettrim.layer_problem import build_problem
from nettrim.layer_search import solve_to_epsilon, solve_to_nnz


def peak_bytes():
    # Not getrusage: a child that is started by vfork takes over its parent's peak.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def problem(n_inputs, n_outputs, n_samples):
    rng = np.random.default_rng(0)
    X = np.maximum(rng.standard_normal((n_inputs, n_samples), np.float32), 0)
    W = rng.standard_normal((n_inputs, n_outputs), np.float32) / np.float32(n_inputs**0.5)
    return build_problem(X, W, np.zeros(n_outputs), RELU, relative_epsilon=0.3)


solve_to_epsilon(problem(10, 4, 50))  # what is imported and started once
before = peak_bytes()
sizes = tuple(int(size) for size in sys.argv[1:])
layer = problem(*sizes)
solve_to_epsilon(layer)
solve_to_nnz(layer, layer.W.size // 4)
print(peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(40, 60, 8000), (600, 10, 1500), (300, 512, 400)])
def test_solving_a_layer_stays_within_the_formula(sizes: tuple[int, int, int]) -> None:
    command = [sys.executable, "-c", MEASURE, *map(str, sizes)]
    used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert solver_bytes(*sizes) / 10 < used < solver_bytes(*sizes)


def test_rows_fill_the_budget_and_no_more() -> None:
    budget = 200_000_000
    rows = rows_within(budget, "fc", (784, 300, 1))
    assert rows > FEWEST_ROWS
    assert solver_bytes(784, 300, rows) <= budget < solver_bytes(784, 300, rows + 1)


def test_groups_share_the_outputs_and_add_their_inputs() -> None:
    assert solver_bytes(9, 64, 1000) < solver_bytes(9, 64, 1000, 64) < solver_bytes(9 * 64, 64, 1000)


def test_a_layer_that_cannot_fit_names_itself_the_bytes_the_budget_and_the_setting() -> None:
    with pytest.raises(DataError) as caught:
        rows_within(2 << 30, "fc_huge", (70_000, 10, 1))
    message = str(caught.value)
    needed = solver_bytes(70_000, 10, FEWEST_ROWS)
    assert all(part in message for part in ("'fc_huge'", f"{needed:,}", f"{2 << 30:,}", "memory_budget_bytes"))
