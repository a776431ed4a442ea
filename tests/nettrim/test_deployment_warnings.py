"""What a user is told of a finished network."""

import pytest

from nettrim.deployment_warnings import _agreement_warnings
from nettrim.evaluate import Agreement


@pytest.mark.parametrize(
    ("pruned", "deployed", "advice"),
    [(0.999, 0.5, "int8 is too coarse"), (0.6, 0.5, "ask for less --sparsity"), (0.999, 0.995, None)],
)
def test_the_advice_is_for_what_the_loss_comes_from(pruned: float, deployed: float, advice: str | None) -> None:
    warnings = _agreement_warnings(Agreement(pruned, pruned - 0.01, deployed, deployed - 0.01, 0.1, 0.2, 1000))
    assert len(warnings) == (advice is not None)
    assert all(advice in warning for warning in warnings if advice)
