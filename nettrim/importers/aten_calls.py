"""The functions that a program in an export archive may call, found before any of them runs."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from nettrim.importers.aten_operators import TENSOR_OPERATORS

Call = Callable[..., Any]

NAMESPACE = "torch.ops.aten."
RESULTS = frozenset({"Tensor", "List[Tensor]", "int", "SymInt", "List[int]", "List[SymInt]"})  # not text, not any list
ARITHMETIC: Mapping[str, Call] = {  # on sizes
    "_operator.mul": operator.mul,
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.floordiv": operator.floordiv,
    "math.ceil": math.ceil,
}
GETITEM = "_operator.getitem"  # takes one of several outputs
INT_LIMIT = 1 << 63  # torch's integers have 64 bits; Python's would grow until the memory is full
LITERALS: Mapping[str, tuple[type, ...]] = {  # torch/_export/serde/schema.py, Argument
    "as_int": (int,),
    "as_float": (float, int),
    "as_bool": (bool,),
    "as_string": (str,),
}


def find_call(torch: Any, target: str) -> Call | None:
    """Return the function that a node's target names, None when it is not among those allowed.

    The part after the operator's name must be one of its overloads: as an attribute it could be any method.
    """
    if target in ARITHMETIC:
        return _on_numbers(torch, ARITHMETIC[target])
    if target == GETITEM:
        return _getitem
    name, _, overload = target.removeprefix(NAMESPACE).partition(".")
    if not target.startswith(NAMESPACE) or name not in TENSOR_OPERATORS or not hasattr(torch.ops.aten, name):
        return None
    packet = getattr(torch.ops.aten, name)
    if (overload or "default") not in packet.overloads():
        return None
    found: Call = getattr(packet, overload or "default")
    return found if _is_plain(torch, found) else None


def read_literal(kind: str, entry: Any) -> Any:
    """Return a number, a flag or a text, or a list of them where the kind ends in "s".

    Raises
    ------
    TypeError
        When the entry is of another type than its kind says, or an integer of more than 64 bits.
    """
    types = LITERALS[kind.removesuffix("s")]
    for part in entry if kind.endswith("s") and isinstance(entry, list) else [entry]:
        if type(part) not in types or (type(part) is int and abs(part) >= INT_LIMIT):
            raise TypeError(f"{kind} holds a {type(part).__name__}, expected {types[0].__name__} of 64 bits")
    return entry


def is_literal(kind: str) -> bool:
    """Whether `read_literal` reads arguments of a kind."""
    return kind.removesuffix("s") in LITERALS


def _is_plain(torch: Any, found: Any) -> bool:
    return isinstance(found, torch._ops.OpOverload) and all(  # noqa: SLF001
        str(result.type) in RESULTS
        for result in found._schema.returns  # noqa: SLF001
    )


def _on_numbers(torch: Any, function: Call) -> Call:
    types = (int, float, torch.SymInt, torch.SymFloat)

    def call(*numbers: Any) -> Any:
        for number in numbers:
            if not isinstance(number, types) or (isinstance(number, int) and abs(number) >= INT_LIMIT):
                raise TypeError(f"arithmetic on a {type(number).__name__}, expected numbers of 64 bits")
        return function(*numbers)

    return call


def _getitem(values: Any, index: Any) -> Any:
    if not isinstance(values, tuple | list) or type(index) is not int:
        raise TypeError(f"item {index!r} of a {type(values).__name__}, expected one of several outputs")
    return values[index]
