"""What a user should know of a finished network: missed goals, few samples, missing certificates."""

import math
from typing import TYPE_CHECKING

import numpy as np

from nettrim.evaluate import Agreement, Networks
from nettrim.hybrid import Precision
from nettrim.importers.imported_model import InputIntegers
from nettrim.layer_solution import LayerSolution
from nettrim.prune import PruneSettings
from nettrim.structure_names import NOfM, parse_structure
from nettrim.widen import widenable
from nettrim_exporters.tflite_micro import cmsis_nn_gaps, micro_gaps
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Dense

if TYPE_CHECKING:
    from nettrim.deploy import Deployment

SPARSITY_EXCESS = 0.01  # above what was asked for, that a user should know of
LARGE_GAP = 0.1  # of the l1 objective, above which a bound says little
LOW_AGREEMENT = 0.99  # below it the result carries a warning
FLOAT_SHARE = 1e-5  # of a response, that the original weights themselves miss it by in floats
FEW_ANSWERS = 2.5  # that differ say little of what they come from
BLAMELESS = 0.5  # of the deployed network's disagreement: a pruned one that has less is not what it comes from
LARGE_LOSS, MISMATCH = 0.02, 3.0  # of accuracy on test samples; over the disagreement on held-out ones
LESS = "ask for less --sparsity or a smaller --relative-epsilon or --max-drop, or give more calibration samples"
COARSE = "the pruned network before quantisation does not: int8 is too coarse for its"
SCALE_ALIKE = "scale inputs of different sizes alike (--mean, --std)"
LARGE_OUTPUT_ERROR = 0.1  # as above, where the outputs are no classes


def result_warnings(deployment: "Deployment") -> tuple[str, ...]:
    """Return one sentence each."""
    micro = _micro_warnings(deployment)
    if deployment.inputs.kept is not None:
        return micro  # nothing was fitted, and what int8 costs is the file's own
    return (
        *micro,
        *_overfit_warnings(deployment),
        *_input_warnings(deployment.inputs.spec.integers, deployment.shipped),
        *(_drop_warnings(deployment) or _agreement_warnings(deployment.agreement, deployment.networks)),
        *_mismatch_warnings(deployment),
        *precision_warnings(deployment.networks.pruned, deployment.inputs.precision),
        *empty_layer_warnings(deployment.networks.pruned),
        *_sparsity_warnings(deployment),
        *_bound_warnings(deployment),
        *_polish_warnings(deployment),
    )


def _micro_warnings(deployment: "Deployment") -> tuple[str, ...]:
    return micro_warnings(deployment.shipped) if deployment.inputs.board.os == "none" else ()


def micro_warnings(graph: Graph) -> tuple[str, ...]:
    """Return what keeps a network's model.tflite out of TensorFlow Lite Micro, or out of its kernels for a Cortex-M."""
    gaps, of_cortex_m = ", ".join(micro_gaps(graph)), ", ".join(cmsis_nn_gaps(graph))
    if gaps:
        return (f"model.tflite does not run in TensorFlow Lite Micro, which lacks {gaps}; model.h needs none of it",)
    if of_cortex_m:
        return (f"model.tflite needs TensorFlow Lite Micro's portable kernels: CMSIS-NN lacks {of_cortex_m}",)
    return ()


def _input_warnings(integers: InputIntegers | None, shipped: Graph) -> tuple[str, ...]:
    """Tell of a quantised file whose input means other integers once it is quantised again."""
    if integers is None or not shipped.is_quantized:
        return ()
    old, new = integers.quantization, shipped.quantization(shipped.inputs[0])
    before, after = ((float(each.scale.item()), each.zero_point) for each in (old, new))
    warning = (
        f"the input's integers have scale {after[0]:.9g} and zero point {after[1]}, the file's had {before[0]:.9g} and "
        f"{before[1]}: quantise your inputs anew, as the folder's README.md says"
    )
    return (warning,) if before != after else ()


def _overfit_warnings(deployment: "Deployment") -> tuple[str, ...]:
    graph, samples = deployment.inputs.model.graph, len(deployment.inputs.fit)
    wide = [
        layer.name
        for layer in graph.layers
        if isinstance(layer, Dense)
        and graph.tensors[layer.weight].shape[1] > samples * len(graph.sharing(layer.weight))
    ]
    warning = (
        f"{samples} samples to fit are fewer than the inputs of {', '.join(wide)}: what is pruned there may fit these "
        "samples only; give more calibration samples"
    )
    return (warning,) if wide else ()


def _agreement_warnings(agreement: Agreement, networks: Networks) -> tuple[str, ...]:
    advice = _against_int8(networks) if _int8_is_to_blame(agreement) else LESS
    if agreement.deployed is None:
        error = agreement.relative_output_error
        warning = f"the deployed network's outputs lie {error:.1%} of their norm from the original's; {advice}"
        return (warning,) if error > LARGE_OUTPUT_ERROR else ()
    warning = (
        f"the deployed network answers otherwise than the original on {1 - agreement.deployed:.1%} of the held-out "
        f"samples; {advice}"
    )
    return (warning,) if agreement.deployed < LOW_AGREEMENT else ()


def _against_int8(networks: Networks) -> str:
    """Say what helps where int8 is too coarse: int16, unless all that can be int16 is already, or floats."""
    if not networks.deployed.is_quantized:
        return f"{COARSE} dense layers; {SCALE_ALIKE}, or give --precision float32"
    types = {op.name: networks.deployed.tensors[op.output].dtype for op in networks.deployed.ops}
    could_be_wide = frozenset[str]().union(*widenable(networks.pruned))
    if any(types.get(op.name) == "int8" for op in networks.pruned.ops if op.output in could_be_wide):
        return f"{COARSE} input or activations; {SCALE_ALIKE}, or try --int16 all"
    return f"{COARSE} input or output, which --int16 leaves as they are; {SCALE_ALIKE}"


def _int8_is_to_blame(agreement: Agreement) -> bool:
    """Whether the pruned network answers as the original does, and only its quantised version does not."""
    if agreement.deployed is None or agreement.pruned is None:
        return False
    by_int8 = (agreement.pruned - agreement.deployed) * agreement.samples
    return 1 - agreement.pruned < BLAMELESS * (1 - agreement.deployed) and by_int8 > FEW_ANSWERS


def missed_drop(deployment: "Deployment") -> str | None:
    """Return a sentence when the deployed network loses more than the goal allows on samples held out."""
    allowed, found = deployment.inputs.max_drop, deployment.drop
    if allowed is None or found <= allowed:
        return None
    best = deployment.inputs.prune.sparsity or 0.0
    advice = "allow a larger --max-drop, or give more calibration samples"
    if _int8_is_to_blame(deployment.agreement):
        advice = _against_int8(deployment.networks)
    return (
        f"the deployed network loses {found:.2%} on held-out samples, {allowed:.2%} were allowed: sparsity {best:.1%} "
        f"is the best of those tried; {advice}"
    )


def _drop_warnings(deployment: "Deployment") -> tuple[str, ...]:
    sentence = missed_drop(deployment)
    return (sentence,) if sentence else ()


def _mismatch_warnings(deployment: "Deployment") -> tuple[str, ...]:
    """Tell of test samples that the pruned network fails on although it agrees on the calibration's."""
    accuracy, agreement = deployment.accuracy, deployment.agreement.pruned
    if deployment.inputs.test is None or accuracy is None or agreement is None:
        return ()
    lost, disagreeing = accuracy.original - accuracy.pruned, 1 - agreement
    if lost < LARGE_LOSS or lost < MISMATCH * disagreeing:
        return ()
    test = deployment.inputs.test
    seen, tested = (f"{x.min():.4g} to {x.max():.4g}" for x in (deployment.inputs.fit.x, test.x))
    warning = (
        f"{lost:.1%} of the accuracy on {test.source} is lost, though {agreement:.1%} of the held-out calibration ones "
        f"keep their class: are they samples of one kind? Calibration values run from {seen}, test values from {tested}"
    )
    return (warning,)


def precision_warnings(graph: Graph, precision: Precision) -> tuple[str, ...]:
    """Return a sentence where a precision has no layer to tell it from another."""
    is_idle = precision == "hybrid" and not any(isinstance(layer, Dense) for layer in graph.layers)
    sentence = "no layer is dense: --precision hybrid has no weights to make int8, and the network is float32 all over"
    return (sentence,) if is_idle else ()


def empty_layer_warnings(graph: Graph) -> tuple[str, ...]:
    """Return a sentence on the layers of a pruned network that have no weight left."""
    empty = [layer.name for layer in graph.layers if graph.tensors[layer.weight].nnz == 0]
    sentence = f"no weight is left in {', '.join(empty)}: what lies behind no longer depends on the input; {LESS}"
    return (sentence,) if empty else ()


def _sparsity_warnings(deployment: "Deployment") -> tuple[str, ...]:
    asked = deployment.inputs.prune.sparsity
    shipped, whole = deployment.shipped, deployment.networks.pruned
    kept = sum(shipped.tensors[layer.weight].nnz for layer in shipped.layers)
    reached = 1 - kept / sum(whole.tensors[layer.weight].size for layer in whole.layers)
    if asked is None or abs(reached - asked) < SPARSITY_EXCESS:
        return ()
    reason = _excess(deployment.inputs.prune) if reached > asked else _shortfall(deployment)
    return (f"{reached:.1%} of the weights are gone, {asked:.1%} were asked: {reason}",)


def _excess(settings: PruneSettings) -> str:
    never = "the others never matter on these samples"
    return never if settings.structure == "l1" else f"structure {settings.structure} removes no finer share, or {never}"


def _shortfall(deployment: "Deployment") -> str:
    """Say which layers keep the network from the sparsity that was asked for."""
    graph, outcomes = deployment.networks.pruned, deployment.result.layers
    sizes = {layer.name: graph.tensors[layer.weight].size for layer in graph.layers}
    kept = [outcome for outcome in outcomes if outcome.solution is None]
    if not kept:
        return f"structure {deployment.inputs.prune.structure} removes no finer or larger share"
    share = sum(sizes[outcome.name] for outcome in kept) / sum(sizes.values())
    names = ", ".join(f"{outcome.name} ({outcome.status})" for outcome in kept)
    return f"layers that are not pruned hold {share:.1%} of all: {names}"


def _bound_warnings(deployment: "Deployment") -> tuple[str, ...]:
    """Name the layers that miss their epsilon, and those whose screen has no useful bound on its optimum."""
    missed, widened, unbounded = [], [], []
    settings = deployment.inputs.prune
    has_epsilon = settings.sparsity is None and not isinstance(parse_structure(settings.structure), NOfM)
    for outcome in deployment.result.layers:
        name, solution = outcome.name, outcome.solution
        if solution is None:
            continue
        asked = deployment.inputs.prune.relative_epsilon * _target_norm(solution)
        allowed = float(np.linalg.norm(solution.epsilon))
        if has_epsilon and allowed > asked * (1 + 1e-6) + FLOAT_SHARE * _target_norm(solution):
            widened.append(name)
        if deployment.inputs.prune.sparsity is None and solution.distance > allowed and not outcome.is_polished:
            missed.append(name)
        if solution.relative_gap is None or solution.relative_gap > LARGE_GAP:
            unbounded.append(name)
    warnings = []
    if missed:
        warnings.append(f"layers {', '.join(missed)} miss their epsilon; their distances are in the report")
    if widened:
        warnings.append(
            f"layers {', '.join(widened)} were allowed more than --relative-epsilon: their inputs are already pruned, "
            "and the original weights need as much; the epsilons granted are in the report"
        )
    if unbounded:
        warnings.append(
            f"no certificate of optimality for layers {', '.join(unbounded)}: the duality gap of their screen is above "
            f"{LARGE_GAP:.0%} or unknown, so fewer weights might do; their distances are exact all the same"
        )
    return tuple(warnings)


def _polish_warnings(deployment: "Deployment") -> tuple[str, ...]:
    if not deployment.inputs.prune.polish:
        return ()
    warning = (
        "weights were tuned after pruning (--polish): epsilons and gaps are those of the layers' programs before it; "
        "errors, bounds and agreement are measured and proven for the tuned weights"
    )
    return (warning,)


def _target_norm(solution: LayerSolution) -> float:
    return solution.distance / solution.relative_distance if solution.relative_distance else math.inf
