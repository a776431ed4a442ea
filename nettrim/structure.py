"""What a layer's program penalises and which bounds its weights keep: value, proximal operator, dual, CVXPY's view."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from scipy.sparse import csr_matrix

from nettrim.axis_blocks import AxisBlocks, axis_blocks
from nettrim.errors import UsageError
from nettrim.proximal import group_scale, soft_threshold
from nettrim_runtime.errors import DataError
from nettrim_runtime.graph import Array

Tensor = Any  # an array of NumPy or of another library
ALL_OUTPUTS = sys.maxsize  # `Structure.unit_outputs` where every neuron of the layer is coupled


@dataclass(frozen=True, eq=False)
class Structure(ABC):
    """A penalty with its closed forms, for NumPy arrays and for those of other array libraries.

    W is (n_inputs, n_outputs) throughout, without the bias, which is free and never penalised. Neurons that the
    penalty couples form a unit: they share one penalty parameter and one gap.

    Attributes
    ----------
    lower, upper : float or Array
        Bounds of the weights, with 0 between them; they may be infinite. lower = 0 keeps weights from being
        negative. Arrays are (n_inputs, n_outputs) float32.
    """

    lower: float | Array = -np.inf
    upper: float | Array = np.inf

    def __post_init__(self) -> None:
        """Refuse bounds that forbid pruning."""
        _own_array(self, "lower")
        _own_array(self, "upper")
        if not (np.all(np.asarray(self.lower) <= 0) and np.all(np.asarray(self.upper) >= 0)):
            raise UsageError("structure: 0 lies outside the bounds, expected lower <= 0 <= upper: pruned weights are 0")

    @property
    def unit_outputs(self) -> int:
        """Consecutive neurons that the penalty couples: 1 for all that works neuron by neuron."""
        return 1

    @property
    def is_bounded(self) -> bool:
        """Whether the original weights may lie outside the bounds, so that a refit must keep to them."""
        return not (np.all(np.isinf(self.lower)) and np.all(np.isinf(self.upper)))

    @property
    def is_cone(self) -> bool:
        """Whether weights within the bounds stay there when multiplied by any number that is not negative."""
        return all(bool(np.all((np.asarray(bound) == 0) | np.isinf(bound))) for bound in (self.lower, self.upper))

    @abstractmethod
    def value(self, W: Tensor) -> Tensor:
        """Return (n_outputs,) float64: each neuron's penalty; coupled ones share theirs evenly."""

    @abstractmethod
    def shrink(self, W: Tensor, threshold: Tensor) -> Tensor:
        """Return the proximal operator of threshold * penalty within the bounds, new array.

        Parameters
        ----------
        W : Tensor
            (n_inputs, n_outputs).
        threshold : Tensor
            (n_outputs,), not negative, the same for coupled neurons.
        """

    @abstractmethod
    def gauge(self, correlation: Tensor) -> Tensor:
        """Return (n_outputs,): `conjugate` of t * correlation is finite for 0 <= t <= 1 / gauge; 0 means all t.

        Without bounds this is the dual norm of the correlation X nu', (n_inputs, n_outputs). Coupled neurons
        have the same.
        """

    def conjugate(self, correlation: Tensor) -> Tensor:
        """Return (n_outputs,): sup over weights within the bounds of <correlation, W> - penalty, where finite.

        Zero for norms and cones; what is infinite is left to `gauge`. A neuron's dual value at t * nu is
        t * (lin - epsilon * ||nu||) - conjugate(t * correlation).
        """
        xp = array_namespace(correlation)
        return xp.zeros(correlation.shape[1], dtype=correlation.dtype, device=device(correlation))

    def project(self, W: Tensor) -> Tensor:
        """Return the weights moved into their bounds; W itself where there are none."""
        xp = array_namespace(W)
        for bound, move in ((self.lower, xp.maximum), (self.upper, xp.minimum)):
            if not (np.ndim(bound) == 0 and np.isinf(bound)):
                W = move(W, _like(bound, W))
        return W

    def widened(self, W: Array) -> "Structure":
        """Return the structure with bounds as wide as W, (n_inputs, n_outputs), needs."""
        if self.contains(W):
            return self
        lower, upper = np.minimum(W, self.lower), np.maximum(W, self.upper)
        return replace(self, lower=lower.astype(np.float32), upper=upper.astype(np.float32))

    def contains(self, W: Tensor) -> bool:
        """Whether all weights lie within their bounds."""
        return bool(array_namespace(W).all(self.project(W) == W))

    def block_norms(self, W: Tensor) -> Tensor:
        """Return (n_input_blocks, n_output_blocks): the 2-norm of each group, or of each weight."""
        return array_namespace(W).abs(W)

    def spread(self, blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return an array of ``shape`` (n_inputs, n_outputs): for every weight the entry of its block."""
        return array_namespace(blocks).broadcast_to(blocks, shape)

    @abstractmethod
    def restrict(self, inputs: Array | None, outputs: Array | slice | None) -> "Structure":
        """Return the structure of some of the weights, the others being zero, at the same penalty.

        Parameters
        ----------
        inputs : Array or None
            (n_inputs,) bool; None means all.
        outputs : Array, slice or None
            (n_outputs,) bool, or their numbers in rising order, in whole units; None means all.
        """

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise DataError when the structure does not fit weights of ``shape``, (n_inputs, n_outputs)."""
        for name in ("lower", "upper"):
            _check_shape(name, getattr(self, name), shape)

    @abstractmethod
    def cvxpy_penalty(self, U: Any) -> Any:
        """Return the penalty of a CVXPY variable (n_inputs, n_outputs) as an expression."""

    def cvxpy_constraints(self, U: Any) -> list[Any]:
        """Return the bounds on a CVXPY variable (n_inputs, n_outputs) as constraints."""
        constraints = []
        for bound, side in ((self.lower, 1.0), (self.upper, -1.0)):
            present = np.broadcast_to(np.isfinite(bound), U.shape)
            if np.any(present):
                edge = np.where(present, bound, 0.0)
                constraints.append(side * (U - edge)[present] >= 0)
        return constraints


@dataclass(frozen=True, eq=False)
class L1Norm(Structure):
    """The sum of costs * |W|: plain, weighted, with signs or with bounds.

    Attributes
    ----------
    costs : float or Array
        Positive: one number, or (n_inputs, n_outputs) float32.
    """

    costs: float | Array = 1.0

    def __post_init__(self) -> None:
        """Refuse what is not a norm within bounds around 0."""
        super().__post_init__()
        _own_array(self, "costs")
        if not np.all((np.asarray(self.costs) > 0) & np.isfinite(self.costs)):
            raise UsageError("structure: costs are not all positive and finite, expected positive numbers")

    def value(self, W: Tensor) -> Tensor:
        xp = array_namespace(W)
        sizes = xp.abs(xp.astype(W, xp.float64)) * _like(self.costs, W, xp.float64)
        return xp.sum(sizes, axis=0)

    def shrink(self, W: Tensor, threshold: Tensor) -> Tensor:
        limit = _like(threshold, W)
        if np.ndim(self.costs) or self.costs != 1.0:
            limit = limit * _like(self.costs, W)
        return self.project(soft_threshold(W, limit))

    def gauge(self, correlation: Tensor) -> Tensor:
        # An entry v is limited by v <= cost only where the weight may grow without end, by v >= -cost likewise.
        xp = array_namespace(correlation)
        size = correlation / _like(self.costs, correlation)
        for bound, limit in ((self.lower, xp.maximum), (self.upper, xp.minimum)):
            if np.any(np.isfinite(bound)):
                ends = _like(np.isfinite(bound), correlation, xp.bool)
                size = xp.where(ends, limit(size, xp.zeros_like(size)), size)
        return _largest(xp.abs(size))

    def conjugate(self, correlation: Tensor) -> Tensor:
        if self.is_cone:
            return super().conjugate(correlation)
        xp = array_namespace(correlation)
        costs = _like(self.costs, correlation)
        worth = xp.zeros_like(correlation)
        for bound, margin in ((self.upper, correlation - costs), (self.lower, correlation + costs)):
            end = _like(np.where(np.isfinite(bound), bound, 0.0), correlation)
            worth = xp.maximum(worth, end * margin)
        return xp.sum(worth, axis=0)

    def restrict(self, inputs: Array | None, outputs: Array | slice | None) -> "L1Norm":
        def part(values: float | Array) -> float | Array:
            if not isinstance(values, np.ndarray) or values.ndim == 0:
                return values
            rows = values if inputs is None else values[inputs]
            return rows if outputs is None else rows[:, outputs]

        if not any(np.ndim(values) for values in (self.lower, self.upper, self.costs)):
            return self
        return replace(self, lower=part(self.lower), upper=part(self.upper), costs=part(self.costs))

    def check(self, shape: tuple[int, ...]) -> None:
        super().check(shape)
        _check_shape("costs", self.costs, shape)

    def cvxpy_penalty(self, U: Any) -> Any:
        cp = _cvxpy()
        return cp.sum(cp.multiply(np.broadcast_to(self.costs, U.shape), cp.abs(U)))


@dataclass(frozen=True, eq=False)
class Groups(Structure):
    """The sum over groups of sqrt(group size) * ||W_group||_2: whole groups become zero (Yuan and Lin, 2006).

    Signs are allowed, by a bound of 0; other bounds have no closed form.

    Attributes
    ----------
    block_shape : (int or None, int or None)
        Consecutive outputs and consecutive inputs of a group; the last group of an axis may be shorter. None means
        all: (1, 4) four inputs of one output, (None, 1) an input column, (1, None) a neuron. Inputs of a
        convolution are ordered (height, width, channel), so that blocks lie along the channels.
    input_blocks : AxisBlocks or None
        Given by `restrict`: where inputs are left out.
    """

    block_shape: tuple[int | None, int | None] = (1, 4)
    input_blocks: AxisBlocks | None = None

    def __post_init__(self) -> None:
        """Refuse block shapes below 1 and bounds without a closed form."""
        super().__post_init__()
        if any(size is not None and size < 1 for size in self.block_shape):
            raise UsageError(f"structure: block shape is {self.block_shape}, expected positive numbers or None")
        if (np.ndim(self.lower), np.ndim(self.upper)) != (0, 0) or not self.is_cone:
            raise UsageError(
                f"structure: groups with bounds [{self.lower}, {self.upper}] have no closed form, expected none, "
                "lower=0 or upper=0; for others solve with CVXPY (nettrim.reference)"
            )

    @property
    def unit_outputs(self) -> int:
        outputs = self.block_shape[0]
        return ALL_OUTPUTS if outputs is None else outputs

    def value(self, W: Tensor) -> Tensor:
        xp = array_namespace(W)
        W = xp.astype(W, xp.float64)
        inputs, outputs = self._blocks(W.shape)
        penalty = xp.sum(self.block_norms(W) * _costs(inputs, outputs, W), axis=0)
        members = xp.asarray(np.bincount(outputs.numbers(W.shape[1])), dtype=xp.float64, device=device(W))
        share = penalty if outputs.block_of is None else penalty / members
        return self._by_neuron(share, W.shape)

    def shrink(self, W: Tensor, threshold: Tensor) -> Tensor:
        W = self.project(W)
        inputs, outputs = self._blocks(W.shape)
        limit = self._by_unit(_like(threshold, W), W.shape) * _costs(inputs, outputs, W)
        kept = group_scale(self.block_norms(W), limit)
        return W * outputs.spread(inputs.spread(kept).T).T

    def gauge(self, correlation: Tensor) -> Tensor:
        inputs, outputs = self._blocks(correlation.shape)
        sizes = self.block_norms(self.project(correlation)) / _costs(inputs, outputs, correlation)
        return self._by_neuron(_largest(sizes), correlation.shape)

    def block_norms(self, W: Tensor) -> Tensor:
        xp = array_namespace(W)
        inputs, outputs = self._blocks(W.shape)
        return xp.sqrt(outputs.fold(inputs.fold(W * W).T).T)

    def spread(self, blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
        inputs, outputs = self._blocks(shape)
        return super().spread(outputs.spread(inputs.spread(blocks).T).T, shape)

    def widened(self, W: Array) -> "Groups":
        # Bounds other than 0 have no closed form here: a side that W leaves is open.
        return replace(
            self,
            lower=self.lower if np.all(self.lower <= W) else -np.inf,
            upper=self.upper if np.all(self.upper >= W) else np.inf,
        )

    def restrict(self, inputs: Array | None, outputs: Array | slice | None) -> "Groups":
        if isinstance(outputs, np.ndarray) and self.unit_outputs > 1:
            kept = np.flatnonzero(outputs) if outputs.dtype == bool else outputs
            if np.any(kept % self.unit_outputs != np.arange(len(kept)) % self.unit_outputs):
                raise DataError(f"structure: units of {self.unit_outputs} neurons are taken apart, expected whole ones")
        if inputs is None:
            return self
        blocks = self.input_blocks or axis_blocks(len(inputs), self.block_shape[1])
        return replace(self, input_blocks=blocks.restrict(inputs))

    def cvxpy_penalty(self, U: Any) -> Any:
        cp = _cvxpy()
        inputs, outputs = self._blocks(U.shape)
        n_blocks = int(outputs.numbers(U.shape[1]).max()) + 1
        group = inputs.numbers(U.shape[0])[:, np.newaxis] * n_blocks + outputs.numbers(U.shape[1])
        counts = np.bincount(group.reshape(-1))
        order = np.argsort(group, axis=None, kind="stable")
        rank = np.arange(U.size) - (np.cumsum(counts) - counts)[group.reshape(-1)[order]]
        place = group.reshape(-1)[order] * counts.max() + rank
        pick = csr_matrix((np.ones(U.size), (place, order)), (counts.size * counts.max(), U.size))
        members = cp.reshape(pick @ cp.vec(U, order="C"), (counts.size, int(counts.max())), order="C")
        costs = np.sqrt(np.multiply.outer(inputs.sizes, outputs.sizes))
        whole = np.broadcast_to(costs, (counts.size // n_blocks, n_blocks)).reshape(-1)
        return cp.sum(cp.multiply(whole, cp.norm(members, 2, axis=1)))

    def _blocks(self, shape: tuple[int, ...]) -> tuple[AxisBlocks, AxisBlocks]:
        inputs = self.input_blocks or axis_blocks(shape[0], self.block_shape[1])
        return inputs, axis_blocks(shape[1], self.block_shape[0])

    def _by_neuron(self, units: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return (n_outputs,) from (n_units,)."""
        _, outputs = self._blocks(shape)
        return array_namespace(units).broadcast_to(outputs.spread(units[:, None])[:, 0], (shape[1],))

    def _by_unit(self, neurons: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return (n_units,) from (n_outputs,): that of each unit's first neuron."""
        _, outputs = self._blocks(shape)
        return neurons if outputs.block_of is None else neurons[:: min(self.unit_outputs, max(shape[1], 1))]


def _costs(inputs: AxisBlocks, outputs: AxisBlocks, like: Tensor) -> Tensor:
    """Return the square roots of the groups' sizes, to be broadcast to (n_input_blocks, n_output_blocks)."""
    return _like(np.sqrt(np.multiply.outer(inputs.sizes, outputs.sizes)), like)


def _like(values: Any, array: Tensor, dtype: Any = None) -> Tensor:
    """Return values as an array of the same library and device, and type unless told."""
    return array_namespace(array).asarray(values, dtype=dtype or array.dtype, device=device(array))


def _largest(x: Tensor) -> Tensor:
    """Return the maximum over the first axis, at least 0: also of no rows."""
    xp = array_namespace(x)
    if x.shape[0] == 0:
        return xp.zeros(x.shape[1], dtype=x.dtype, device=device(x))
    return xp.max(x, axis=0)


def _own_array(structure: Structure, name: str) -> None:
    """Make an attribute that is an array one that every array library takes: no negative strides, writable."""
    values = getattr(structure, name)
    if np.ndim(values):
        object.__setattr__(structure, name, np.require(values, np.float32, ["C", "W"]))


def _check_shape(name: str, values: float | Array, shape: tuple[int, ...]) -> None:
    if np.ndim(values) and np.shape(values) != shape:
        raise DataError(f"structure: {name} has shape {np.shape(values)}, expected () or {shape} as the weights")


def _cvxpy() -> Any:
    import cvxpy  # noqa: PLC0415  # an extra

    return cvxpy


L1 = L1Norm()
