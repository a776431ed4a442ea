"""What the texts behind options mean: shares of 1, numbers, shapes."""

import math

from nettrim.errors import UsageError


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
    likely = decimal_comma or 0 < meant < 1
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
