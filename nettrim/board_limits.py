"""Whether a network fits its board's flash and RAM, and which storage formats make it fit."""

from collections.abc import Mapping

from nettrim.calibrate import quantize_on
from nettrim.errors import DoesNotFitError, UsageError
from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.quantize import quantize_graph
from nettrim.storage import fastest_formats, smallest_formats
from nettrim_boards.board import Board
from nettrim_exporters.c_header import c_model_facts
from nettrim_runtime.graph import Array, Graph

BYTES_PER_KEPT_WEIGHT = 2  # a value and an index of one byte: the least that CSR takes
BYTES_PER_BIAS = 4
PROGRAM_BYTES = 24 << 10  # of flash that --fit leaves for start-up code, kernels and C library
FORMAT_SAMPLES = 64  # that ranges are taken from where only sizes matter


def flash_to_fit(board: Board) -> int:
    """Return the flash that --fit may fill with constants.

    Raises
    ------
    UsageError
        When the board has none.
    """
    if board.flash_bytes is None:
        raise UsageError(
            f"--fit fills the flash of a microcontroller, and {board.name} has none to fill: give --max-drop, "
            "--sparsity or --relative-epsilon"
        )
    return board.flash_bytes - PROGRAM_BYTES


def deployed_flash_bytes(
    graph: Graph, samples: Array, board: Board, wide: frozenset[str], tails: Mapping[str, float]
) -> int:
    """Return what the constants of a float graph's model.h take once it is quantised."""
    shipped = remove_dead_channels(quantize_on(graph, samples[:FORMAT_SAMPLES], wide, tails))
    return c_model_facts(formats_for(shipped, board)).flash_bytes


def formats_for(graph: Graph, board: Board) -> Graph:
    """Return the quantised graph as model.h stores it: as it runs fastest, or smallest where the flash asks for it."""
    fast = fastest_formats(graph, board)
    fits = board.flash_bytes is None or c_model_facts(fast).flash_bytes <= board.flash_bytes - PROGRAM_BYTES
    return fast if fits else smallest_formats(graph)


def check_ram(graph: Graph, board: Board) -> None:
    """Refuse a float network whose activations alone exceed the board: pruning does not shrink those.

    Raises
    ------
    DoesNotFitError
        When they do.
    """
    if board.ram_bytes is None:
        return
    ranges = dict.fromkeys((*graph.inputs, *(op.output for op in graph.ops)), (-1.0, 1.0))
    arena_bytes = c_model_facts(quantize_graph(graph, ranges)).arena_bytes
    if arena_bytes > board.ram_bytes:
        raise DoesNotFitError(
            f"the activations of {graph.name} need {arena_bytes} bytes of RAM, {board.name} has {board.ram_bytes}: "
            "choose a board with more RAM, or smaller inputs"
        )


def check_flash(graph: Graph, board: Board, sparsity: float | None) -> None:
    """Refuse a network that would not fit however its weights are stored, when the sparsity is known.

    Raises
    ------
    DoesNotFitError
        When it would not.
    """
    if board.flash_bytes is None or sparsity is None:
        return
    weights = sum(graph.tensors[layer.weight].size for layer in graph.layers)
    biases = sum(graph.tensors[layer.bias].size for layer in graph.layers)
    kept = round((1 - sparsity) * weights)
    needs = min(weights, BYTES_PER_KEPT_WEIGHT * kept) + BYTES_PER_BIAS * biases
    if needs > board.flash_bytes:
        raise DoesNotFitError(
            f"{graph.name} needs at least {needs} bytes of flash at sparsity {sparsity:g}, {board.name} has "
            f"{board.flash_bytes}: ask for more --sparsity, or choose a larger board"
        )


def check_fits(name: str, board: Board, needed_flash: int, needed_ram: int) -> None:
    """Refuse a finished network that needs more bytes than the board has.

    Raises
    ------
    DoesNotFitError
        When it does.
    """
    if board.flash_bytes is not None and needed_flash > board.flash_bytes:
        raise DoesNotFitError(
            f"{name} needs {needed_flash} bytes of flash, {board.name} has {board.flash_bytes}: "
            "ask for more --sparsity or a larger --relative-epsilon, or choose a larger board"
        )
    if board.ram_bytes is not None and needed_ram > board.ram_bytes:
        raise DoesNotFitError(
            f"{name} needs {needed_ram} bytes of RAM, {board.name} has {board.ram_bytes}: choose a board with more RAM"
        )
