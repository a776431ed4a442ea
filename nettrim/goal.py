"""What a run is to reach, in words: for the command line and the report."""

from typing import Literal

from nettrim.prune import PruneSettings
from nettrim.structure_names import NOfM, parse_structure

Measure = Literal["accuracy", "agreement", "output error"]  # what a drop is counted in
CHOICES = "--max-drop, --sparsity, --relative-epsilon or --fit"


def describe_goal(
    settings: PruneSettings,
    max_drop: float | None,
    measure: Measure,
    *,
    flash_bytes: int | None,
    is_default: bool,
    is_synthetic: bool,
) -> str:
    """Return a run's goal and where it comes from.

    Parameters
    ----------
    measure : {"accuracy", "agreement", "output error"}
        What ``max_drop`` is counted in.
    flash_bytes : int or None
        What the board's flash has for weights, where these fill it.
    is_default : bool
        Whether the user chose none.
    is_synthetic : bool
        Whether there are no data.
    """
    if isinstance(parse_structure(settings.structure), NOfM):
        return f"{settings.structure} weights in every layer (--structure)"
    default = f"the default{' without data' if is_synthetic else ''}; {CHOICES} choose another"
    if flash_bytes is not None:
        return f"as many weights as {flash_bytes} bytes of flash hold (--fit)"
    if max_drop is not None:
        return f"{allowed_text(max_drop, measure)} on held-out samples ({default if is_default else '--max-drop'})"
    if settings.sparsity is not None:
        return f"{short_percent(settings.sparsity)} of all weights removed (--sparsity)"
    origin = default if is_default else "--relative-epsilon"
    whole = "what it varies by" if settings.cautious else "its norm"
    return f"each layer's response moves by at most {short_percent(settings.relative_epsilon)} of {whole} ({origin})"


def allowed_text(drop: float, measure: Measure) -> str:
    """Return what may be lost."""
    share = short_percent(drop)
    match measure:
        case "accuracy":
            return f"at most {share} of accuracy may be lost"
        case "agreement":
            return f"at most {share} of the answers may change"
        case "output error":
            return f"an output error of at most {share} of the output's norm"


def lost_text(drop: float, measure: Measure) -> str:
    """Return what a network was found to lose."""
    match measure:
        case "accuracy":
            return f"{drop:.2%} of accuracy is lost"
        case "agreement":
            return f"{drop:.2%} of the answers change"
        case "output error":
            return f"the output error is {drop:.2%}"


def short_percent(share: float) -> str:
    """Return a share of 1 in per cent, without zeros at its end."""
    return f"{100 * share:.4g}%"
