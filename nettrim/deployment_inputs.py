"""What a run is asked for and what it reads: options, model, board and samples, checked before the first solve."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from nettrim.board_limits import check_flash, check_ram, flash_to_fit
from nettrim.bundle import check_output
from nettrim.class_names import load_class_names
from nettrim.errors import UsageError
from nettrim.evaluate import (
    has_classes,
)
from nettrim.goal import describe_goal
from nettrim.goal_search import measure_of
from nettrim.hybrid import Precision
from nettrim.importers import ImportedModel, load_model
from nettrim.own_integers import KEPT_GOAL, integer_samples, with_deployment_note
from nettrim.prune import PruneSettings
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
from nettrim.structure import Groups
from nettrim.structure_names import NOfM, parse_structure
from nettrim_boards.board import Board, load_board
from nettrim_exporters.c_header import check_c
from nettrim_exporters.tflite_checks import check_tflite
from nettrim_runtime.graph import Graph, Tensor

Int16 = Literal["auto", "all", "none"]
DEFAULT_DISAGREEMENT, DEFAULT_OUTPUT_ERROR = 0.005, 0.02  # on held-out samples, where no goal is given
CAUTIOUS_EPSILON = 0.02  # without data, of a response's variation: random inputs say little of the real ones
CAUTIOUS_ITERATIONS = 300  # of a screen there: more would make a certificate for random inputs


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
    precision : {"int8", "hybrid", "float32"}
        What the deployed network computes in; hybrid are int8 weights of dense layers beside floats.
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
    precision: Precision = "int8"
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
        return not is_pruned and self.int16 == "auto" and self.precision == "int8"

    @property
    def folder(self) -> Path:
        """Where the deployment goes."""
        return self.output or Path(f"{self.model.stem}-{self.board}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that was read and checked before the first solve.

    ``kept`` are a file's integers to deploy as is; ``goal`` says what the run is to reach, and who chose it.
    """

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
    precision: Precision = "int8"
    class_names: tuple[str, ...] = ()
    goal: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """How the data were read, where that might surprise."""
        read = (self.fit.note, self.test.note if self.test else "")
        return tuple(note for note in dict.fromkeys(read) if note)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the data."""
        return tuple(dict.fromkeys((*self.fit.warnings, *(self.test.warnings if self.test else ()))))


def read_inputs(options: DeployOptions) -> Inputs:
    """Read and check everything a run needs, so that no fault shows after the first solve.

    Raises
    ------
    NettrimError, BoardError
        Whatever is wrong, as one sentence.
    """
    board = load_board(options.board)
    check_precision(options, board)
    flash_bytes = flash_to_fit(board) if options.fit else None
    check_output(options.folder, force=options.force)
    model = load_model(
        options.model, input_shape=options.input_shape, arch=options.arch, trust_pickle=options.trust_pickle
    )
    kept = model.quantized if options.keeps_integers else None
    model = with_deployment_note(model, is_kept=kept is not None)
    graph = model.graph if kept is None else kept
    if kept is None and options.precision == "int8":
        check_quantize(graph)
        check_ram(graph, board)
    check_tflite(graph)
    if options.precision == "int8":
        check_c(graph)
    check_flash(graph, board, options.prune.sparsity)
    check_blocks(graph, options.prune.structure)
    spec = InputSpec(
        model.source_shape,
        model.input_layout,
        graph.tensors[graph.inputs[0]].shape,
        options.input_options,
        model.input_integers,
    )
    n_classes = graph.tensors[graph.outputs[0]].size
    rng = np.random.default_rng(options.seed)
    class_names = load_class_names(options.labels, n_classes) if options.labels else ()
    data = options.data or find_calibration(options.model)
    drawn = integer_samples(kept, rng) if kept else synthetic_samples(spec, rng)
    calibration = load_samples(data, spec, max(n_classes, 2)) if data else drawn
    fit, held_out = split_held_out(calibration, rng)
    test = _load_test(options, data, spec, max(n_classes, 2))
    if kept is not None and calibration.is_synthetic and test is not None:
        fit = held_out = test  # nothing is fitted, and real samples say more than drawn ones
    settings, max_drop = options.prune, options.max_drop
    if kept is not None:
        settings = replace(settings, relative_epsilon=0.0)
    elif options.goal_is_default and calibration.is_synthetic:
        settings = _cautious(settings)
    elif options.goal_is_default and not isinstance(parse_structure(settings.structure), NOfM):
        fit = replace(fit, labels=None)
        max_drop = DEFAULT_DISAGREEMENT if has_classes(graph, fit) else DEFAULT_OUTPUT_ERROR
    goal = KEPT_GOAL
    if kept is None:
        goal = describe_goal(
            settings,
            max_drop,
            measure_of(graph, fit),
            flash_bytes=flash_bytes,
            is_default=options.goal_is_default,
            is_synthetic=calibration.is_synthetic,
        )
    return Inputs(
        board=board,
        model=model,
        spec=spec,
        fit=fit,
        held_out=held_out,
        test=test,
        prune=settings,
        max_drop=max_drop,
        flash_bytes=flash_bytes,
        kept=kept,
        precision=options.precision,
        class_names=class_names,
        goal=goal,
    )


def _cautious(settings: PruneSettings) -> PruneSettings:
    """Return the default without data."""
    search = replace(settings.search, admm=replace(settings.search.choice, max_iterations=CAUTIOUS_ITERATIONS))
    return replace(settings, relative_epsilon=CAUTIOUS_EPSILON, cautious=True, search=search)


def check_blocks(graph: Graph, name: str) -> None:
    """Refuse blocks that hold every layer whole: pruning one would leave nothing of it.

    Raises
    ------
    UsageError
        When they do.
    """
    structure = parse_structure(name)
    if not isinstance(structure, Groups) or None in structure.block_shape or not graph.layers:
        return
    shapes = [(weight.shape[0], weight.size // weight.shape[0]) for weight in _weights(graph)]
    height, width = (size or 1 for size in structure.block_shape)
    if all(outputs <= height and inputs <= width for outputs, inputs in shapes):
        outputs, inputs = max(shapes, key=math.prod)
        raise UsageError(
            f"--structure {name}: one block holds each layer whole, the largest has {outputs} outputs of {inputs} "
            "inputs: ask for smaller blocks, as 1x4"
        )


def _weights(graph: Graph) -> list[Tensor]:
    return [graph.tensors[layer.weight] for layer in graph.layers]


def check_precision(options: DeployOptions, board: Board) -> None:
    """Refuse floats where a microcontroller or an option asks for integers.

    Raises
    ------
    UsageError
        When it does.
    """
    if options.precision == "int8":
        return
    if board.os == "none":
        raise UsageError(
            f"--precision {options.precision} needs an operating system, and {board.name} is a microcontroller: "
            "leave it out, its networks are int8 and, with --int16, int16"
        )
    if options.int16 != "auto":
        raise UsageError(f"--int16 speaks of integers and --precision {options.precision} computes in floats: give one")


def _load_test(options: DeployOptions, data: Path | None, spec: InputSpec, n_classes: int) -> Samples | None:
    if options.test_data is None:
        return None
    test = load_samples(options.test_data, spec, n_classes, needs_labels=True)
    if data is None or not data.samefile(options.test_data):
        return test
    warning = f"{test.source} is both calibration and test data: its accuracy is that of samples the pruning has seen"
    return replace(test, warnings=(*test.warnings, warning))
