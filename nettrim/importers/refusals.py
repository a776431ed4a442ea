"""What cannot be carried over, told in one sentence that names all of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NAMES_SHOWN = 4  # of the operators refused for one reason


@dataclass(frozen=True)
class Refusal:
    """An operator that cannot be carried over."""

    op_type: str
    name: str
    reason: str


def refusal_message(source: str, refusals: Sequence[Refusal], supported: Iterable[str]) -> str:
    """Return the sentence: the same operator refused for the same reason stands in it once, with its names."""
    groups: dict[tuple[str, str], list[str]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.op_type, refusal.reason), []).append(refusal.name)
    listed = "; ".join(_describe_group(op_type, reason, names) for (op_type, reason), names in groups.items())
    return f"{source}: unsupported operators: {listed}. Supported: {', '.join(sorted(supported))}"


def _describe_group(op_type: str, reason: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{op_type} ({shown}{more})" + (f": {reason}" if reason else "")
