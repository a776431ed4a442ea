"""What a run is to reach, in words."""

import pytest

from nettrim.goal import Measure, describe_goal, lost_text
from nettrim.prune import PruneSettings

CHOICES = "--max-drop, --sparsity, --relative-epsilon or --fit choose another"


def _describe(
    settings: PruneSettings,
    max_drop: float | None = None,
    measure: Measure = "agreement",
    *,
    flash_bytes: int | None = None,
    is_default: bool = False,
    is_synthetic: bool = False,
) -> str:
    return describe_goal(
        settings, max_drop, measure, flash_bytes=flash_bytes, is_default=is_default, is_synthetic=is_synthetic
    )


def test_a_default_goal_says_so_and_how_to_choose_another() -> None:
    found = _describe(PruneSettings(), 0.005, is_default=True)
    assert found == f"at most 0.5% of the answers may change on held-out samples (the default; {CHOICES})"


def test_the_default_without_data_says_so() -> None:
    found = _describe(PruneSettings(relative_epsilon=0.02, cautious=True), is_default=True, is_synthetic=True)
    moves = "each layer's response moves by at most 2% of what it varies by"
    assert found == f"{moves} (the default without data; {CHOICES})"


@pytest.mark.parametrize(
    ("settings", "flash_bytes", "expected"),
    [
        (PruneSettings(sparsity=0.725), None, "72.5% of all weights removed (--sparsity)"),
        (PruneSettings(), 1000, "as many weights as 1000 bytes of flash hold (--fit)"),
        (PruneSettings(structure="2:4"), None, "2:4 weights in every layer (--structure)"),
        (PruneSettings(), None, "each layer's response moves by at most 5% of its norm (--relative-epsilon)"),
    ],
)
def test_a_goal_of_the_users_names_its_option(settings: PruneSettings, flash_bytes: int | None, expected: str) -> None:
    assert _describe(settings, flash_bytes=flash_bytes) == expected


@pytest.mark.parametrize(
    ("measure", "allowed", "lost"),
    [
        ("accuracy", "at most 2% of accuracy may be lost", "1.25% of accuracy is lost"),
        ("agreement", "at most 2% of the answers may change", "1.25% of the answers change"),
        ("output error", "an output error of at most 2% of the output's norm", "the output error is 1.25%"),
    ],
)
def test_a_drop_is_named_by_what_it_counts(measure: Measure, allowed: str, lost: str) -> None:
    assert _describe(PruneSettings(), 0.02, measure) == f"{allowed} on held-out samples (--max-drop)"
    assert lost_text(0.0125, measure) == lost
