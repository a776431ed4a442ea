"""Where a run is: which trial of how many, the seconds gone and, once a trial has told, the seconds left."""

import time
from collections.abc import Callable


class Progress:
    """Says what is being done, and where in the run that is.

    Parameters
    ----------
    show : callable
        Takes a sentence that the next one may replace.
    keep : callable
        Takes a sentence that stays.
    clock : callable
        Seconds from any start.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        keep: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keep = keep
        self._show, self._clock, self._start = show, clock, clock()
        self._trial: _Trial | None = None
        self._durations: list[float] = []

    def __call__(self, sentence: str) -> None:
        """Show a sentence with the place in the run behind it."""
        now = self._clock()
        places = [f"{now - self._start:.0f} s"]
        if self._trial is not None:
            places.insert(0, f"trial {self._trial.number} of at most {self._trial.most}")
            places += self._remaining(self._trial, now)
        self._show(f"{sentence} ({', '.join(places)})")

    def start_trial(self, number: int, most: int) -> None:
        """Begin the trial of that number, of ``most`` if none ends the search early."""
        self.end_trial()
        self._trial = _Trial(number, most, self._clock())

    def end_trial(self) -> None:
        """End the trial that was begun, if one was; what it took tells how long the next ones will."""
        if self._trial is not None:
            self._durations.append(self._clock() - self._trial.start)
        self._trial = None

    def _remaining(self, trial: "_Trial", now: float) -> list[str]:
        if not self._durations:
            return []
        usual = sum(self._durations) / len(self._durations)
        seconds = usual * (trial.most - trial.number) + max(usual - (now - trial.start), 0.0)
        return [f"about {seconds:.0f} s left, or less"]


class _Trial:
    def __init__(self, number: int, most: int, start: float) -> None:
        self.number, self.most, self.start = number, most, start


SILENT = Progress(lambda _: None, lambda _: None)
