"""Layer normalisations that a file spells out in means, differences, squares and roots, found by their form.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + offset

or x * g + (offset - mean(x) * g), which is the same with g = scale / sqrt(...).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

N_INPUTS = {
    **dict.fromkeys(("add", "sub", "mul", "div", "squared difference"), 2),
    **dict.fromkeys(("square", "root", "inverse root", "reciprocal", "mean"), 1),
}
POWERS = {2.0: "square", 0.5: "root", -0.5: "inverse root"}  # what a constant exponent makes of a power


@dataclass(frozen=True)
class Expression:
    """How a file computes a tensor.

    Attributes
    ----------
    kind : str
        One of `N_INPUTS`; a "mean" is over axes that stay, of length one.
    axes : tuple of int
        Of a mean.
    """

    kind: str
    inputs: tuple[str, ...]
    axes: tuple[int, ...] = ()


def expression(kind: str | None, inputs: tuple[str, ...], axes: tuple[int, ...] = ()) -> Expression | None:
    """Return the expression, None where there is no such kind or another number of inputs."""
    return Expression(kind, inputs, axes) if kind and len(inputs) == N_INPUTS[kind] else None


class Expressions(Protocol):
    """A file's tensors by name."""

    def find(self, name: str) -> Expression | None:
        """Return how a tensor is computed, None of any other way."""

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is a constant."""

    def number(self, name: str) -> float | None:
        """Return the value of a constant that is one number."""


@dataclass(frozen=True)
class Normalization:
    """A layer normalisation over some axes; ``scale`` and ``offset`` name constants, None stands for 1 and 0."""

    source: str
    axes: tuple[int, ...]
    epsilon: float
    scale: str | None = None
    offset: str | None = None


def find_normalizations(names: Iterable[str], file: Expressions) -> dict[str, Normalization]:
    """Return what each of some tensors, in the order in which they are computed, normalises, if it does."""
    found: dict[str, Normalization] = {}
    for name in names:
        normalization = _find(name, file) or _with_factor(name, file, found)
        if normalization is not None:
            found[name] = normalization
    return found


def _with_factor(name: str, file: Expressions, found: Mapping[str, Normalization]) -> Normalization | None:
    """Return a normalisation that is multiplied with a scale, or to which an offset is added."""
    outer = file.find(name)
    if outer is None or outer.kind not in {"add", "mul"}:
        return None
    for before, factor in _orders(outer):
        inner = found.get(before)
        if inner is None or inner.offset is not None or not file.is_constant(factor):
            continue
        if outer.kind == "add":
            return replace(inner, offset=factor)
        if inner.scale is None:
            return replace(inner, scale=factor)
    return None


def _find(name: str, file: Expressions) -> Normalization | None:
    found = file.find(name)
    if found is None:
        return None
    if found.kind == "div":
        return _of_difference(found.inputs[0], _variance_in(found.inputs[1], "root", file), file)
    if found.kind == "mul":
        return next((each for pair in _orders(found) if (each := _scaled_difference(*pair, file))), None)
    if found.kind == "add":
        return next((each for pair in _orders(found) if (each := _sum(*pair, file))), None)
    return None


def _scaled_difference(difference: str, factor: str, file: Expressions) -> Normalization | None:
    """Return x - mean(x) times one over the root, with or without a scale."""
    return _of_difference(difference, _scaled_inverse_root(factor, file), file)


def _sum(product: str, rest: str, file: Expressions) -> Normalization | None:
    """Return x * g + (offset - mean(x) * g)."""
    first, second = file.find(product), file.find(rest)
    if first is None or second is None or (first.kind, second.kind) != ("mul", "sub"):
        return None
    offset, shift = second.inputs
    shifted = file.find(shift)
    if not file.is_constant(offset) or shifted is None or shifted.kind != "mul":
        return None
    for source, factor in _orders(first):
        inverse = _scaled_inverse_root(factor, file)
        for mean, other in _orders(shifted):
            if inverse and inverse.source == source and other == factor and _is_mean(mean, inverse, file):
                return replace(inverse, offset=offset)
    return None


def _of_difference(difference: str, variance: Normalization | None, file: Expressions) -> Normalization | None:
    """Return the normalisation of x by its variance, if the difference is x - mean(x)."""
    if variance is None or _centred(difference, file) != (variance.source, variance.axes):
        return None
    return variance


def _scaled_inverse_root(name: str, file: Expressions) -> Normalization | None:
    """Return whose variance g = scale / sqrt(variance + epsilon) is of."""
    found = file.find(name)
    if found is None or found.kind != "mul":
        return _inverse_root(name, file)
    for factor, scale in _orders(found):
        inverse = _inverse_root(factor, file) if file.is_constant(scale) else None
        if inverse is not None:
            return replace(inverse, scale=scale)
    return None


def _inverse_root(name: str, file: Expressions) -> Normalization | None:
    """Return whose variance 1 / sqrt(variance + epsilon) is of."""
    found = file.find(name)
    if found is None:
        return None
    if found.kind == "reciprocal":
        return _variance_in(found.inputs[0], "root", file)
    if found.kind == "div" and file.number(found.inputs[0]) == 1:
        return _variance_in(found.inputs[1], "root", file)
    return _variance_in(name, "inverse root", file)


def _variance_in(name: str, kind: str, file: Expressions) -> Normalization | None:
    """Return whose variance a root is of: mean((x - mean(x))^2) + epsilon."""
    root = file.find(name)
    shifted = file.find(root.inputs[0]) if root is not None and root.kind == kind else None
    if shifted is None or shifted.kind != "add":
        return None
    for variance, number in _orders(shifted):
        epsilon, mean = file.number(number), file.find(variance)
        if epsilon is not None and epsilon >= 0 and mean is not None and mean.kind == "mean":
            centred = _squared(mean.inputs[0], file)
            if centred is not None and centred[1] == mean.axes:
                return Normalization(*centred, epsilon)
    return None


def _squared(name: str, file: Expressions) -> tuple[str, tuple[int, ...]] | None:
    """Return the x and the axes of (x - mean(x))^2."""
    found = file.find(name)
    if found is None:
        return None
    if found.kind == "square" or (found.kind == "mul" and found.inputs[0] == found.inputs[1]):
        return _centred(found.inputs[0], file)
    if found.kind == "squared difference":
        pairs = (_difference(*pair, file) for pair in _orders(found))
        return next((pair for pair in pairs if pair is not None), None)
    return None


def _centred(name: str, file: Expressions) -> tuple[str, tuple[int, ...]] | None:
    """Return the x and the axes of x - mean(x)."""
    found = file.find(name)
    if found is None or found.kind != "sub":
        return None
    first, second = found.inputs
    return _difference(first, second, file)


def _difference(source: str, mean: str, file: Expressions) -> tuple[str, tuple[int, ...]] | None:
    found = file.find(mean)
    if found is None or found.kind != "mean" or found.inputs[0] != source:
        return None
    return source, found.axes


def _is_mean(name: str, of: Normalization, file: Expressions) -> bool:
    found = file.find(name)
    return found is not None and (found.kind, found.inputs[0], found.axes) == ("mean", of.source, of.axes)


def _orders(found: Expression) -> Iterator[tuple[str, str]]:
    first, second = found.inputs
    yield first, second
    yield second, first
