"""What a deployment is, in numbers: report.json, and the table and bars that people read."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nettrim.deploy import Deployment
from nettrim.goal_search import measure_of
from nettrim.prune import PrunedLayer
from nettrim.storage import format_name
from nettrim_runtime.graph import layer_macs
from nettrim_runtime.ops import Layer

REPORT_VERSION = 1
BAR_WIDTH = 30
LONGEST_NAME, LONGEST_NAME_NARROW = 45, 25
WIDE_COLUMNS = 140  # a terminal narrower than this gets the columns that fit 80


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the layer table; those that are not ``always`` need a wide terminal."""

    heading: str
    text: Callable[[dict[str, Any]], str]
    is_number: bool = True
    always: bool = True
    has_total: bool = False


def build_report(deployment: Deployment) -> dict[str, Any]:
    """Return report.json.

    ``parameters`` counts weights (biases apart), so sparsity = 1 - nnz / parameters. ``float_bytes`` is the
    original float32 network, ``dense_bytes`` the deployed one with every zero stored, ``stored_bytes`` the deployed
    one as model.npz stores it, ``flash_bytes`` the constants of model.h, each with biases; ``ram_bytes`` is
    model.h's arena, input and output, and None with ``flash_bytes`` and ``c_format`` for floats, which have no model.h.
    Accuracies are fractions of 1. ``sparse_tflite`` is None where no second .tflite gains on the board.
    """
    inputs = deployment.inputs
    layers = [_layer(deployment, layer, number) for number, layer in enumerate(deployment.networks.original.layers)]
    return {
        "schema_version": REPORT_VERSION,
        "model": {"name": deployment.name, "format": inputs.model.format, "notes": list(inputs.model.notes)},
        "board": inputs.board.name,
        "precision": inputs.precision,
        "goal": _goal(deployment),
        "data": {
            "source": inputs.fit.source,
            "fit_samples": len(inputs.fit),
            "held_out_samples": len(inputs.held_out),
            "synthetic": inputs.fit.is_synthetic,
            "notes": list(inputs.notes),
            "warnings": list(deployment.warnings),
        },
        "layers": layers,
        "totals": _totals(deployment, layers),
        "sparse_tflite": _sparse_tflite(deployment),
        "accuracy": _accuracy(deployment),
        "agreement": {
            **dataclasses.asdict(deployment.agreement),
            "kept_by_proof": deployment.bounds.kept_pruned,
            "proof_samples": len(deployment.bounds.pruned_held_out.margins),
        },
    }


def print_report(report: dict[str, Any], deployment: Deployment, console: Console) -> None:
    """Print the layer table, totals, accuracy, and bars of the board's memory."""
    for note in report["model"]["notes"]:
        console.print(note, markup=False)
    console.print(_table(report, console.width))
    console.print("err: of the layer's output in the whole network, on held-out samples, as a share of its norm")
    totals = report["totals"]
    rounded = (
        f"{report['precision']} {size_text(totals['dense_bytes'])} -> " if report["precision"] != "float32" else ""
    )
    console.print(
        f"size: float32 {size_text(totals['float_bytes'])} -> {rounded}"
        f"stored {size_text(totals['stored_bytes'])} ({totals['compression_ratio']:.1f} times smaller than float32)"
    )
    console.print(_accuracy_line(report), markup=False)
    if report["sparse_tflite"]:
        console.print(_sparse_tflite_line(report["sparse_tflite"]), markup=False)
    board = deployment.inputs.board
    used = report["build"].get("firmware", totals)  # the linked program with code and stack, where there is one
    if deployment.c_form is not None:
        console.print(_bar("RAM", used["ram_bytes"], board.ram_bytes))
        console.print(_bar("Flash", used["flash_bytes"], board.flash_bytes))


def size_text(count: int) -> str:
    """Return a number of bytes as people read it, in powers of ten."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.2f} MB"


def number_text(value: float | None) -> str:
    """Return three significant digits, or a dash for nothing."""
    return "-" if value is None else f"{value:.3g}"


def percent_text(share: float | None) -> str:
    """Return a share of 1 in per cent, or a dash for nothing."""
    return "-" if share is None else f"{share:.2%}"


def _goal(deployment: Deployment) -> dict[str, Any]:
    settings = deployment.inputs.prune
    return {
        "text": deployment.inputs.goal,
        "sparsity": settings.sparsity,
        "as_in_file": deployment.inputs.kept is not None,
        "relative_epsilon": settings.relative_epsilon if settings.sparsity is None else None,
        "max_drop": deployment.inputs.max_drop,
        "fit_flash_bytes": deployment.inputs.flash_bytes,
        "drop": deployment.drop if deployment.inputs.max_drop is not None else None,
        "measure": measure_of(deployment.networks.original, deployment.inputs.fit),
        "trials": [trial._asdict() for trial in deployment.trials],
        "mode": settings.mode.value,
        "constraint": settings.constraint,
        "structure": settings.structure,
        "plain": settings.search.plain,
        "polish": settings.polish,
    }


def _layer(deployment: Deployment, layer: Layer, number: int) -> dict[str, Any]:
    networks, outcome, c_form = deployment.networks, deployment.result.layers[number], deployment.c_form
    whole, biases = (networks.deployed.tensors[name] for name in (layer.weight, layer.bias))
    weight, bias = (deployment.shipped.tensors[name] for name in (layer.weight, layer.bias))
    pruned_error, deployed_error = deployment.errors[layer.name]
    return {
        "name": layer.name,
        "op": type(layer).__name__,
        "macs": layer_macs(networks.original, layer),
        "parameters": whole.size,
        "biases": biases.size,
        "nnz": weight.nnz,
        "sparsity": 1 - weight.nnz / whole.size,
        "inputs_removed": whole.size // whole.shape[0] - weight.size // weight.shape[0],
        "outputs_removed": whole.shape[0] - weight.shape[0],
        "activations": _activation_type(deployment, layer),
        "format": format_name(deployment.shipped, layer),
        "c_format": format_name(c_form.graph, layer) if c_form else None,
        "dense_bytes": whole.dense_bytes + biases.dense_bytes,
        "stored_bytes": weight.stored_bytes + bias.stored_bytes,
        "flash_bytes": c_form.facts.op_flash_bytes.get(layer.name, 0) if c_form else None,
        **_solution(outcome),
        "status": outcome.status,
        "error_pruned": pruned_error,
        "error_deployed": deployed_error,
    }


def _activation_type(deployment: Deployment, layer: Layer) -> str:
    """Return the integer type that a layer computes on."""
    graph = deployment.networks.deployed
    return next(graph.tensors[op.output].dtype for op in graph.layers if op.name == layer.name)


def _solution(outcome: PrunedLayer) -> dict[str, Any]:
    """Return what the solver says; nothing of distances that a polish has changed."""
    solution, names = outcome.solution, ("distance", "relative_distance", "primal_residual")
    measured = None if outcome.is_polished else solution
    return {
        "epsilon": float(np.linalg.norm(solution.epsilon)) if solution else None,  # of all neurons' balls together
        **{name: getattr(measured, name) if measured else None for name in names},
        "relative_gap": solution.relative_gap if solution else None,
        "iterations": solution.iterations if solution else 0,
    }


def _totals(deployment: Deployment, layers: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {
        name: sum(layer[name] for layer in layers)
        for name in ("macs", "parameters", "biases", "nnz", "dense_bytes", "stored_bytes")
    }
    original, c_form = deployment.networks.original, deployment.c_form
    constants = (original.tensors[name] for layer in original.layers for name in (layer.weight, layer.bias))
    float_bytes = sum(tensor.dense_bytes for tensor in constants)
    return {
        **sums,
        "sparsity": 1 - sums["nnz"] / sums["parameters"] if sums["parameters"] else 0.0,
        "float_bytes": float_bytes,
        "compression_ratio": float_bytes / sums["stored_bytes"] if sums["stored_bytes"] else 1.0,
        "flash_bytes": c_form.facts.flash_bytes if c_form else None,
        "ram_bytes": c_form.ram_bytes if c_form else None,
    }


def _sparse_tflite(deployment: Deployment) -> dict[str, Any] | None:
    found = deployment.sparse_tflite
    if found is None:
        return None
    return {
        "layers": found.layers,
        "description": found.description,
        "largest_step": found.largest_step,
        "changed_classes": found.changed_classes,
        "samples": found.samples,
    }


def _accuracy(deployment: Deployment) -> dict[str, Any]:
    """Accuracy where there are labels (else None), and agreement with the original network, which needs none."""
    accuracy, agreement, test = deployment.accuracy, deployment.agreement, deployment.inputs.test
    held_out = f"{deployment.inputs.held_out.source}, held-out samples"
    return {
        "original": accuracy.original if accuracy else None,
        "pruned": accuracy.pruned if accuracy else None,
        "deployed": accuracy.deployed if accuracy else None,
        "samples": accuracy.samples if accuracy else 0,
        "source": (test.source if test else held_out) if accuracy else None,
        "agreement": agreement.deployed,
        "agreement_lower_bound": agreement.deployed_lower,
        "agreement_samples": agreement.samples,
    }


def _table(report: dict[str, Any], width: int) -> Table:
    columns = [column for column in COLUMNS if column.always or width >= WIDE_COLUMNS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.heading.format(**report), justify="right" if column.is_number else "left", no_wrap=True)
    longest = LONGEST_NAME if width >= WIDE_COLUMNS else LONGEST_NAME_NARROW
    for layer in report["layers"]:
        shown = {**layer, "name": escape(_shortened(str(layer["name"]), longest))}
        table.add_row(*(column.text(shown) for column in columns))
    total = {
        **dict.fromkeys(report["layers"][0] if report["layers"] else (), None),
        **report["totals"],
        "name": "total",
    }
    table.add_row(*(column.text(total) if column.has_total else "" for column in columns))
    return table


def _shortened(name: str, longest: int) -> str:
    """Leave out the middle of a long name: generated names differ in their ends."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


COLUMNS = (
    Column("layer", lambda layer: str(layer["name"]), is_number=False, has_total=True),
    Column("op", lambda layer: str(layer["op"]), is_number=False, always=False),
    Column("MACs", lambda layer: _count(layer["macs"]), always=False, has_total=True),
    Column("params", lambda layer: _count(layer["parameters"]), has_total=True),
    Column("kept", lambda layer: _count(layer["nnz"]), has_total=True),
    Column("sparsity", lambda layer: f"{layer['sparsity']:.1%}", has_total=True),
    Column("type", lambda layer: str(layer["activations"]), is_number=False, always=False),
    Column("format", lambda layer: str(layer["format"]), is_number=False, always=False),
    Column("stored", lambda layer: size_text(layer["stored_bytes"]), has_total=True),
    Column("err(pruned)", lambda layer: f"{layer['error_pruned']:.4f}", always=False),
    Column("err({precision})", lambda layer: f"{layer['error_deployed']:.4f}"),
    Column("distance", lambda layer: number_text(layer["distance"]), always=False),
    Column("epsilon", lambda layer: number_text(layer["epsilon"]), always=False),
    Column("gap", lambda layer: number_text(layer["relative_gap"]), always=False),
    Column("status", lambda layer: str(layer["status"]), is_number=False, always=False),
)


def _accuracy_line(report: dict[str, Any]) -> str:
    accuracy, line = report["accuracy"], _agreement_line(report["agreement"], as_in_file=report["goal"]["as_in_file"])
    if accuracy["original"] is None:
        return line
    return (
        f"accuracy: {accuracy['original']:.2%} -> pruned {accuracy['pruned']:.2%} -> deployed ({report['precision']}) "
        f"{accuracy['deployed']:.2%} on {accuracy['samples']} samples of {accuracy['source']}\n{line}"
    )


def _sparse_tflite_line(found: dict[str, Any]) -> str:
    steps = found["largest_step"]
    line = f"model.sparse.tflite: {found['description']}"
    if steps is None:
        return f"{line}; the same network as model.tflite"
    return (
        f"{line}; at most {steps} step{_plural(steps)} from model.tflite, {found['changed_classes']} of "
        f"{found['samples']} classes changed"
    )


def _plural(count: int) -> str:
    return "" if count == 1 else "s"


def _agreement_line(agreement: dict[str, Any], *, as_in_file: bool) -> str:
    if agreement["deployed"] is None:
        return (
            f"output error on {agreement['samples']} held-out samples: {agreement['relative_output_error']:.2%} of the "
            f"output's norm (95 % of the samples: below {agreement['relative_output_error_quantile']:.2%})"
        )
    original = "the floats that the file's integers stand for" if as_in_file else "the original"
    line = (
        f"agreement with {original} on {agreement['samples']} held-out samples: {agreement['deployed']:.2%} "
        f"(at least {agreement['deployed_lower']:.2%} with 95 % confidence)"
    )
    if agreement["kept_by_proof"] is None or as_in_file:
        return line  # nothing was pruned that a proof could speak of
    proven = f"{agreement['kept_by_proof']} of {agreement['proof_samples']}"
    return f"{line}\nclass kept by proof on {proven} held-out samples (the pruned network in floats)"


def _bar(name: str, used: int, available: int | None) -> str:
    if available is None:
        return f"{name + ':':7}{size_text(used)}"
    share = used / available
    filled = min(BAR_WIDTH, round(share * BAR_WIDTH))
    bar = "=" * filled + " " * (BAR_WIDTH - filled)
    return f"{name + ':':7}\\[{bar}] {share:.1%} (used {size_text(used)} of {size_text(available)})"


def _count(value: int) -> str:
    if value < 10_000:
        return str(value)
    return f"{value / 1000:.0f}k" if value < 10_000_000 else f"{value / 1_000_000:.0f}M"
