"""Where a run is, in words."""

import pytest

from nettrim.progress import Progress


class _Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def progress(clock: _Clock, shown: list[str]) -> Progress:
    return Progress(shown.append, lambda sentence: shown.append(f"kept: {sentence}"), clock)


def test_seconds_count_from_the_start(progress: Progress, clock: _Clock, shown: list[str]) -> None:
    progress("reading")
    clock.seconds += 12.4
    progress("quantising")
    assert shown == ["reading (0 s)", "quantising (12 s)"]


def test_what_is_left_is_told_from_the_second_trial_on(progress: Progress, clock: _Clock, shown: list[str]) -> None:
    progress.start_trial(1, 5)
    progress("pruning a")
    clock.seconds += 10
    progress.start_trial(2, 5)
    progress("pruning a")
    clock.seconds += 4
    progress("pruning b")
    clock.seconds += 16
    progress("pruning c")
    progress.start_trial(3, 5)
    progress("pruning a")
    assert shown == [
        "pruning a (trial 1 of at most 5, 0 s)",
        "pruning a (trial 2 of at most 5, 10 s, about 40 s left, or less)",
        "pruning b (trial 2 of at most 5, 14 s, about 36 s left, or less)",
        "pruning c (trial 2 of at most 5, 30 s, about 30 s left, or less)",  # this one takes longer than usual
        "pruning a (trial 3 of at most 5, 30 s, about 45 s left, or less)",
    ]


def test_behind_the_trials_only_seconds_are_told(progress: Progress, clock: _Clock, shown: list[str]) -> None:
    progress.start_trial(1, 5)
    clock.seconds += 3
    progress.end_trial()
    progress("writing")
    progress.keep("done")
    assert shown == ["writing (3 s)", "kept: done"]
