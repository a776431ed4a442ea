"""certificate.json: three statements about a deployment, kept apart, each with what it does and does not say."""

import dataclasses
import math
from typing import Any

import numpy as np

from nettrim.deploy import ERROR_SAMPLES, Deployment
from nettrim.prune import PrunedLayer
from nettrim.statistics import CONFIDENCE

CERTIFICATE_VERSION = 2


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
                "epsilon": float(np.linalg.norm(outcome.solution.epsilon)) if outcome.solution else None,
                "relative_gap": outcome.solution.relative_gap if outcome.solution else None,
            }
            for outcome in deployment.result.layers
        ],
    }


def _response(deployment: Deployment) -> dict[str, Any]:
    inputs, bounds = deployment.inputs, deployment.bounds
    return {
        "statement": "For the pruned weights as returned, each layer's distance to the wanted responses on the samples "
        "(or patches: fit_rows of them) it was fitted to, Frobenius norm in float64, and by how much its constraint is "
        "exceeded at epsilon (primal_residual; a refit of the hard form may break inequalities and keep the distance; "
        "null for a goal of sparsity); where steps of a recurrent layer share a weight, over all steps, each on the "
        "states that the original weight leads to; all of these null for layers that were polished afterwards; "
        "on error_samples of the calibration samples, how far the activations of the whole pruned network, and of the "
        "deployed network, lie from the original ones (error), as a share of their norm, and on the first "
        "bound_samples of those how far at most (bound). The bound is proven: what each layer errs by on the "
        "original's activations is computed exactly, its operator norm limits how much it enlarges the errors before "
        "it, and what rounding to integers can add is added, before int8 weights beside floats too. Output bounds are "
        "those of the logits.",
        "error_samples": min(len(inputs.fit), ERROR_SAMPLES),
        "bound_samples": len(bounds.pruned_fit.deviation),
        "synthetic_samples": inputs.fit.is_synthetic,
        "output_bound_pruned": _finite(bounds.pruned_fit.relative_bound),
        "output_bound_deployed": _finite(bounds.deployed_fit.relative_bound),
        "layers": [_layer_response(deployment, outcome) for outcome in deployment.result.layers],
    }


def _layer_response(deployment: Deployment, outcome: PrunedLayer) -> dict[str, Any]:
    bounds, solution = deployment.bounds, outcome.solution
    unchanged = None if outcome.is_polished else 0.0
    if outcome.is_polished:
        solution = None
    return {
        "name": outcome.name,
        "fit_rows": outcome.fit_rows,
        "distance": solution.distance if solution else unchanged,
        "relative_distance": solution.relative_distance if solution else unchanged,
        **_constraint_kept(deployment, outcome),
        "error_pruned": deployment.fit_errors[outcome.name][0],
        "error_deployed": deployment.fit_errors[outcome.name][1],
        "bound_pruned": _finite(bounds.pruned_fit.relative_bounds().get(outcome.name)),
        "bound_deployed": _finite(bounds.deployed_fit.relative_bounds().get(outcome.name)),
        "operator_norm": bounds.pruned_fit.operator_norms.get(outcome.name),
    }


def _constraint_kept(deployment: Deployment, outcome: PrunedLayer) -> dict[str, Any]:
    """Return what exceeds the constraint, and whether nothing does; None when epsilon was no goal, or changed since."""
    if deployment.inputs.prune.sparsity is not None or outcome.is_polished:
        return {"primal_residual": None, "within_epsilon": None}
    if outcome.solution is None:
        return {"primal_residual": 0.0, "within_epsilon": True}
    return {"primal_residual": outcome.solution.primal_residual, "within_epsilon": outcome.solution.is_feasible}


def _new_inputs(deployment: Deployment) -> dict[str, Any]:
    bounds = deployment.bounds
    return {
        "statement": "On samples held out of every fit: the share that keeps the original network's class, and its "
        "exact lower bound (Clopper-Pearson, one-sided) for inputs drawn from the same source, null where the outputs "
        "are no classes; the relative error of the output, and its 95 % quantile over single samples; each layer's "
        "errors on those samples. And the number of the first proof_samples that keep their class by proof: for that "
        "very input, the original's logits differ by more than the bounded errors of all layers together can move "
        "them. This says nothing of other inputs.",
        "confidence": CONFIDENCE,
        "synthetic_samples": deployment.inputs.fit.is_synthetic,
        "layers": [
            {"name": name, "error_pruned": pruned, "error_deployed": deployed}
            for name, (pruned, deployed) in deployment.errors.items()
        ],
        **dataclasses.asdict(deployment.agreement),
        "proof_samples": len(bounds.pruned_held_out.deviation),
        "kept_by_proof": bounds.kept_pruned,
        "kept_by_proof_deployed": bounds.kept_deployed,
        "output_bound_pruned": _finite(bounds.pruned_held_out.relative_bound),
        "output_bound_deployed": _finite(bounds.deployed_held_out.relative_bound),
    }


def _finite(bound: float | None) -> float | None:
    """Return a bound as JSON can hold it: None for none and for infinity."""
    return bound if bound is not None and math.isfinite(bound) else None
