"""The whole way for one model and one board: check, prune, quantise, choose formats, measure, write, verify."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.board_limits import check_fits, deployed_flash_bytes, formats_for
from nettrim.calibrate import Quantize, choose_tails, quantizer
from nettrim.deployment_inputs import DeployOptions, Inputs
from nettrim.deployment_warnings import result_warnings
from nettrim.evaluate import (
    Accuracy,
    Agreement,
    Networks,
    ProvenBounds,
    layer_errors,
    measure_accuracy,
    measure_agreement,
    port_values,
    prove_bounds,
)
from nettrim.fit_search import prune_to_fit
from nettrim.goal_search import Trial, measure_of, prune_to_drop
from nettrim.hybrid import deployed_floats, shipped_floats
from nettrim.own_integers import dequantized, unpruned
from nettrim.passes.remove_dead_channels import remove_dead_channels
from nettrim.progress import Progress
from nettrim.prune import PruneResult, prune
from nettrim.sparse_tflite import SparseTflite, describe_sparse_tflite
from nettrim.storage import smallest_formats, with_dense_weights
from nettrim.widen import widenable
from nettrim_boards.board import Board
from nettrim_exporters.c_header import CModelFacts, c_model_facts
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Array, Graph

ERROR_SAMPLES = 1000  # samples that the per-layer errors are measured on


@dataclass(frozen=True, eq=False)
class CForm:
    """What model.h is: the deployed network with its weights as C stores them."""

    graph: Graph
    facts: CModelFacts

    @property
    def ram_bytes(self) -> int:
        """Working memory: arena, input and output."""
        ports = (*self.graph.inputs, *self.graph.outputs)
        return self.facts.arena_bytes + sum(self.graph.tensors[name].size for name in ports)


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
        The deployed network without dead channels and with its weights as model.npz stores them. It has the
        bits of ``networks.deployed``, in floats up to their rounding and to that of a hybrid layer's inputs.
    c_form : CForm or None
        The same as model.h, which holds integers only.
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
    c_form: CForm | None
    sparse_tflite: SparseTflite | None
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
        accuracy, agreement = self.accuracy, self.agreement
        measure = measure_of(self.networks.original, self.inputs.fit)
        if measure == "accuracy" and accuracy is not None:
            return accuracy.original - accuracy.deployed
        if measure == "agreement" and agreement.deployed is not None:
            return 1 - agreement.deployed
        return agreement.relative_output_error


def build(options: DeployOptions, inputs: Inputs, say: Progress) -> Deployment:
    """Prune, quantise and measure; nothing is written.

    Parameters
    ----------
    say : Progress
        Takes sentences.

    Raises
    ------
    DoesNotFitError
        When the finished network needs more flash or RAM than the board has.
    """
    with threadpool_limits(limits=1):  # sums in one order on any number of cores: the same input, the same bytes
        return _build(options, inputs, say)


def _build(options: DeployOptions, inputs: Inputs, say: Progress) -> Deployment:
    trials: tuple[Trial, ...] = ()
    if inputs.kept is not None:
        original, shipped = dequantized(inputs.kept), inputs.kept
        result, networks = unpruned(original), Networks(original, original, inputs.kept)
    else:
        tails = _choose_tails(inputs, say)
        result, inputs, trials, wide = _prune(options, inputs, tails, say)
        shipped, networks = _deploy(inputs, result.graph, wide, tails, say)
    c_form = _c_form(shipped, inputs.board)
    say("measuring accuracy and errors")
    deployment = Deployment(
        name=c_name(options.model.stem),
        inputs=inputs,
        result=result,
        trials=trials,
        networks=networks,
        shipped=smallest_formats(shipped),
        c_form=c_form,
        sparse_tflite=describe_sparse_tflite(shipped, inputs.board, inputs.held_out.x[:ERROR_SAMPLES]),
        agreement=measure_agreement(networks, inputs.held_out),
        accuracy=measure_accuracy(networks, inputs.test or inputs.held_out),
        errors=layer_errors(networks, inputs.held_out.x[:ERROR_SAMPLES]),
        fit_errors=layer_errors(networks, inputs.fit.x[:ERROR_SAMPLES]),
        bounds=prove_bounds(networks, inputs.fit.x[:ERROR_SAMPLES], inputs.held_out),
    )
    if c_form is not None:
        check_fits(deployment.name, inputs.board, c_form.facts.flash_bytes, c_form.ram_bytes)
    return deployment


def _choose_tails(inputs: Inputs, say: Progress) -> Mapping[str, float]:
    if inputs.precision != "int8":
        return {}
    say("choosing the ranges of int8")
    return choose_tails(inputs.model.graph, inputs.fit.x)


def _deploy(
    inputs: Inputs, pruned: Graph, wide: frozenset[str], tails: Mapping[str, float], say: Progress
) -> tuple[Graph, Networks]:
    """Return the pruned network as the board gets it, and beside the others with all channels."""
    original, precision = inputs.model.graph, inputs.precision
    if precision != "int8":
        return shipped_floats(pruned, precision), Networks(original, pruned, deployed_floats(pruned, precision))
    say("quantising")
    quantized = quantizer(pruned, inputs.fit.x, tails, _file_ranges(inputs))(wide)
    return remove_dead_channels(quantized), Networks(original, pruned, quantized)


def _c_form(shipped: Graph, board: Board) -> CForm | None:
    if not shipped.is_quantized:
        return None
    fast = formats_for(shipped, board)
    return CForm(fast, c_model_facts(fast))


def _prune(
    options: DeployOptions, inputs: Inputs, tails: Mapping[str, float], say: Progress
) -> tuple[PruneResult, Inputs, tuple[Trial, ...], frozenset[str]]:
    """Prune to the goal; one of a drop or a flash ends as the sparsity that was found. The last are int16."""
    graph, rng = inputs.model.graph, np.random.default_rng(options.seed)
    wide = frozenset[str]().union(*widenable(graph)) if options.int16 == "all" else frozenset[str]()
    if inputs.flash_bytes is not None:
        size = partial(deployed_flash_bytes, samples=inputs.fit.x, board=inputs.board, wide=wide, tails=tails)
        samples = inputs.fit.x
        found = prune_to_fit(graph, samples, inputs.flash_bytes, inputs.prune, rng=rng, size=size, progress=say)
        return found.result, replace(inputs, prune=replace(inputs.prune, sparsity=found.sparsity)), (), wide
    if inputs.max_drop is None:
        return prune(graph, inputs.fit.x, inputs.prune, rng, say), inputs, (), wide
    found = prune_to_drop(
        graph,
        inputs.fit,
        inputs.max_drop,
        inputs.prune,
        rng=rng,
        quantizer=partial(_quantizer, inputs, tails),
        wide=wide,
        may_widen=options.int16 == "auto" and inputs.precision == "int8",
        progress=say,
    )
    inputs = replace(inputs, prune=replace(inputs.prune, sparsity=found.sparsity))
    return found.result, inputs, found.trials, found.wide


def _quantizer(inputs: Inputs, tails: Mapping[str, float], graph: Graph, samples: Array) -> Quantize:
    """Return a float network as it is deployed, as a function of the activations that are int16."""
    if inputs.precision != "int8":
        return lambda _: deployed_floats(graph, inputs.precision)
    return quantizer(graph, samples, tails, _file_ranges(inputs))


def _file_ranges(inputs: Inputs) -> dict[str, tuple[float, float]]:
    """Return the range of the input of a quantised file: its integers keep their meaning on the board."""
    found = inputs.spec.integers
    if found is None or found.dtype not in {"int8", "uint8"}:
        return {}
    limits, quantization = np.iinfo(found.dtype), found.quantization
    low, high = (float(quantization.scale.item()) * (end - quantization.zero_point) for end in (limits.min, limits.max))
    return {inputs.model.graph.inputs[0]: (low, high)}


def c_name(stem: str) -> str:
    """Return a file's stem as a C identifier in lower case."""
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "model"
    return f"model_{name}" if name[0].isdigit() else name


def golden_vectors(deployment: Deployment, n_samples: int = 32) -> tuple[Array, Array]:
    """Return (inputs, outputs) of the deployed network on held-out samples, for the board to check itself."""
    graph = with_dense_weights(deployment.shipped)  # sparse kernels, where they are faster, sum floats in another order
    inputs = port_values(graph, deployment.inputs.held_out.x[:n_samples])
    return inputs, run_graph(graph, inputs)
