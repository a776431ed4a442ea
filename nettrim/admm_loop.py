"""The solver's loop: iterate, certify, drop the neurons that are done, balance the penalties of the others."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nettrim.admm_certificate import Candidate, Scaled, dual_sums, join_scaled, scaled, sparse_candidate
from nettrim.admm_restart import Restarts, scale_penalty
from nettrim.admm_rows import (
    Rows,
    advance,
    excess_squares,
    find_multiplier,
    own_multiplier,
    projection_excess,
    weighted_sums,
)
from nettrim.blas_threads import one_blas_thread
from nettrim.duality import DualSums, best_bounds
from nettrim.errors import UsageError
from nettrim_runtime.graph import Array

SLICE_NEURONS = 150  # in one go, at most: enough for matrix products at full speed, few enough for several threads
COMPACT_SHARE = 0.05  # of the neurons that are certified before the others move together
FIRST_CERTIFICATE, FIRST_HARD_CERTIFICATE = 30, 50  # iterations: hardly any neuron is done earlier
HARD_BALANCE = 0.5  # times the dual residual that the hard form balances for: a larger rho brings both bounds in sooner
NEWTON_STEPS = 5  # at most, to the scale at which the sparse copy meets epsilon; one stuck row is asked again later
PATIENT_STEPS = 12  # where entries must stay above a bound, which needs a larger scale
MARGIN = 0.3  # of the gap: the share of epsilon that iterates stay inside which scaling cannot repair
SMALLEST_MARGIN = 4e-5  # of epsilon, above what float32 leaves
CERTIFIED_SHARE = 0.99  # of the gap asked for: float64 may find a gap a little larger than float32 does
REPAIR_MARGIN = 2e-5  # of epsilon, and
ROUNDING = 1e-6  # of the response's norm: what float32 sums may leave
LARGEST_SCALE = 2.0  # of the sparse copy, and its inverse the smallest
GENEROUS = 2.0  # times the scale that one-sided entries miss at least
SMALLEST_FOR_THREADS = 50_000  # entries of the response: below, threads cost more than they give

Each = Callable[..., Iterable[Any]]  # map over slices of neurons, in this thread or in several


@dataclass(frozen=True)
class AdmmSettings:
    """How hard to try.

    Attributes
    ----------
    relative_gap : float
        Certified relative gap at which a neuron, or with a joint ball the layer, is done.
    alpha : float
        Over-relaxation, 1.0-1.9.
    rho : float
        First penalty of a neuron, in units of 1 / rms(its weights); balanced from there.
    max_iterations : int
        Iterations before giving up with MAX_ITERATIONS.
    check_every : int
        Iterations between two looks at the residuals, and two certificates.
    first_certificate : int or None
        Iterations before the first certificate, which costs as much as two. None takes the constraint's own.
    balance_factor, balance_threshold : float
        rho is multiplied or divided by the factor when the residuals differ by more than the threshold.
    balance_iterations : int
        After so many, averages and a growing rho take over (`nettrim.admm_restart`): balancing for ever can cycle.
    scale : float or None
        Weight of the two splits: the inputs are divided by scale * ||A||_F / sqrt(n_inputs). None takes the
        constraint's own.
    threads : int or None
        Neurons are worked on in so many threads, each with one BLAS thread; None means one a core.
    backend : str
        One of `nettrim.backend.BACKENDS`.
    """

    relative_gap: float = 1e-3
    alpha: float = 1.85
    rho: float = 0.7
    max_iterations: int = 5000
    check_every: int = 10
    first_certificate: int | None = None
    balance_factor: float = 2.0
    balance_threshold: float = 3.0
    balance_iterations: int = 1000
    scale: float | None = None
    threads: int | None = None
    backend: str = "numpy"

    def __post_init__(self) -> None:
        """Refuse what no loop can run with."""
        if self.check_every < 1 or not 0 < self.alpha < 2:
            raise UsageError(
                f"solver settings: check_every is {self.check_every} and alpha {self.alpha}, expected at least 1 and "
                "a number between 0 and 2"
            )


@dataclass(eq=False)
class AdmmState:
    """All iterates of a layer; run them on at another epsilon for a warm start.

    Attributes
    ----------
    rows : Rows
        Every neuron that takes part.
    W : Array
        (n_live_outputs, n_live_inputs + 1) float32: the last feasible weights, bias in the last column.
    dual : Array
        (n_live_outputs, n_samples) float32: the last dual point, minus the multiplier of the response.
    gap : Array
        (n_live_outputs,) float64: the certified relative gap of a neuron's unit; infinite without feasible weights.
    iterations : int
        So far, of all calls together; ``neuron_iterations`` are those of each neuron.
    is_finite : bool
        Whether no number has overflowed.
    """

    rows: Rows
    W: Array
    dual: Array
    gap: Array
    iterations: int
    neuron_iterations: Array
    is_finite: bool = True


def run_loop(state: AdmmState, radius: Array, settings: AdmmSettings) -> None:
    """Iterate in place until every unit has the certified gap, or the iterations are used up.

    Parameters
    ----------
    radius : Array
        () for a joint ball or (n_rows,) for one a neuron: epsilon in the units of the scaled response.
    """
    if not len(state.rows.index):
        return
    state.gap[:] = np.inf
    with _workers(state.rows, settings) as each:
        loop = _Loop(state, radius, settings, each)
        rows, done, restarts = state.rows, 0, Restarts()
        while done < settings.max_iterations:
            count = min(settings.check_every, settings.max_iterations - done)
            residuals = loop.iterate(rows, count)
            done += count
            state.iterations += count
            state.neuron_iterations[rows.index] += count
            if not np.all(np.isfinite(residuals)):
                state.is_finite = False
                break
            if done <= settings.balance_iterations:
                _balance(rows, residuals, settings)
            else:
                restarts.look(rows)
            if done < min(loop.first_certificate, settings.max_iterations):
                continue
            still = loop.certify(rows, is_last=done == settings.max_iterations)
            if not np.any(still):
                break
            if np.mean(~still) > COMPACT_SHARE:
                rows = _compact(state, rows, still)
        if rows is not state.rows:
            state.rows.put(rows)


class _Loop:
    """What one run needs beside the rows, which shrink."""

    def __init__(self, state: AdmmState, radius: Array, settings: AdmmSettings, each: Each) -> None:
        self.state, self.radius, self.settings, self.each = state, radius, settings, each
        self.is_joint = radius.ndim == 0
        rows = state.rows
        # Weights with bounds may not grow; entries that must stay above a bound lose by growing with the others.
        above = rows.ball is not None and bool(rows.backend.xp.any((rows.ball == 0) & (rows.lower > -np.inf)))
        self.grows = rows.structure.is_cone and not above

    @property
    def first_certificate(self) -> int:
        """Iterations before the first certificate."""
        if self.settings.first_certificate is not None:
            return self.settings.first_certificate
        return FIRST_CERTIFICATE if self.state.rows.ball is None else FIRST_HARD_CERTIFICATE

    @property
    def aim(self) -> Array:
        """The radius to iterate with: where scaling up need not lead to epsilon, iterates must meet it themselves."""
        margin = 0.0 if self.grows else max(MARGIN * self.settings.relative_gap, SMALLEST_MARGIN)
        return self.radius * (1.0 - margin)

    def iterate(self, rows: Rows, count: int) -> Array:
        """Iterate ``count`` times and return the relative primal and dual residual, (2, n_rows)."""
        parts, alpha = self._parts(rows), self.settings.alpha
        if self.is_joint:
            for _ in range(count):
                mu = self._joint_multiplier(parts)
                norms = list(self.each(partial(advance, multiplier=lambda *_, mu=mu: mu, alpha=alpha, count=1), parts))
        else:
            own = partial(own_multiplier, radius=self.aim)
            norms = list(self.each(partial(advance, multiplier=own, alpha=alpha, count=count), parts))
        squares = np.concatenate(norms, axis=1)
        primal, change, copies, duals = np.sqrt(_unit_sums(rows, squares, self.is_joint))
        tiny = np.finfo(np.float64).tiny
        return np.stack([primal / np.maximum(copies, tiny), change / np.maximum(duals, tiny)])

    def certify(self, rows: Rows, *, is_last: bool) -> Array:
        """Write weights and gap of every row to the state; return which rows are not yet done.

        Duals are large: those of rows that are not done are written only when no certificate follows.
        """
        parts = self._parts(rows)
        W, penalty, feasible = self._repair(rows, parts)
        sums, points = self._dual(parts)
        radius = self.radius if self.is_joint else self.radius[rows.index]
        bound = best_bounds(sums, radius)
        upper, lower = _unit_sums(rows, np.stack([penalty, bound]), self.is_joint)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.where(upper > 0, 1.0 - lower / upper, 0.0)
        whole = _unit_sums(rows, (~feasible)[np.newaxis].astype(float), self.is_joint)[0] == 0
        gap = np.where(whole, gap, np.inf)
        better = rows.index[whole]
        self.state.W[better] = W[whole]
        self.state.gap[rows.index] = gap
        done = gap <= CERTIFIED_SHARE * self.settings.relative_gap
        kept = done | is_last
        dual = np.concatenate(points)
        self.state.dual[rows.index[kept]] = dual[kept]
        return ~done

    def _repair(self, rows: Rows, parts: list[Rows]) -> tuple[Array, Array, Array]:
        """Scale each neuron's sparse copy until it meets epsilon; return weights, penalties and where it worked."""
        candidates = list(self.each(sparse_candidate, parts))
        norms = np.concatenate([part.sums(c.R, c.R) for part, c in zip(parts, candidates, strict=True)])
        radius = self.radius if self.is_joint else self.radius[rows.index]
        room = np.sqrt(norms.sum() if self.is_joint else norms) * ROUNDING
        goal = np.maximum(radius * (1 - REPAIR_MARGIN) - room, 0.0)
        scale, least = np.ones(len(rows.index)), np.full(len(rows.index), 1.0 / LARGEST_SCALE)
        now = self._scaled(parts, candidates, scale)
        steps = NEWTON_STEPS if self.grows else PATIENT_STEPS
        if not rows.structure.is_cone:
            steps = 0  # bounded weights may not grow
        for _ in range(steps):
            size, slope = np.sqrt(self._whole(now.squares)), self._whole(now.slopes)
            near = np.abs(size - goal) <= (radius - goal) / 4
            if np.all(near | (not self.grows)) and not np.any(now.missing):
                break
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.where((slope < 0) & self.grows, 2 * size * (goal - size) / slope, 0.0)
            least = np.where(now.missing > 0, scale + GENEROUS * now.missing, least)
            scale = np.clip(scale + np.where(np.isfinite(step), step, 0.0), least, LARGEST_SCALE)
            now = self._scaled(parts, candidates, scale)
        feasible = (np.sqrt(self._whole(now.squares)) <= (goal + radius) / 2) & (self._whole(now.missing) == 0)
        read = rows.backend.read
        W = read(rows.S) * scale[:, np.newaxis].astype(np.float32)
        W[:, -1] = now.offset / float(read(rows.bias_input))
        return W, rows.structure.value(W[:, :-1].T), np.broadcast_to(feasible, scale.shape)

    def _whole(self, values: Array) -> Array:
        """Return the sum over a joint ball; with one ball a neuron the values themselves."""
        return np.sum(values) if self.is_joint else values

    def _scaled(self, parts: list[Rows], candidates: list[Candidate], scale: Array) -> Scaled:
        edges = np.cumsum([0, *(len(part.index) for part in parts)])
        scales = [scale[start:stop] for start, stop in itertools.pairwise(edges)]
        return join_scaled(list(self.each(scaled, parts, candidates, scales)))

    def _dual(self, parts: list[Rows]) -> tuple[DualSums, list[Array]]:
        if self.is_joint:
            mu = self._joint_multiplier(parts)
            found = list(self.each(partial(dual_sums, multiplier=lambda *_: mu, radius=None), parts))
        else:
            found = list(self.each(self._own_dual, parts))
        names = ("value", "norms", "gauge")
        sums = DualSums(*(np.concatenate([getattr(s, name) for s, _ in found]) for name in names))
        return sums, [part.backend.read(nu) for part, (_, nu) in zip(parts, found, strict=True)]

    def _own_dual(self, part: Rows) -> tuple[DualSums, Any]:
        return dual_sums(part, partial(own_multiplier, radius=self.radius), self.radius[part.index])

    def _joint_multiplier(self, parts: list[Rows]) -> Array:
        """Return the multiplier of the one ball, as an array of one number."""

        def weighted(mu: Array) -> tuple[Array, Array]:
            sums = self.each(lambda part: weighted_sums(part, projection_excess(part)[1], mu), parts)
            squares, slopes = np.concatenate(list(sums), axis=1).sum(axis=1)
            return np.array([squares]), np.array([slopes])

        square = np.array([sum(np.sum(squares) for squares in self.each(excess_squares, parts))])
        return find_multiplier(square, self.aim, None if parts[0].weights is None else weighted)

    def _parts(self, rows: Rows) -> list[Rows]:
        """Split rows into slices, at units' edges."""
        n_rows, unit = len(rows.index), rows.structure.unit_outputs
        size = SLICE_NEURONS if not rows.backend.threads_itself else n_rows
        count = max(1, -(-n_rows // size))
        edges = np.unique(np.linspace(0, n_rows, count + 1).astype(int) // unit * unit)
        edges = np.append(edges[edges < n_rows], n_rows)
        return [rows.part(slice(start, stop)) for start, stop in itertools.pairwise(edges)]


@contextmanager
def _workers(rows: Rows, settings: AdmmSettings) -> Iterator[Each]:
    # Slices of neurons in parallel with one BLAS thread each: the order of sums does not depend on the number of
    # cores, and a busy core delays one slice instead of stopping every matrix product.
    threads = settings.threads or os.cpu_count() or 1
    if rows.backend.threads_itself or threads == 1 or len(rows.index) * rows.Q.shape[1] < SMALLEST_FOR_THREADS:
        with threadpool_limits(limits=threads) if rows.backend.threads_itself else one_blas_thread():
            yield map
        return
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        yield pool.map


def _unit_sums(rows: Rows, values: Array, is_joint: bool) -> Array:
    """Return sums over each row's unit: (k, n_rows) -> (k, n_rows)."""
    if is_joint:
        return np.broadcast_to(values.sum(axis=1, keepdims=True), values.shape)
    if rows.structure.unit_outputs == 1:
        return values
    unit = rows.index // rows.structure.unit_outputs
    return np.stack([np.bincount(unit, row)[unit] for row in values])


def _balance(rows: Rows, residuals: Array, settings: AdmmSettings) -> None:
    """Move each rho toward equal residuals, or toward the hard form's share of the dual one."""
    primal, dual = residuals
    if rows.ball is not None:
        dual = HARD_BALANCE * dual
    factor = np.ones(len(primal))
    factor[primal > settings.balance_threshold * dual] = settings.balance_factor
    factor[dual > settings.balance_threshold * primal] = 1.0 / settings.balance_factor
    if np.any(factor != 1.0):
        scale_penalty(rows, factor)


def _compact(state: AdmmState, rows: Rows, still: Array) -> Rows:
    """Return copies of the rows that go on; the others' iterates stay in the state."""
    if rows is not state.rows:
        state.rows.put(rows)
    return rows.take(np.flatnonzero(still))
