"""A program of torch operators, from an export archive, as a module that torch can export."""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nettrim.importers.aten_calls import Call, find_call, is_literal, read_literal
from nettrim.importers.export_archive import DTYPES, ExportArchive, UntrustedArchiveError, read_export_archive
from nettrim.importers.torch_file import TRUST_ADVICE, TRUST_NOTE
from nettrim.importers.torch_library import first_line, import_torch
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ArchivedModule:
    """What an archive holds, ready to be exported.

    Attributes
    ----------
    module : torch.nn.Module
        In evaluation mode.
    input_shape : tuple of int or None
        Of one sample, without the batch axis; None for a size left open.
    has_open_batch : bool
        Whether batches may have any size, else they have one sample.
    notes : tuple of str
        Whether the file was trusted.
    """

    module: Any
    input_shape: tuple[int | None, ...]
    has_open_batch: bool
    notes: tuple[str, ...] = ()


def open_export_archive(path: Path, *, trust_pickle: bool) -> ArchivedModule:
    """Return the program in an archive.

    Parameters
    ----------
    trust_pickle : bool
        Whether an archive that cannot be read without running code from it is opened by torch.

    Raises
    ------
    ModelFileError
        When the archive is damaged, of another version or not of raw numbers alone.
    UnsupportedOperatorError
        When it does not have one input and one output, or calls operators outside the list.
    """
    try:
        archive = read_export_archive(path)
    except UntrustedArchiveError as error:
        if trust_pickle:
            return _open_trusted(path)
        raise ModelFileError(f"{error}; {TRUST_ADVICE}") from error
    return ArchivedModule(build_module(path, archive), archive.input_shape, archive.has_open_batch)


def _open_trusted(path: Path) -> ArchivedModule:
    torch = import_torch(path)
    try:
        program = torch.export.load(io.BytesIO(path.read_bytes()))
        (name,) = program.graph_signature.user_inputs
        (node,) = (node for node in program.graph.nodes if node.name == name)
        batch, *sizes = (size if isinstance(size, int) else None for size in node.meta["val"].shape)
        return ArchivedModule(program.module(), tuple(sizes), batch is None, (TRUST_NOTE,))
    except Exception as error:
        raise ModelFileError(
            f"{path}: torch cannot open the export archive with --trust-pickle either ({first_line(error)})"
        ) from error


def build_module(path: Path, archive: ExportArchive) -> Any:
    """Return a torch.nn.Module that runs a program, with its weights under their own names.

    Raises
    ------
    ModelFileError
        When the program does not follow torch's schema.
    UnsupportedOperatorError
        When it calls operators outside the list: the message names all of them.
    """
    torch = import_torch(path)
    try:
        found = {target: find_call(torch, target) for target in {str(node["target"]) for node in archive.nodes}}
        needed = _needed_nodes(archive)
    except Exception as error:  # nodes of another form raise anything
        raise ModelFileError(
            f"{path}: the program of the export archive does not follow torch's schema ({first_line(error)});"
            " export it again"
        ) from error
    foreign = sorted(target for target, call in found.items() if call is None)
    if foreign:
        raise UnsupportedOperatorError(f"{path}: unsupported operators: {', '.join(foreign)}")
    steps = [(node, call) for node in needed if (call := found[str(node["target"])]) is not None]

    class Program(torch.nn.Module):  # type: ignore[name-defined, misc]  # torch is imported only when it is needed
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in archive.constants.values():
                _attach(torch, self, name.split("."), tensor)

        def forward(self, sample: Any) -> Any:
            constants = {key: self.get_buffer(name) for key, (name, _) in archive.constants.items()}
            values = {**constants, archive.input: sample}
            for node, call in steps:
                _run(torch, node, call, values)
            return values[archive.output]

    try:
        return Program().float().eval()
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the weights of the export archive have unusable names ({first_line(error)})"
        ) from error


def _needed_nodes(archive: ExportArchive) -> list[Mapping[str, Any]]:
    """Return the nodes that the output depends on: what others compute could fill the memory."""
    needed, kept = {archive.output}, []
    for node in reversed(archive.nodes):
        changes_input = str(node["target"]).rpartition(".")[0].endswith("_")
        written = {*_names(node["outputs"]), *(_texts(node["inputs"][:1]) if changes_input else ())}
        if needed & written:
            needed.update(_texts(node["inputs"]))
            kept.append(node)
    return kept[::-1]


def _texts(entry: Any) -> Iterator[str]:
    """Yield every text in arguments, the names of values among them."""
    waiting = [entry]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping | list):
            waiting += part.values() if isinstance(part, Mapping) else part


def _attach(torch: Any, module: Any, names: list[str], tensor: Any) -> None:
    """Register a tensor under "a.b.c" in modules within modules."""
    for name in names[:-1]:
        if name not in module._modules:  # noqa: SLF001  torch's own way to look without __getattr__
            module.add_module(name, torch.nn.Module())
        module = module._modules[name]  # noqa: SLF001
    module.register_buffer(names[-1], tensor)


def _run(torch: Any, node: Mapping[str, Any], call: Call, values: Values) -> None:
    arguments = [(entry["name"], entry.get("kind"), _read(torch, entry["arg"], values)) for entry in node["inputs"]]
    positional = [value for _, kind, value in arguments if kind != 2]  # schema.py, ArgumentKind.KEYWORD
    named = {name: value for name, kind, value in arguments if kind == 2}
    result = call(*positional, **named)
    outputs = node["outputs"]
    if len(outputs) == 1 and "as_tensors" not in outputs[0]:
        result = [result]
    values.update(zip(_names(outputs), result, strict=False))


def _names(outputs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for output in outputs:
        ((kind, entry),) = output.items()
        if kind == "as_tensors":
            yield from (part["name"] for part in entry)
        else:
            yield entry["as_name"] if "as_name" in entry else entry["name"]


def _read(torch: Any, argument: Mapping[str, Any], values: Values) -> Any:
    """Return an argument of a node, in the notation of torch/_export/serde/schema.py."""
    ((kind, entry),) = argument.items()
    if is_literal(kind):
        return read_literal(kind, entry)
    match kind:
        case "as_none":
            return None
        case "as_tensor":
            return values[entry["name"]]
        case "as_name":
            return values[entry]
        case "as_sym_int":
            return _read(torch, entry, values)
        case "as_tensors":
            return [values[part["name"]] for part in entry]
        case "as_sym_ints" | "as_optional_tensors":
            return [_read(torch, part, values) for part in entry]
        case "as_scalar_type":
            return getattr(torch, DTYPES[entry])
        case "as_memory_format":
            return torch.contiguous_format
        case "as_layout":
            return torch.strided
        case "as_device":
            return torch.device("cpu")
        case _:
            raise ValueError(f"argument of kind {kind}")
