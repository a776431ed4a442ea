import numpy as np
from scipy.stats import binom

from nettrim.statistics import (
    answers_with_a_class,
    clopper_pearson_lower,
    predicted_classes,
    relative_error,
    share_equal,
)


def test_the_lower_bound_is_where_the_binomial_tail_is_five_per_cent() -> None:
    bound = clopper_pearson_lower(1990, 2000)
    np.testing.assert_allclose(binom.sf(1989, 2000, bound), 0.05, rtol=1e-6)


def test_no_success_bounds_nothing_and_full_success_is_not_certainty() -> None:
    assert clopper_pearson_lower(0, 10) == 0
    np.testing.assert_allclose(clopper_pearson_lower(10, 10), 0.05 ** (1 / 10))


def test_classes_are_the_largest_outputs_and_a_single_output_is_a_sign() -> None:
    np.testing.assert_array_equal(predicted_classes(np.array([[1, 3, 2], [5, 0, 0]])), [1, 0])
    np.testing.assert_array_equal(predicted_classes(np.array([[-1.0], [2.0]])), [0, 1])
    assert share_equal(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.75


def test_relative_error_is_a_share_of_the_reference() -> None:
    assert relative_error(np.array([3.0]), np.array([2.0])) == 0.5
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.ones(2), np.zeros(2)) == float("inf")


def test_a_class_is_one_row_of_two_outputs_or_more() -> None:
    assert answers_with_a_class((12,), (3,))
    assert answers_with_a_class((8, 8, 1), (1, 1, 10))
    assert not answers_with_a_class((12,), (1,))
    assert not answers_with_a_class((640,), (640,))  # an autoencoder
    assert not answers_with_a_class((32, 32, 3), (8, 8, 2))  # a map
