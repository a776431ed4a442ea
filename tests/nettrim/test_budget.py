"""Tables of error against density, and how a number of weights is shared."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettrim.budget import Row, error_table, share_weights
from nettrim.structure_names import parse_structure
from tests.nettrim.layer_problems import random_problem

SIZES = {"first": 1000, "second": 100}
TABLES = {
    "first": (Row(1000, 0.0), Row(500, 1.0), Row(100, 10.0), Row(10, 90.0), Row(0, 100.0)),
    "second": (Row(100, 0.0), Row(50, 20.0), Row(10, 400.0), Row(0, 1000.0)),
}


@given(st.integers(0, 1200))
def test_shares_add_up_to_what_is_asked(total: int) -> None:
    counts = share_weights(TABLES, SIZES, total)
    assert sum(counts.values()) == min(total, 1100)
    assert all(0 <= counts[name] <= SIZES[name] for name in SIZES)


def test_a_layer_that_resists_pruning_keeps_a_larger_share() -> None:
    counts = share_weights(TABLES, SIZES, 500)
    assert counts["second"] / 100 > counts["first"] / 1000


def test_equal_curves_get_equal_shares() -> None:
    halves = tuple(Row(nnz, 100.0 / nnz) for nnz in (1, 10, 100, 1000))
    counts = share_weights({"a": halves, "b": halves}, {"a": 1000, "b": 1000}, 400)
    assert abs(counts["a"] - counts["b"]) <= 0.05 * 400


def test_the_share_of_two_power_laws_has_equal_marginal_costs() -> None:
    grid = np.unique(np.geomspace(1, 4000, 60).astype(int))
    tables = {name: tuple(Row(int(n), scale / n) for n in grid) for name, scale in (("a", 1.0), ("b", 9.0))}
    counts = share_weights(tables, {"a": 4000, "b": 4000}, 2000)
    assert counts["b"] / counts["a"] == pytest.approx(3.0, rel=0.1)  # the root of 9: the marginal cost is scale / n^2


@pytest.mark.parametrize("structure", ["l1", "1x4", "columns"])
def test_a_table_falls_from_all_weights_at_no_cost_to_none_at_the_highest(structure: str) -> None:
    problem = random_problem(1, shape=(24, 8, 300))
    penalty = parse_structure(structure)
    grouped = type(problem)(**{**vars(problem), "structure": penalty})
    rows = error_table(grouped, np.ones(8))
    assert rows[0] == Row(problem.W.size, 0.0)
    assert rows[-1].nnz == 0
    assert rows[-1].cost == pytest.approx(max(row.cost for row in rows))
    assert all(first.cost <= second.cost * 1.1 for first, second in itertools.pairwise(rows) if second.nnz < first.nnz)
