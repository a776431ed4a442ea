"""Accuracy, agreement and their exact confidence bounds."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv  # scipy.stats has it as beta.ppf, and takes a second to import

Array = npt.NDArray[Any]

CONFIDENCE = 0.95


def answers_with_a_class(input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> bool:
    """Return whether the largest output can be a class: two or more in one row, not a copy of the input's shape.

    A single output is a quantity, an output of the input's shape a reconstruction.
    """
    return 1 < math.prod(output_shape) == max(output_shape, default=1) and output_shape != input_shape


def predicted_classes(outputs: Array) -> Array:
    """Return the class of each row: the largest output, or for one output whether it is positive.

    Parameters
    ----------
    outputs : Array
        (n_samples, ...) logits, probabilities or their integers.
    """
    flat = outputs.reshape(len(outputs), -1)
    return flat.argmax(axis=1) if flat.shape[1] > 1 else (flat[:, 0] > 0).astype(np.int64)


def share_equal(first: Array, second: Array) -> float:
    """Return the share of equal entries: accuracy against labels, agreement between two networks."""
    return float(np.mean(first == second))


def clopper_pearson_lower(successes: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Return the exact one-sided lower bound of a binomial share (Clopper & Pearson, Biometrika 1934)."""
    if successes == 0:
        return 0.0
    return float(betaincinv(successes, trials - successes + 1, 1 - confidence))


def relative_error(values: Array, reference: Array) -> float:
    """Return ||values - reference||_F / ||reference||_F; 0 when both are zero."""
    difference = float(np.linalg.norm(values.astype(np.float64) - reference))
    norm = float(np.linalg.norm(reference.astype(np.float64)))
    return difference / norm if norm else (0.0 if difference == 0.0 else float("inf"))
