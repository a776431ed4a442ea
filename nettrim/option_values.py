"""What options mean: the goal of a run, shares of 1, numbers, shapes."""

import math
from dataclasses import replace
from typing import NamedTuple

from nettrim.errors import UsageError
from nettrim.prune import PruneSettings
from nettrim.structure_names import NOfM, parse_structure


class Goal(NamedTuple):
    """What a run is to reach, as far as options say it; ``is_default`` where none does."""

    prune: PruneSettings
    max_drop: float | None
    is_default: bool


def read_goal(
    sparsity: str | None, relative_epsilon: str | None, max_drop: str | None, structure: str, *, fit: bool
) -> Goal:
    """Return the goal that was chosen, of which there may be one.

    Raises
    ------
    UsageError
        When there are several, or a value is no share.
    """
    chosen = {"--sparsity": sparsity, "--relative-epsilon": relative_epsilon, "--max-drop": max_drop}
    shares = {option: parse_share(text, option) for option, text in chosen.items()}
    given = [*(option for option, share in shares.items() if share is not None), *(["--fit"] if fit else [])]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different goals: give one of them")
    if isinstance(parse_structure(structure), NOfM) and given not in ([], ["--relative-epsilon"]):
        raise UsageError(f"--structure {structure} fixes the sparsity: leave {given[0]} out")
    settings = PruneSettings(sparsity=shares["--sparsity"], structure=structure)
    epsilon = shares["--relative-epsilon"]
    settings = settings if epsilon is None else replace(settings, relative_epsilon=epsilon)
    return Goal(settings, shares["--max-drop"], not given)


def check_plain(*, plain: bool, polish: bool, relative_epsilon: str | None) -> None:
    """Refuse the published program without its epsilon, or with what comes after it.

    Raises
    ------
    UsageError
        When it is asked for so.
    """
    if plain and relative_epsilon is None:
        raise UsageError("--plain is a convex program at an epsilon: give --relative-epsilon, and no other goal")
    if plain and polish:
        raise UsageError("--plain is Net-Trim as published and --polish tunes weights after it: give one of the two")


def parse_share(text: str | None, option: str) -> float | None:
    """Return a share from 0 up to, not including, 1.

    Raises
    ------
    UsageError
        For anything else; of per cent, with the share that they are.
    """
    if text is None:
        return None
    share = _number(text)
    if 0 <= share < 1:
        return share
    per_cent = _number(text.strip().removesuffix("%").replace(",", "."))
    decimal_comma = "%" not in text and 0 <= per_cent < 1
    meant = per_cent if decimal_comma else per_cent / 100
    is_all = share == 1 and "." in text  # 1.0 is no per cent
    likely = decimal_comma or (0 < meant < 1 and not is_all)
    hint = f"; {'write' if decimal_comma else f'{per_cent:g} per cent are'} {meant:.4g}" if likely else ""
    raise UsageError(f"{option} is {text}, expected a share from 0 to below 1{hint}")


def parse_numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Return numbers with commas between them; nothing for None."""
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} is {text!r}, expected numbers with commas between them: 0.485,0.456,0.406"
        ) from error


def parse_shape(text: str | None, option: str) -> tuple[int, ...] | None:
    """Return sizes with commas between them."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"{option} is {text!r}, expected sizes with commas between them: 1,28,28")
    return tuple(int(part) for part in parts)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
