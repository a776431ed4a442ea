"""What belongs to no layer is refused in one sentence that says what was expected."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nettrim.activations import RELU
from nettrim.layer_problem import build_problem
from nettrim.layer_search import solve_to_nnz
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"constraint": "Hard"}, "constraint is 'Hard', expected one of distance, hard"),
        ({"ball": "each"}, "ball is 'each', expected one of joint, neuron"),
        ({"activation": "relu"}, "activation is 'relu', expected one of nettrim.activations"),
        ({"structure": "1x4"}, "structure is '1x4', expected one of nettrim.structure"),
        ({"relative_epsilon": np.ones(8)}, "relative_epsilon is array"),
        ({"relative_epsilon": float("nan")}, "relative_epsilon is nan, expected a share"),
        ({"X": "abc"}, "X holds <U3, expected real numbers"),
        ({"X": np.ones((9, 50), complex)}, "X holds complex128, expected real numbers"),
    ],
)
def test_arguments_of_another_kind_say_what_was_expected(changed: dict[str, Any], message: str) -> None:
    arguments = {"X": np.ones((9, 50)), "W": np.ones((9, 8)), "bias": np.ones(8), "activation": RELU} | changed
    with pytest.raises(DataError, match=message):
        build_problem(**arguments)


def test_a_problem_made_by_hand_wants_numpy_arrays() -> None:
    problem = build_problem(np.ones((9, 50)), np.ones((9, 8)), np.ones(8), RELU)
    with pytest.raises(DataError, match="W is of type list, expected a NumPy array"):
        replace(problem, W=problem.W.tolist())


@pytest.mark.parametrize("nnz", [-1, 2.5])
def test_a_number_of_weights_is_whole_and_not_negative(nnz: Any) -> None:
    problem = build_problem(np.ones((9, 50)), np.ones((9, 8)), np.ones(8), RELU)
    with pytest.raises(DataError, match=f"nnz is {nnz}, expected a number of weights"):
        solve_to_nnz(problem, nnz)
