"""certificate.json: three statements about a deployment, kept apart, each with what it does and does not say."""

import dataclasses
from typing import Any

from nettrim.deploy import ERROR_SAMPLES, Deployment
from nettrim.prune import PrunedLayer
from nettrim.statistics import CONFIDENCE

CERTIFICATE_VERSION = 1


def build_certificate(deployment: Deployment) -> dict[str, Any]:
    """Return certificate.json: optimality of the screen, response on the calibration samples, new inputs."""
    return {
        "schema_version": CERTIFICATE_VERSION,
        "optimality": _optimality(deployment),
        "response": _response(deployment),
        "new_inputs": _new_inputs(deployment),
    }


def _optimality(deployment: Deployment) -> dict[str, Any]:
    return {
        "statement": "For each layer, the relative duality gap that its convex program was solved to, where known; the "
        "bound is recomputed from the problem with a feasible dual point. It speaks of the screen, before "
        "weights were selected, refitted and quantised.",
        "layers": [
            {
                "name": outcome.name,
                "status": outcome.status,
                "epsilon": outcome.solution.epsilon if outcome.solution else None,
                "relative_gap": outcome.solution.relative_gap if outcome.solution else None,
            }
            for outcome in deployment.result.layers
        ],
    }


def _response(deployment: Deployment) -> dict[str, Any]:
    inputs = deployment.inputs
    return {
        "statement": "For the pruned weights as returned, each layer's distance to the wanted responses on the samples "
        "(or patches: fit_rows of them) it was fitted to, Frobenius norm in float64; and, on error_samples of the "
        "calibration samples, how far the activations of the whole pruned network, and of the int8 network, lie from "
        "the original ones, as a share of their norm.",
        "error_samples": min(len(inputs.fit), ERROR_SAMPLES),
        "synthetic_samples": inputs.fit.is_synthetic,
        "layers": [
            {
                "name": outcome.name,
                "fit_rows": outcome.fit_rows,
                "distance": outcome.solution.distance if outcome.solution else 0.0,
                "relative_distance": outcome.solution.relative_distance if outcome.solution else 0.0,
                "within_epsilon": _within_epsilon(deployment, outcome),
                "error_pruned": deployment.fit_errors[outcome.name][0],
                "error_deployed": deployment.fit_errors[outcome.name][1],
            }
            for outcome in deployment.result.layers
        ],
    }


def _within_epsilon(deployment: Deployment, outcome: PrunedLayer) -> bool | None:
    """Whether the returned weights keep the goal; None when the goal was a sparsity and epsilon only the screen's."""
    if deployment.inputs.prune.sparsity is not None:
        return None
    return outcome.solution is None or outcome.solution.distance <= outcome.solution.epsilon


def _new_inputs(deployment: Deployment) -> dict[str, Any]:
    return {
        "statement": "On samples held out of every fit: the share that keeps the original network's class, and its "
        "exact lower bound (Clopper-Pearson, one-sided) for inputs drawn from the same source; the relative error "
        "of the output, and its 95 % quantile over single samples; each layer's errors on those samples.",
        "confidence": CONFIDENCE,
        "synthetic_samples": deployment.inputs.fit.is_synthetic,
        "layers": [
            {"name": name, "error_pruned": pruned, "error_deployed": deployed}
            for name, (pruned, deployed) in deployment.errors.items()
        ],
        **dataclasses.asdict(deployment.agreement),
    }
