"""One whole network pruned in a process of its own: wall time and peak memory.

    python -m benchmarks.solver_network NETWORK DATA SAMPLES

prints one line of JSON.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.results_file import ROOT
from benchmarks.solver_layers import SEED, load_subject, reason
from nettrim.prune import PruneSettings, prune
from nettrim_runtime.bench import peak_memory
from nettrim_runtime.errors import NettrimError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


def measure_network(name: str, data: Path, n_samples: int) -> Mapping[str, str | float]:
    """Prune a network of `solver_layers.SUBJECTS` with the default settings on all cores, in a new process.

    Returns
    -------
    Mapping
        "seconds", "peak_bytes" (the whole process, libraries and samples included) and "sparsity", or "reason":
        why there are none.
    """
    environment = {key: value for key, value in os.environ.items() if key not in THREAD_VARIABLES}
    command = [sys.executable, "-m", "benchmarks.solver_network", name, str(data.resolve()), str(n_samples)]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        return {"reason": (finished.stderr.strip() or f"exit status {finished.returncode}").splitlines()[-1]}
    measured: Mapping[str, str | float] = json.loads(finished.stdout.splitlines()[-1])
    return measured


def main() -> int:
    """Prune and print; returns the exit status."""
    name, data, n_samples = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        subject = load_subject(name, data, n_samples)
    except (NettrimError, FileNotFoundError) as error:
        print(reason(error), file=sys.stderr)
        return 6
    start = time.perf_counter()
    # A row of a problem is a sample here: no layer may see fewer than the network does.
    settings = PruneSettings(max_rows=max(n_samples, PruneSettings.max_rows))
    result = prune(subject.graph, subject.samples, settings, np.random.default_rng(SEED))
    seconds = time.perf_counter() - start
    solutions = [layer.solution for layer in result.layers if layer.solution is not None]
    kept = sum(solution.nnz for solution in solutions) / sum(solution.W.size for solution in solutions)
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_memory(), "sparsity": 1 - kept}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
