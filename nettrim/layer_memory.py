"""What a layer's solve takes in memory, and how many rows fit a budget."""

from nettrim_runtime.errors import DataError

FLOAT32_BYTES, FLOAT64_BYTES = 4, 8
# The largest of two phases: the certificate in float64 (outputs), and the refit of four neurons at once with all
# weights kept (inputs). Peak resident memory of layers of 50 to 1,500 inputs, 10 to 300 outputs stays below it.
INPUT_ARRAYS = 10  # float32, n_inputs x n_samples: X, a copy with ones or scaled, and two a neuron that is refitted
OUTPUT_ARRAYS = 34  # float32, n_outputs x n_samples: target, box, iterates, and five of float64 and their parts
SQUARE_ARRAYS = 26  # float64, n_inputs x n_inputs: Gram matrix, inverse, and six a neuron that is refitted
GROUP_INPUT_ARRAYS, GROUP_SQUARE_ARRAYS = 2, 3  # of each further group: X and a copy scaled; Gram matrix, inverse
FEWEST_ROWS = 64  # below it a layer's problem says nothing


def solver_bytes(n_inputs: int, n_outputs: int, n_samples: int, n_groups: int = 1) -> int:
    """Return the bytes that building and solving one layer's problem takes at its peak.

    40 n_inputs n_samples + 136 n_outputs n_samples + 208 n_inputs^2, and for each further group of a convolution
    8 n_inputs n_samples + 24 n_inputs^2: the solver holds all groups, a refit one after the other.

    Parameters
    ----------
    n_inputs : int
        Of one group.
    n_outputs : int
        Of all groups.
    """
    others = n_groups - 1
    by_row = (INPUT_ARRAYS + others * GROUP_INPUT_ARRAYS) * n_inputs + OUTPUT_ARRAYS * n_outputs
    square = (SQUARE_ARRAYS + others * GROUP_SQUARE_ARRAYS) * n_inputs**2
    return FLOAT32_BYTES * by_row * n_samples + FLOAT64_BYTES * square


def rows_within(budget_bytes: int, name: str, sizes: tuple[int, int, int]) -> int:
    """Return how many rows (samples, patches) a layer's problem may hold within a budget.

    Parameters
    ----------
    name : str
        The layer's.
    sizes : (int, int, int)
        n_inputs, n_outputs and n_groups as in `solver_bytes`.

    Raises
    ------
    DataError
        When not even `FEWEST_ROWS` fit.
    """
    n_inputs, n_outputs, n_groups = sizes
    fixed = solver_bytes(n_inputs, n_outputs, 0, n_groups)
    by_row = solver_bytes(n_inputs, n_outputs, 1, n_groups) - fixed
    rows = (budget_bytes - fixed) // by_row
    if rows < FEWEST_ROWS:
        needed = solver_bytes(n_inputs, n_outputs, FEWEST_ROWS, n_groups)
        raise DataError(
            f"layer {name!r} with {n_inputs} inputs and {n_outputs} outputs needs {needed:,} bytes to be solved even "
            f"with {FEWEST_ROWS} rows, found a budget of {budget_bytes:,} bytes for it: "
            "raise memory_budget_bytes (--memory)"
        )
    return rows
