"""What the texts behind options mean."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettrim.errors import UsageError
from nettrim.option_values import check_plain, parse_numbers, parse_shape, parse_share, read_goal
from nettrim.prune import PruneSettings

EXPECTED = "expected a share from 0 to below 1"


@given(st.floats(0, 1, exclude_max=True))
def test_a_share_is_the_number_that_was_written(share: float) -> None:
    assert parse_share(str(share), "--sparsity") == share


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1%", "; 1 per cent are 0.01"),
        ("0.5 %", "; 0.5 per cent are 0.005"),
        ("90", "; 90 per cent are 0.9"),
        ("1", "; 1 per cent are 0.01"),
        ("1.0", ""),
        ("0,9", "; write 0.9"),
        ("100", ""),
        ("150", ""),
        ("-0.1", ""),
        ("nan", ""),
        ("inf", ""),
        ("a lot", ""),
    ],
)
def test_what_is_no_share_is_refused_with_what_was_probably_meant(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"^--max-drop is {re.escape(text)}, {EXPECTED}{re.escape(hint)}$"):
        parse_share(text, "--max-drop")


def test_options_that_are_not_given_mean_nothing() -> None:
    assert parse_share(None, "--sparsity") is None
    assert parse_numbers(None, "--mean") == ()
    assert parse_shape(None, "--input-shape") is None


def test_no_goal_is_the_default_one() -> None:
    goal = read_goal(None, None, None, "l1", fit=False)
    assert goal == (PruneSettings(), None, True)


def test_each_goal_is_read_into_its_place() -> None:
    assert read_goal("0.9", None, None, "1x4", fit=False) == (PruneSettings(sparsity=0.9, structure="1x4"), None, False)
    assert read_goal(None, "0.1", None, "2:4", fit=False).prune.relative_epsilon == 0.1
    assert read_goal(None, None, "0", "l1", fit=False) == (PruneSettings(), 0.0, False)
    assert not read_goal(None, None, None, "l1", fit=True).is_default


def test_goals_that_exclude_each_other_are_named() -> None:
    with pytest.raises(UsageError, match=r"^--sparsity and --fit are different goals: give one of them$"):
        read_goal("0", None, None, "l1", fit=True)
    for arguments, option in (((None, None, "0.1"), "--max-drop"), (("0.5", None, None), "--sparsity")):
        with pytest.raises(UsageError, match=f"^--structure 2:4 fixes the sparsity: leave {option} out$"):
            read_goal(*arguments, "2:4", fit=False)


def test_the_published_program_needs_its_epsilon_and_nothing_behind_it() -> None:
    check_plain(plain=True, polish=False, relative_epsilon="0.1")
    with pytest.raises(UsageError, match="give --relative-epsilon"):
        check_plain(plain=True, polish=False, relative_epsilon=None)
    with pytest.raises(UsageError, match="give one of the two"):
        check_plain(plain=True, polish=True, relative_epsilon="0.1")
