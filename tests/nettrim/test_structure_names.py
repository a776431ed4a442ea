"""Structures by name, and the N:M pattern."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettrim.errors import UsageError
from nettrim.structure import L1, Groups
from nettrim.structure_names import NOfM, parse_structure


@pytest.mark.parametrize(
    ("text", "block_shape"),
    [("1x4", (1, 4)), ("1x16", (1, 16)), ("4x1", (4, 1)), ("columns", (None, 1)), ("neurons", (1, None))],
)
def test_name_of_groups_gives_their_shape(text: str, block_shape: tuple[int | None, int | None]) -> None:
    structure = parse_structure(text)
    assert isinstance(structure, Groups)
    assert structure.block_shape == block_shape


@pytest.mark.parametrize("text", ["l1", "1x1"])
def test_single_weights_are_the_plain_norm(text: str) -> None:
    assert parse_structure(text) is L1


def test_pattern_is_read() -> None:
    assert parse_structure("2:4") == NOfM(2, 4)


@pytest.mark.parametrize("text", ["", "x", "4x", "0x4", "1x4x2", "-1x4", "2/4", "Columns", "1x4 ", "²:4", "l2"])
def test_unknown_name_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not known, expected one of: l1, columns, neurons, blocks as 1x4"):
        parse_structure(text)


@pytest.mark.parametrize("text", ["4:4", "5:4"])
def test_pattern_that_is_no_sparsity_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"structure {text}: expected n:m with 1 <= n < m"):
        parse_structure(text)


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4), st.integers(1, 17))
def test_selection_is_the_n_largest_of_every_m(seed: int, n: int, more: int, n_inputs: int) -> None:
    rng = np.random.default_rng(seed)
    m = n + more
    sizes = rng.random((n_inputs, 3)) * (rng.random((n_inputs, 3)) < 0.8)
    kept = NOfM(n, m).select(sizes)
    assert not np.any(kept & (sizes == 0))
    for start in range(0, n_inputs, m):
        group, chosen = sizes[start : start + m], kept[start : start + m]
        for column, mask in zip(group.T, chosen.T, strict=True):
            assert np.count_nonzero(mask) == min(n, np.count_nonzero(column))
            assert np.min(column[mask], initial=np.inf) >= np.max(column[~mask], initial=0.0)


def test_weights_beyond_the_pattern_are_noticed() -> None:
    W = np.array([[1.0], [0.0], [2.0], [0.0], [3.0]])
    assert NOfM(2, 4).holds(W)
    W[1] = 1.0
    assert not NOfM(2, 4).holds(W)
