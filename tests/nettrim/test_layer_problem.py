"""What belongs to no layer is refused in one sentence that says what was expected."""

import numpy as np
import pytest

from nettrim.activations import RELU
from nettrim.layer_problem import build_problem
from nettrim_runtime.errors import DataError

SHAPES = {"X": (4, 9, 50), "W": (9, 8), "bias": (8,)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": (50,)}, r"X has shape \(50,\), expected \(n_inputs, n_samples\) or \(n_groups, n_inputs, n_samples\)"),
        ({"X": (1, 4, 9, 50)}, r"X has shape \(1, 4, 9, 50\), expected"),
        ({"X": (50, 9)}, r"W has shape \(9, 8\), expected 50 rows, one for each of X's inputs: transpose"),
        ({"X": (3, 9, 50)}, r"X has 3 groups, expected a divisor of W's 8 outputs"),
        ({"X": (0, 9, 50)}, r"X has 0 groups, expected a divisor"),
        ({"X": (9, 0)}, r"X has no samples, expected at least one"),
        ({"W": (8,)}, r"W has shape \(8,\), expected \(n_inputs, n_outputs\)"),
        ({"bias": (3,)}, r"bias has shape \(3,\), expected \(8,\), one for each column of W"),
        ({"bias": (8, 1)}, r"bias has shape \(8, 1\), expected \(n_outputs,\)"),
    ],
)
def test_shapes_that_do_not_belong_together_say_what_was_expected(
    changed: dict[str, tuple[int, ...]], message: str
) -> None:
    arrays = [np.ones(shape, np.float32) for shape in (SHAPES | changed).values()]
    with pytest.raises(DataError, match=message):
        build_problem(*arrays, RELU)


def test_a_negative_epsilon_is_refused_as_it_was_given() -> None:
    arrays = [np.ones(shape, np.float32) for shape in SHAPES.values()]
    with pytest.raises(DataError, match=r"relative_epsilon is -0\.1, expected a share of 0 or more"):
        build_problem(*arrays, RELU, relative_epsilon=-0.1)
