"""Channels of several arrays side by side, into a prepared buffer: a copy, whatever the type."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim_runtime.linear import Step

Array = npt.NDArray[Any]


def concat_step(sources: Sequence[Array], output: Array) -> Step:
    """Prepare output = the sources joined along their last axis.

    Parameters
    ----------
    sources, output : Array
        (batch, ..., channels) of one type.
    """

    def run() -> None:
        np.concatenate(sources, axis=-1, out=output)

    return run
