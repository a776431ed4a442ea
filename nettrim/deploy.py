"""The whole way for one model and one board: check, prune, quantise, choose formats, measure, write, verify."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.board_limits import check_fits, check_flash, check_ram, deployed_flash_bytes, flash_to_fit, formats_for
from nettrim.bundle import check_output
from nettrim.calibrate import choose_tails, quantize_on
from nettrim.class_names import load_class_names
from nettrim.deployment_warnings import result_warnings
from nettrim.evaluate import (
    Accuracy,
    Agreement,
    Networks,
    ProvenBounds,
    has_classes,
    layer_errors,
    measure_accuracy,
    measure_agreement,
    prove_bounds,
)
from nettrim.fit_search import prune_to_fit
from nettrim.goal_search import Trial, prune_to_drop
from nettrim.importers import ImportedModel, load_model
from nettrim.own_integers import dequantized, integer_samples, unpruned, with_deployment_note
from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.prune import PruneResult, PruneSettings, prune
from nettrim.quantize import check_quantize
from nettrim.samples import (
    InputOptions,
    InputSpec,
    Samples,
    find_calibration,
    load_samples,
    split_held_out,
    synthetic_samples,
)
from nettrim.sparse_tflite import SparseTflite, describe_sparse_tflite
from nettrim.storage import smallest_formats
from nettrim.structure_names import NOfM, parse_structure
from nettrim.widen import widenable
from nettrim_boards.board import Board, load_board
from nettrim_exporters.c_header import CModelFacts, c_model_facts, check_c
from nettrim_exporters.tflite import check_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

Int16 = Literal["auto", "all", "none"]
DEFAULT_DISAGREEMENT, DEFAULT_OUTPUT_ERROR = 0.005, 0.02  # on held-out samples, where no goal is given
CAUTIOUS_EPSILON = 0.01  # without data: random inputs say little of the real ones
ERROR_SAMPLES = 1000  # samples that the per-layer errors are measured on


@dataclass(frozen=True)
class DeployOptions:
    """What the user asked for; None means the default that DESIGN names.

    Attributes
    ----------
    output : Path or None
        The folder to write, else ``<model stem>-<board>`` in the current folder.
    max_drop : float or None
        The goal of the run: what the deployed network may lose, as `nettrim.goal_search.measure_drop` counts.
    fit : bool
        Or: keep as many weights as the board's flash holds beside the program.
    int16 : {"auto", "all", "none"}
        Which activations are int16 instead of int8: those without which a drop is missed, all but input and output,
        or none.
    goal_is_default : bool
        Whether the user chose none of these, no sparsity and no epsilon.
    trust_pickle : bool
        Whether a model file may run code.
    """

    model: Path
    board: str
    data: Path | None = None
    test_data: Path | None = None
    output: Path | None = None
    force: bool = False
    prune: PruneSettings = field(default_factory=PruneSettings)
    max_drop: float | None = None
    fit: bool = False
    int16: Int16 = "auto"
    goal_is_default: bool = True
    input_options: InputOptions = field(default_factory=InputOptions)
    input_shape: tuple[int, ...] | None = None
    arch: str | None = None
    trust_pickle: bool = False
    labels: Path | None = None
    seed: int = 0

    @property
    def keeps_integers(self) -> bool:
        """Whether a quantised file is deployed as it is: nothing was asked for that would change it."""
        is_pruned = not self.goal_is_default or self.prune.structure != "l1" or self.prune.polish
        return not is_pruned and self.int16 == "auto"

    @property
    def folder(self) -> Path:
        """Where the deployment goes."""
        return self.output or Path(f"{self.model.stem}-{self.board}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that was read and checked before the first solve; ``kept`` are a file's integers to deploy as is."""

    board: Board
    model: ImportedModel
    spec: InputSpec
    fit: Samples
    held_out: Samples
    test: Samples | None
    prune: PruneSettings
    max_drop: float | None
    flash_bytes: int | None
    kept: Graph | None
    class_names: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the data."""
        return tuple(dict.fromkeys((*self.fit.warnings, *(self.test.warnings if self.test else ()))))


@dataclass(frozen=True, eq=False)
class Deployment:
    """The finished network and all that was measured of it.

    Attributes
    ----------
    networks : Networks
        ``deployed`` still has all channels, so that its layers can be compared with the others'.
    trials : tuple of Trial
        The sparsities tried for a drop, on calibration samples set apart.
    shipped : Graph
        The deployed network, of the same bits, without dead channels and with its weights as model.npz stores them.
    fast : Graph
        The same with its weights as model.h stores them.
    sparse_tflite : SparseTflite or None
        What model.sparse.tflite is, where it gains.
    errors : dict
        Per layer, relative error of (pruned, deployed) activations on held-out samples.
    fit_errors : dict
        The same on samples that the layers were fitted to.
    bounds : ProvenBounds
        How far the outputs can lie from the original's, on the samples of ``fit_errors`` and all held-out ones.
    """

    name: str
    inputs: Inputs
    result: PruneResult
    trials: tuple[Trial, ...]
    networks: Networks
    shipped: Graph
    fast: Graph
    sparse_tflite: SparseTflite | None
    c_facts: CModelFacts
    agreement: Agreement
    accuracy: Accuracy | None
    errors: dict[str, tuple[float, float]]
    fit_errors: dict[str, tuple[float, float]]
    bounds: ProvenBounds

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the data and of the result."""
        return (*self.inputs.warnings, *result_warnings(self))

    @property
    def drop(self) -> float:
        """What the deployed network loses on held-out samples, as the goal counts it."""
        accuracy, labels = self.accuracy, self.inputs.fit.labels
        if labels is not None and accuracy is not None:
            return accuracy.original - accuracy.deployed
        if self.agreement.deployed is not None:
            return 1 - self.agreement.deployed
        return self.agreement.relative_output_error

    @property
    def ram_bytes(self) -> int:
        """Working memory of model.h: arena, input and output."""
        graph = self.fast
        return self.c_facts.arena_bytes + sum(graph.tensors[name].size for name in (*graph.inputs, *graph.outputs))


def read_inputs(options: DeployOptions) -> Inputs:
    """Read and check everything a run needs, so that no fault shows after the first solve.

    Raises
    ------
    NettrimError, BoardError
        Whatever is wrong, as one sentence.
    """
    board = load_board(options.board)
    flash_bytes = flash_to_fit(board) if options.fit else None
    check_output(options.folder, force=options.force)
    model = load_model(
        options.model, input_shape=options.input_shape, arch=options.arch, trust_pickle=options.trust_pickle
    )
    kept = model.quantized if options.keeps_integers else None
    model = with_deployment_note(model, is_kept=kept is not None)
    graph = model.graph if kept is None else kept
    if kept is None:
        check_quantize(graph)
        check_ram(graph, board)
    check_tflite(graph)
    check_c(graph)
    check_flash(graph, board, options.prune.sparsity)
    spec = InputSpec(
        model.source_shape, model.input_layout, graph.tensors[graph.inputs[0]].shape, options.input_options
    )
    n_classes = graph.tensors[graph.outputs[0]].size
    rng = np.random.default_rng(options.seed)
    class_names = load_class_names(options.labels, n_classes) if options.labels else ()
    data = options.data or find_calibration(options.model)
    drawn = integer_samples(kept, rng) if kept else synthetic_samples(spec, rng)
    calibration = load_samples(data, spec, max(n_classes, 2)) if data else drawn
    fit, held_out = split_held_out(calibration, rng)
    test = _load_test(options, data, spec, max(n_classes, 2))
    settings, max_drop = options.prune, options.max_drop
    if kept is not None:
        settings = replace(settings, relative_epsilon=0.0)
    elif options.goal_is_default and calibration.is_synthetic:
        settings = replace(settings, relative_epsilon=CAUTIOUS_EPSILON)
    elif options.goal_is_default and not isinstance(parse_structure(settings.structure), NOfM):
        calibration = replace(calibration, labels=None)
        max_drop = DEFAULT_DISAGREEMENT if has_classes(graph, calibration) else DEFAULT_OUTPUT_ERROR
        fit = replace(fit, labels=None)
    return Inputs(board, model, spec, fit, held_out, test, settings, max_drop, flash_bytes, kept, class_names)


def _load_test(options: DeployOptions, data: Path | None, spec: InputSpec, n_classes: int) -> Samples | None:
    if options.test_data is None:
        return None
    test = load_samples(options.test_data, spec, n_classes, needs_labels=True)
    if data is None or not data.samefile(options.test_data):
        return test
    warning = f"{test.source} is both calibration and test data: its accuracy is that of samples the pruning has seen"
    return replace(test, warnings=(*test.warnings, warning))


def build(options: DeployOptions, inputs: Inputs, say: Callable[[str], None]) -> Deployment:
    """Prune, quantise and measure; nothing is written.

    Parameters
    ----------
    say : callable
        Takes a sentence of progress.

    Raises
    ------
    DoesNotFitError
        When the finished network needs more flash or RAM than the board has.
    """
    with threadpool_limits(limits=1):  # sums in one order on any number of cores: the same input, the same bytes
        return _build(options, inputs, say)


def _build(options: DeployOptions, inputs: Inputs, say: Callable[[str], None]) -> Deployment:
    trials: tuple[Trial, ...] = ()
    if inputs.kept is not None:
        original, shipped = dequantized(inputs.kept), inputs.kept
        result, networks = unpruned(original), Networks(original, original, inputs.kept)
    else:
        say("choosing the ranges of int8")
        tails = choose_tails(inputs.model.graph, inputs.fit.x)
        result, inputs, trials, wide = _prune(options, inputs, tails, say)
        say("quantising")
        quantized = quantize_on(result.graph, inputs.fit.x, wide, tails)
        shipped, networks = remove_dead_channels(quantized), Networks(inputs.model.graph, result.graph, quantized)
    fast = formats_for(shipped, inputs.board)
    say("measuring accuracy and errors")
    deployment = Deployment(
        name=c_name(options.model.stem),
        inputs=inputs,
        result=result,
        trials=trials,
        networks=networks,
        shipped=smallest_formats(shipped),
        fast=fast,
        sparse_tflite=describe_sparse_tflite(shipped, inputs.board, inputs.held_out.x[:ERROR_SAMPLES]),
        c_facts=c_model_facts(fast),
        agreement=measure_agreement(networks, inputs.held_out),
        accuracy=measure_accuracy(networks, inputs.test or inputs.held_out),
        errors=layer_errors(networks, inputs.held_out.x[:ERROR_SAMPLES]),
        fit_errors=layer_errors(networks, inputs.fit.x[:ERROR_SAMPLES]),
        bounds=prove_bounds(networks, inputs.fit.x[:ERROR_SAMPLES], inputs.held_out),
    )
    check_fits(deployment.name, inputs.board, deployment.c_facts.flash_bytes, deployment.ram_bytes)
    return deployment


def _prune(
    options: DeployOptions, inputs: Inputs, tails: Mapping[str, float], say: Callable[[str], None]
) -> tuple[PruneResult, Inputs, tuple[Trial, ...], frozenset[str]]:
    """Prune to the goal; one of a drop or a flash ends as the sparsity that was found. The last are int16."""
    graph, rng = inputs.model.graph, np.random.default_rng(options.seed)
    wide = frozenset[str]().union(*widenable(graph)) if options.int16 == "all" else frozenset[str]()
    if inputs.flash_bytes is not None:
        size = partial(deployed_flash_bytes, samples=inputs.fit.x, board=inputs.board, wide=wide, tails=tails)
        samples = inputs.fit.x
        found = prune_to_fit(graph, samples, inputs.flash_bytes, inputs.prune, rng=rng, size=size, say=say)
        return found.result, replace(inputs, prune=replace(inputs.prune, sparsity=found.sparsity)), (), wide
    if inputs.max_drop is None:
        return prune(graph, inputs.fit.x, inputs.prune, rng, say), inputs, (), wide
    found = prune_to_drop(
        graph,
        inputs.fit,
        inputs.max_drop,
        inputs.prune,
        rng=rng,
        deploy=lambda pruned, samples, needed: quantize_on(pruned, samples, wide | needed, tails),
        may_widen=options.int16 == "auto",
        say=say,
    )
    inputs = replace(inputs, prune=replace(inputs.prune, sparsity=found.sparsity))
    return found.result, inputs, found.trials, wide | found.wide


def c_name(stem: str) -> str:
    """Return a file's stem as a C identifier in lower case."""
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "model"
    return f"model_{name}" if name[0].isdigit() else name


def golden_vectors(deployment: Deployment, n_samples: int = 32) -> tuple[Array, Array]:
    """Return int8 (inputs, outputs) of the deployed network on held-out samples, for the board to check itself."""
    graph = deployment.shipped
    inputs = graph.quantization(graph.inputs[0]).quantize(deployment.inputs.held_out.x[:n_samples])
    return inputs, run_graph(graph, inputs)
