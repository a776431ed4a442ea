"""From counts to the density where sparse and dense kernels meet."""

import numpy as np
import pytest

from benchmarks.kernels import Measurement, compare, figures
from benchmarks.layers import LayerCase, random_layer

CASE = LayerCase("20-10", (20,), (10, 20))


def test_break_even_is_where_the_sparse_line_meets_the_dense_count() -> None:
    sparse = [Measurement("m4", CASE, d, round(200 * d), 10, round(10 * 30 + 200 * d * 6)) for d in (0.1, 0.3, 0.5)]
    found = compare("m4", CASE, [Measurement("m4", CASE, None, 200, 10, 900), *sparse])
    # Least squares of three points on a line in float64.
    assert (found.csr_per_nonzero, found.csr_per_output) == pytest.approx((6.0, 30.0), rel=1e-9)
    assert found.break_even_density == pytest.approx((900 - 300) / 1200, rel=1e-9)
    assert found.fit_error < 1e-9
    assert figures([found])["m4_dense_break_even_density"].value == 0.5


def test_no_kept_weight_of_a_random_layer_becomes_zero_in_int8(rng: np.random.Generator) -> None:
    for case in (CASE, LayerCase("3x3", (4, 4, 2), (3, 3, 3, 2), pad=1)):
        assert random_layer(case, 1.0, rng).tensors["weight"].nnz == np.prod(case.weight_shape)
