"""The errors a user can cause, each with the exit code of the command line."""


class NettrimError(Exception):
    """A mistake in what was given: the message says what was expected, what was found, where, and what to do."""

    exit_code = 2


class GraphError(NettrimError):
    """A graph breaks one of its invariants: a fault of the pass that built it, so it reads as a bug."""

    exit_code = 1


class ModelFileError(NettrimError):
    """A model file cannot be read: damaged, of another kind, or of another version."""


class DataError(NettrimError):
    """Samples that do not fit the model: wrong shape or type, NaN or infinity, too few."""


class UnsupportedOperatorError(NettrimError):
    """The network holds an operator, or a form of one, that nettrim cannot carry through every room."""

    exit_code = 3
