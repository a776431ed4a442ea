"""Restarts from averages, for the few neurons that would otherwise circle around their solution."""

from dataclasses import dataclass, field

import numpy as np

from nettrim.admm_rows import Rows, Tensor
from nettrim_runtime.graph import Array

WINDOW = 50  # checks whose iterates are averaged
GROWTH, LARGEST_GROWTH = 2.0, 16.0  # of rho with every restart, and of all restarts together
ITERATES = ("W", "Q", "D1", "D2")


@dataclass(eq=False)
class Restarts:
    """The mean of the iterates since the last restart, and what rho has grown by.

    Where few samples bind, the program is nearly linear and ADMM spirals in: the mean of a turn is far nearer to
    the solution than any iterate (Applegate et al., "Practical Large-Scale Linear Programming using Primal-Dual
    Hybrid Gradient", NeurIPS 2021, section 3.2). Where it creeps instead, a larger rho helps.
    """

    count: int = 0
    growth: float = 1.0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def look(self, rows: Rows) -> None:
        """Take the iterates into the mean; at the end of a window go on from it."""
        if self.sums and self.sums["W"].shape != rows.W.shape:  # others are done: the window starts again
            self.count = 0
        for name in ITERATES:
            value = getattr(rows, name)
            self.sums[name] = value + (self.sums[name] if self.count else 0.0)
        self.count += 1
        if self.count < WINDOW:
            return
        for name in ITERATES:
            getattr(rows, name)[...] = self.sums[name] / np.float32(self.count)
        self.count = 0
        if self.growth < LARGEST_GROWTH:
            self.growth *= GROWTH
            scale_penalty(rows, np.full(len(rows.rho), GROWTH))


def scale_penalty(rows: Rows, factor: Array) -> None:
    """Multiply each rho, (n_rows,); only the scaled duals follow, the factorisation stays."""
    rows.rho *= factor
    share = rows.column(1.0 / factor)
    rows.D1 *= share
    rows.D2 *= share
