from hypothesis import given
from hypothesis import strategies as st

from nettrim.shared_sparsity import kept_counts

PATHS = {
    "first": ((0.01, 900), (0.1, 500), (0.5, 50)),
    "second": ((0.01, 95), (0.1, 80), (0.5, 40)),
}
SIZES = {"first": 1000, "second": 100}


@given(st.integers(0, 1200))
def test_kept_counts_add_up_to_what_is_asked(total: int) -> None:
    counts = kept_counts(PATHS, SIZES, total)
    assert sum(counts.values()) == min(total, 1100)
    assert all(0 <= counts[name] <= SIZES[name] for name in SIZES)


def test_a_layer_that_resists_pruning_keeps_a_larger_share() -> None:
    counts = kept_counts(PATHS, SIZES, 500)
    assert counts["second"] / 100 > counts["first"] / 1000
