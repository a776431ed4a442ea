"""Functions that a file spells out in several operators, recognised by the values that they give."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.ops import Function, UnaryFunction
from nettrim_runtime.unary import evaluate

Array = npt.NDArray[Any]

RECOGNISED = (Function.GELU, Function.GELU_TANH, Function.HARD_SWISH, Function.SIGMOID, Function.TANH)
GRID = np.concatenate([np.linspace(-7, 7, 281), [-20, 20]]).astype(np.float32)
TOLERANCE = 2e-5  # float32 at 20, in several steps; the two forms of Gelu differ by 4e-4
MOST_SOURCES = 8  # tensors that one may be a function of: as many nodes as Gelu takes


def curves_on_grid(
    inputs: Sequence[str],
    numbers: Mapping[str, Array],
    curves: Mapping[str, Mapping[str, Array]],
    compute: Callable[[Sequence[Array | None]], Array | None],
) -> dict[str, Array]:
    """Return an operator's values on `GRID` as a function of each tensor that alone, with numbers, decides them.

    Parameters
    ----------
    inputs : sequence of str
        Names, "" of one left out.
    numbers : Mapping
        Constants of one value.
    curves : Mapping
        What this returned for the operators before, by the tensors that they write.
    compute : callable
        The operator's output for its inputs, None where it has none.
    """
    variables = [name for name in inputs if name and name not in numbers]
    candidates = [{**curves.get(name, {}), name: GRID} for name in variables]
    if not candidates:
        return {}
    shared = [source for source in candidates[0] if all(source in each for each in candidates)]
    results = {}
    for source in shared[-MOST_SOURCES:]:
        given = {name: each[source] for name, each in zip(variables, candidates, strict=True)}
        values = compute([given.get(name, numbers.get(name)) if name else None for name in inputs])
        if values is None:
            return {}
        results[source] = values
    return results


def known_functions(curves: Mapping[str, Array]) -> Iterator[tuple[str, Function]]:
    """Yield the tensors that an operator is a known function of, and which."""
    for source, values in curves.items():
        for function in RECOGNISED:
            if values.shape == GRID.shape and np.allclose(values, _expected(function), rtol=0, atol=TOLERANCE):
                yield source, function


@functools.cache
def _expected(function: Function) -> Array:
    return evaluate(UnaryFunction("", "", "", function), GRID)
