"""How far an altered network can stray from the original: errors of its operators, carried on by operator norms.

Both networks are functions of real numbers here, evaluated in float64; float32 runs differ from them by rounding.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from nettrim.elementwise import carried_by_pair, output_span, scaled
from nettrim.operator_norm import ROUND_UP, lipschitz_bound
from nettrim.real_network import FIXED_POINT_STEP, RealNetwork, Saturating, real_network
from nettrim_runtime.graph import Graph, Quantization, Tensor, is_hybrid
from nettrim_runtime.hybrid import INPUT_STEPS
from nettrim_runtime.kernels_float import PAIRWISE, float_step
from nettrim_runtime.linear import conv_step, padded_buffer
from nettrim_runtime.ops import (
    Activation,
    Add,
    AveragePool2d,
    Concat,
    Conv2d,
    Dense,
    Layer,
    LogSoftmax,
    MaxPool2d,
    Mean,
    Move,
    Mul,
    Op,
    Pairwise,
    PRelu,
    Requantize,
    Reshape,
    Softmax,
    Sub,
    UnaryFunction,
    op_inputs,
)

Array = npt.NDArray[Any]

BATCH_SIZE = 64
FLOAT64_SHARE = 1e-9  # of an activation's norm, far above what summing in float64 loses
LARGEST_BOUND = 1e100  # beyond it there is none: 1 / sqrt(x) has no largest slope


@dataclass(frozen=True, eq=False)
class Propagation:
    """What one altered network can do on some samples, bounded for each sample by itself.

    With y the original's and z the altered network's activations, an operator f of Lipschitz constant L and altered
    to g gives ||z_out - y_out|| <= L ||z_in - y_in|| + ||g(y_in) - f(y_in)||, the last term computed exactly.

    Attributes
    ----------
    bounds, norms : dict
        By layer, (n_samples,): the bound on ||z - y|| of its output, or all steps' that share its weight, and ||y||.
    logits : Array
        (n_samples, n_outputs) float64, the original's outputs before a final softmax.
    deviation : Array
        (n_samples,): the bound on how far the altered network's logits lie from those.
    margins : Array
        (n_samples,): what the altered network's logit of the original's class exceeds all others by, at least.
    operator_norms : dict
        By layer, the altered network's L.
    """

    bounds: dict[str, Array]
    norms: dict[str, Array]
    logits: Array
    deviation: Array
    margins: Array
    operator_norms: dict[str, float]

    @property
    def kept(self) -> int:
        """Number of samples whose class the altered network keeps by proof."""
        return int(np.count_nonzero(self.margins > 0))

    @property
    def relative_bound(self) -> float:
        """Bound on ||Z - Y||_F / ||Y||_F of the logits over all samples; 0 when nothing is lost."""
        return _share(self.deviation, np.linalg.norm(self.logits, axis=1))

    def relative_bounds(self) -> dict[str, float]:
        """Return by layer the bound on ||Z - Y||_F / ||Y||_F of its output over all samples."""
        return {name: _share(bound, self.norms[name]) for name, bound in self.bounds.items()}


def propagate(original: Graph, altered: Graph, sample_sets: Sequence[Array]) -> tuple[Propagation, ...]:
    """Bound an altered network's deviation on every sample, from the original's activations alone.

    Parameters
    ----------
    altered : Graph
        The same operators with other constants: pruned, in float32, or deployed, in integers and with the
        requantisations between them.
    sample_sets : sequence of Array
        (n_samples, *graph input shape) float32 each, at least one sample.

    Returns
    -------
    tuple of Propagation
        One a set of samples.
    """
    logits = logits_tensor(altered)
    ops = _ops_until(altered, logits)
    first, second = real_network(original, ops), real_network(altered, ops)
    weights = {name: weight for name, (weight, *_) in second.constants.items()}
    gains = {op.name: lipschitz_bound(op, altered.tensors, weights) for op in ops}
    recursion = _Recursion(altered, ops, _layer_outputs(original, ops), logits, first, second, gains)
    with np.errstate(over="ignore", invalid="ignore"):  # bounds of long products end at infinity
        return tuple(recursion.over(samples) for samples in sample_sets)


def logits_tensor(graph: Graph) -> str:
    """Return the tensor that decides the class: the first output, or what its softmax or log-softmax reads."""
    producers = {op.output: op for op in graph.ops}
    name = graph.outputs[0]
    while isinstance(op := producers.get(name), Reshape | Softmax | LogSoftmax):
        shape = graph.tensors[op.input].shape
        if not isinstance(op, Reshape) and shape[-1] != math.prod(shape):
            break  # one softmax a row
        name = op.input
    return name


def _ops_until(graph: Graph, tensor: str) -> tuple[Op, ...]:
    needed, ops = {tensor}, []
    for op in reversed(graph.ops):
        if op.output in needed:
            ops.append(op)
            needed.update(op_inputs(op))
    return tuple(reversed(ops))


def _layer_outputs(original: Graph, ops: Sequence[Op]) -> dict[str, list[str]]:
    """Return by layer its steps' outputs in the original; in the altered one a requantisation may write them."""
    known = {op.name for op in ops}
    steps = {layer.name: original.sharing(layer.weight) for layer in original.layers if layer.name in known}
    return {name: [op.output for op in found if op.name in known] for name, found in steps.items()}


@dataclass(frozen=True, eq=False)
class _Recursion:
    """The altered graph's operators up to the logits as both networks have them, and their Lipschitz constants.

    ``outputs`` names each layer's output, or those of all steps that share its weight.
    """

    graph: Graph
    ops: tuple[Op, ...]
    outputs: Mapping[str, Sequence[str]]
    logits: str
    original: RealNetwork
    altered: RealNetwork
    gains: Mapping[str, float]

    def over(self, samples: Array) -> Propagation:
        """Return the bounds of all samples, batch by batch."""
        starts = range(0, len(samples), BATCH_SIZE)
        batches = [self._batch(samples[start : start + BATCH_SIZE]) for start in starts]
        return Propagation(
            bounds=self._by_layer([batch.bounds for batch in batches]),
            norms=self._by_layer([batch.norms for batch in batches]),
            logits=np.concatenate([batch.logits for batch in batches]),
            deviation=np.concatenate([batch.bounds[self.logits] for batch in batches]),
            margins=np.concatenate([batch.margins for batch in batches]),
            operator_norms={name: self.gains[name] for name in self.outputs},
        )

    def _by_layer(self, batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        return {name: np.linalg.norm([joined[step] for step in steps], axis=0) for name, steps in self.outputs.items()}

    def _batch(self, samples: Array) -> "_Batch":
        entry = self.graph.inputs[0]
        values: dict[str, Array] = {entry: samples.astype(np.float64)}
        bounds: dict[str, Array] = {entry: _entry_deviation(samples, self.altered.entry)}
        for op in self.ops:
            output = _evaluate(op, self.original, values, self.graph)
            own = FLOAT64_SHARE * _norms(output) + self.altered.roundings[op.name]
            if isinstance(op, Saturating):
                own += _norms(_evaluate(op, self.altered, values, self.graph) - output) * ROUND_UP
            found = scaled(self.gains[op.name], self._carried(op, values, bounds)) + own
            found = np.where(found < LARGEST_BOUND, found, np.inf)
            values[op.output], bounds[op.output] = output, np.minimum(found, output_span(op, output[0].size))
        norms = {name: _norms(value) for name, value in values.items()}
        logits = values[self.logits].reshape(len(samples), -1)
        return _Batch(bounds, norms, logits, self._margins(values, bounds))

    def _carried(self, op: Op, values: Mapping[str, Array], bounds: Mapping[str, Array]) -> Array:
        """Return (n_samples,): the bounds on an operator's inputs together."""
        if isinstance(op, Dense):
            return self._read(op, values, bounds)
        parts = [bounds[name] for name in op_inputs(op)]
        if isinstance(op, Pairwise):
            return carried_by_pair(op, parts, [values[name] for name in op_inputs(op)], self.graph.tensors)
        together: Array = np.linalg.norm(parts, axis=0)
        return together

    def _read(self, op: Dense, values: Mapping[str, Array], bounds: Mapping[str, Array]) -> Array:
        """Return (n_samples,): how far what a layer multiplies lies from its original input."""
        bound = bounds[op.input]
        if not is_hybrid(self.graph, op):
            return bound
        largest = np.abs(values[op.input]).max(axis=1) + bound
        rounding: Array = math.sqrt(values[op.input].shape[1]) * (0.5 + FIXED_POINT_STEP) * largest / INPUT_STEPS
        return bound + rounding

    def _margins(self, values: Mapping[str, Array], bounds: Mapping[str, Array]) -> Array:
        """Bound the altered network's margins from below.

        Two logits move apart by sqrt(2) times the deviation at most. After a dense layer without clamp the two
        rows' difference is a tighter gain, and the altered layer's own margin stands for the original's.
        """
        logits = values[self.logits].reshape(len(values[self.logits]), -1)
        classes, samples = logits.argmax(axis=1), np.arange(len(logits))
        loss = math.sqrt(2) * bounds[self.logits][:, np.newaxis]
        op = next((op for op in self.ops if op.output == self.logits), None)
        if isinstance(op, Dense) and self.altered.clamps[op.name] == (-math.inf, math.inf):
            weight = self.altered.constants[op.name][0]
            logits = _evaluate(op, self.altered, values, self.graph)
            slack = FLOAT64_SHARE * _norms(logits)[:, np.newaxis]
            loss = scaled(_row_distances(weight)[classes], self._read(op, values, bounds)[:, np.newaxis]) + slack
        margins = logits[samples, classes][:, np.newaxis] - logits - loss
        margins[samples, classes] = np.inf
        smallest: Array = margins.min(axis=1)
        return smallest


@dataclass(frozen=True, eq=False)
class _Batch:
    """One batch: bounds and norms by tensor, logits and margins as `Propagation`."""

    bounds: dict[str, Array]
    norms: dict[str, Array]
    logits: Array
    margins: Array


def _evaluate(op: Op, network: RealNetwork, values: Mapping[str, Array], graph: Graph) -> Array:
    """Run one operator in float64, without rounding to a grid."""
    if isinstance(op, MaxPool2d | AveragePool2d | Move | UnaryFunction | Softmax | LogSoftmax):
        return _float_output(op, values, graph)
    match op:
        case Dense() | Conv2d():
            response = _linear(op, values[op.input], network.constants[op.name], graph.tensors[op.output])
        case Add() | Sub() | Mul():
            response = PAIRWISE[type(op)](values[op.first], values[op.second])
        case Concat():
            return np.concatenate([values[name] for name in op.inputs], axis=-1)
        case Mean():
            response = _float_output(op, values, graph)
        case Activation() | Requantize():
            response = values[op.input]
        case PRelu():
            response = np.maximum(values[op.input], 0) + np.minimum(values[op.input], 0) * network.constants[op.name][0]
        case Reshape():
            return values[op.input].reshape(-1, *graph.tensors[op.output].shape)
        case _:
            assert_never(op)
    clamped: Array = np.clip(response, *network.clamps[op.name])
    return clamped


def _float_output(
    op: MaxPool2d | AveragePool2d | Move | Mean | UnaryFunction | Softmax | LogSoftmax,
    values: Mapping[str, Array],
    graph: Graph,
) -> Array:
    source = values[op.input]
    output = np.empty((len(source), *graph.tensors[op.output].shape))
    float_step(graph, op, {op.input: source, op.output: output})()
    return output


def _linear(op: Layer, source: Array, constants: tuple[Array, ...], output: Tensor) -> Array:
    weight, bias = constants
    response: Array
    if isinstance(op, Dense):
        response = source @ weight.T + bias
        return response
    padded, inside = padded_buffer(len(source), source.shape[1:], op.padding, np.float64, 0)
    inside[:] = source
    response = np.empty((len(source), *output.shape))
    conv_step(op, padded, weight, response)()
    return response + bias


def _entry_deviation(samples: Array, entry: Quantization | None) -> Array:
    if entry is None:
        return np.zeros(len(samples))
    scale = float(entry.scale[0])
    rounded = scale * (entry.quantize(samples).astype(np.float64) - entry.zero_point)
    return _norms(rounded - samples) * ROUND_UP


def _row_distances(weight: Array) -> Array:
    """Return (n_outputs, n_outputs): Euclidean distances of the rows, rounded up."""
    gram = weight @ weight.T
    squares = np.diag(gram)[:, np.newaxis] + np.diag(gram)
    distances: Array = np.sqrt(np.maximum(squares - 2 * gram, 0.0) + (ROUND_UP - 1) * squares)
    return distances


def _norms(values: Array) -> Array:
    """Return (n_samples,): the Euclidean norm of each sample."""
    norms: Array = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    return norms


def _share(parts: Array, wholes: Array) -> float:
    part, whole = float(np.linalg.norm(parts)), float(np.linalg.norm(wholes))
    return part / whole if whole else (0.0 if part == 0 else math.inf)
