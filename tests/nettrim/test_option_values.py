"""What the texts behind options mean."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nettrim.errors import UsageError
from nettrim.option_values import parse_numbers, parse_shape, parse_share

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
