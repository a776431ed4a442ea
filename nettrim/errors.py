"""The errors of the host tool beyond those of the runtime, each with the exit code of the command line."""

from nettrim_runtime.errors import NettrimError


class UsageError(NettrimError):
    """Options that contradict each other, or a folder that cannot be used."""


class DoesNotFitError(NettrimError):
    """The network needs more flash or RAM than the board has."""

    exit_code = 4


class BudgetMissedError(NettrimError):
    """The deployed network loses more than --max-drop allows; the best one found was written."""

    exit_code = 5


class InvalidBenchmarkError(NettrimError):
    """A measurement that cannot be trusted: unstable, throttled, or of other bits."""

    exit_code = 7


class VerificationError(NettrimError):
    """A written file does not give the bits of the reference, or is not what its manifest says."""

    exit_code = 8
