"""Which activations are int16 instead of int8, and the requantisations between the two."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from nettrim.passes.rewiring import replace_input
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import (
    Activation,
    ActivationFunction,
    Carrier,
    Dense,
    Op,
    PRelu,
    Requantize,
    Slice,
    UnaryFunction,
    is_int8_only,
    op_inputs,
)


def quantization_families(graph: Graph) -> dict[str, str]:
    """Return for each activation one that stands for all that share its quantisation."""
    family = {name: name for name in (*graph.inputs, *(op.output for op in graph.ops))}
    for together in (*_carried(graph), *_shared(graph), *_tabulated(graph)):
        first, joined = family[together[0]], {family[name] for name in together}
        if len(joined) > 1:
            family = {name: first if own in joined else own for name, own in family.items()}
    return family


def _carried(graph: Graph) -> Iterator[tuple[str, ...]]:
    """Yield what each carrier touches."""
    return ((*op_inputs(op), op.output) for op in graph.ops if isinstance(op, Carrier))


def _shared(graph: Graph) -> Iterator[tuple[str, ...]]:
    """Yield the inputs, and the outputs, of the layers that share a weight: its integers must mean one thing."""
    for layer in graph.layers:
        steps = graph.sharing(layer.weight)
        yield tuple(op.input for op in steps)
        yield tuple(op.output for op in steps)


def _tabulated(graph: Graph) -> Iterable[list[str]]:
    """Return the inputs of one function in all steps of a recurrent layer: quantised alike, they share its table.

    Which layer: the last whose shared weight a value comes from. Which function: by what computes its input.
    """
    origins = _recurrent_origins(graph)
    producers = {op.output: op for op in graph.ops}
    together: dict[tuple[object, ...], list[str]] = {}
    for op in graph.ops:
        if isinstance(op, UnaryFunction) and op.output in origins:
            source = producers[op.input]
            place = (source.begin, source.end) if isinstance(source, Slice) else type(source)
            together.setdefault((origins[op.output], op.function, op.alpha, place), []).append(op.input)
    return together.values()


def _recurrent_origins(graph: Graph) -> dict[str, int]:
    """Return for values that come from steps of recurrent layers the place of the last of these layers."""
    order = {layer.weight: place for place, layer in enumerate(graph.layers) if len(graph.sharing(layer.weight)) > 1}
    origins: dict[str, int] = {}
    for op in graph.ops:
        own = [order[op.weight]] if isinstance(op, Dense) and op.weight in order else []
        found = [*own, *(origins[name] for name in op_inputs(op) if name in origins)]
        if found:
            origins[op.output] = max(found)
    return origins


def quantization_classes(graph: Graph) -> tuple[frozenset[str], ...]:
    """Return `quantization_families` as sets, in the order of their first tensors."""
    family = quantization_families(graph)
    return tuple(
        frozenset(name for name, own in family.items() if own == first) for first in dict.fromkeys(family.values())
    )


def widenable(graph: Graph) -> tuple[frozenset[str], ...]:
    """Return the quantisation classes that may be int16.

    Not those of a graph's inputs and outputs, and of outputs of operators that stay in int8: of those that nettrim has
    on int8 only, of a `PRelu`, which tflite-runtime 2.14 refuses on int16, and of a clamp to -1..1 that stands alone,
    for which TFLite has no kernel.
    """
    fixed = {*graph.inputs, *graph.outputs, *(op.output for op in graph.ops if not _may_be_wide(op))}
    return tuple(found for found in quantization_classes(graph) if not found & fixed)


def widenable_together(graph: Graph) -> tuple[frozenset[str], ...]:
    """Return the classes of `widenable`; those that operators of one kind write in all steps of a layer are one."""
    origins = _recurrent_origins(graph)
    producers = {op.output: op for op in graph.ops}
    together: dict[object, frozenset[str]] = {}
    for found in widenable(graph):
        op = next(producers[name] for name in producers if name in found)
        function = op.function if isinstance(op, UnaryFunction) else None
        key = (origins[op.output], type(op), function) if op.output in origins else found
        together[key] = together.get(key, frozenset()) | found
    return tuple(together.values())


def with_requantizations(graph: Graph, wide: Iterable[str]) -> tuple[Graph, dict[str, str], frozenset[str]]:
    """Return a float graph in which every operator reads and writes tensors of one integer type.

    An operator runs in int16 when any of its activations is wide, one that stays in int8 never (see `widenable`). What
    it reads or writes in the other type goes through a `Requantize`.

    Parameters
    ----------
    wide : iterable of str
        Whole `quantization_classes`.

    Returns
    -------
    graph, bases, wide
        The new graph; for each new tensor the one whose values it holds; all tensors that are int16.
    """
    types = dict.fromkeys(_closed(graph, frozenset(wide)), True)
    rewriting = _Rewriting(graph, types)
    for op in graph.ops:
        rewriting.add(op)
    tensors = {**graph.tensors, **{name: _copy(graph, name, base) for name, base in rewriting.bases.items()}}
    rewritten = replace(graph, ops=tuple(rewriting.ops), tensors=tensors)
    return rewritten, rewriting.bases, frozenset(name for name, is_wide in types.items() if is_wide)


def _closed(graph: Graph, wide: frozenset[str]) -> frozenset[str]:
    """Return ``wide`` and the classes that only operators on int16 would read and write."""
    for found in widenable(graph):
        touching = [op for op in graph.ops if found & {*op_inputs(op), op.output}]
        if not found & wide and all(wide & {*op_inputs(op), op.output} for op in touching):
            return _closed(graph, wide | found)
    return wide


def _may_be_wide(op: Op) -> bool:
    is_symmetric_clamp = isinstance(op, Activation) and op.activation is ActivationFunction.RELU_N1_TO_1
    return not (is_symmetric_clamp or isinstance(op, PRelu) or is_int8_only(op))


class _Rewriting:
    """The operators so far, and the tensors that hold another tensor's values in the other type."""

    def __init__(self, graph: Graph, types: dict[str, bool]) -> None:
        self.graph, self.types = graph, types
        self.ops: list[Op] = []
        self.bases: dict[str, str] = {}

    def add(self, op: Op) -> None:
        names = (*op_inputs(op), op.output)
        is_wide = any(self.types.get(name, False) for name in names) and _may_be_wide(op)
        for name in op_inputs(op):
            op = replace_input(op, name, self._as(name, is_wide=is_wide))
        if self.types.get(op.output, False) == is_wide:
            self.ops.append(op)
            return
        other = self._name(op.output, is_wide=is_wide)
        self.ops += [replace(op, output=other), Requantize(f"{op.name}/requantize", other, op.output)]

    def _as(self, name: str, *, is_wide: bool) -> str:
        """Return a tensor in the wanted type, requantised before the operator if it is not there yet."""
        if self.types.get(name, False) == is_wide:
            return name
        known = _suffixed(name, is_wide=is_wide) in self.bases
        other = self._name(name, is_wide=is_wide)
        if not known:
            self.ops.append(Requantize(f"{other}/requantize", name, other))
        return other

    def _name(self, name: str, *, is_wide: bool) -> str:
        other = _suffixed(name, is_wide=is_wide)
        self.bases[other], self.types[other] = name, is_wide
        return other


def _suffixed(name: str, *, is_wide: bool) -> str:
    return f"{name}/{'int16' if is_wide else 'int8'}"


def _copy(graph: Graph, name: str, base: str) -> Tensor:
    return replace(graph.tensors[base], name=name)
