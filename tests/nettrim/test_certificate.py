"""The three statements of certificate.json on small networks that went the whole way."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from nettrim import evaluate
from nettrim.certificate import build_certificate
from nettrim.deploy import Deployment, build
from nettrim.deployment_inputs import DeployOptions, read_inputs
from nettrim.prune import PruneSettings
from nettrim.report import build_report, print_report

Make = Callable[..., Deployment]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Deploy a random network 12-10-n on 200 random samples."""

    def deploy(n_outputs: int = 3, **settings: Any) -> Deployment:
        folder = tmp_path_factory.mktemp("network")
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(12, 10), torch.nn.ReLU(), torch.nn.Linear(10, n_outputs))
        torch.save(network.state_dict(), folder / "model.pt")
        np.savez(folder / "calibration.npz", x=np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32))
        options = DeployOptions(
            folder / "model.pt",
            "host",
            output=folder / "out",
            prune=PruneSettings(**settings),
            goal_is_default=False,
        )
        return build(options, read_inputs(options), lambda _: None)

    return deploy


@pytest.fixture(scope="module")
def deployment(make: Make) -> Deployment:
    return make(relative_epsilon=0.1)


def test_the_three_statements_stay_apart_and_are_json(deployment: Deployment) -> None:
    certificate = build_certificate(deployment)
    assert set(certificate) == {"schema_version", "optimality", "response", "new_inputs"}
    assert all("statement" in certificate[part] for part in ("optimality", "response", "new_inputs"))
    assert json.loads(json.dumps(certificate, allow_nan=False)) == certificate


def test_measured_errors_lie_below_their_bounds(deployment: Deployment) -> None:
    response = build_certificate(deployment)["response"]
    for layer in response["layers"]:
        assert layer["error_pruned"] <= layer["bound_pruned"] * (1 + 1e-4)  # measured in float32
        assert layer["error_deployed"] <= layer["bound_deployed"]
        assert layer["operator_norm"] > 0
    last = response["layers"][-1]
    assert (response["output_bound_pruned"], response["output_bound_deployed"]) == pytest.approx(
        (last["bound_pruned"], last["bound_deployed"])
    )


def test_no_more_inputs_are_proven_than_agree(deployment: Deployment) -> None:
    new = build_certificate(deployment)["new_inputs"]
    assert new["samples"] == 40
    assert 0 < new["kept_by_proof"] <= round(new["pruned"] * 40)
    assert 0 <= new["kept_by_proof_deployed"] <= round(new["deployed"] * 40)
    assert build_report(deployment)["agreement"]["kept_by_proof"] == new["kept_by_proof"]


def test_weights_that_break_an_inequality_are_not_within_epsilon(deployment: Deployment) -> None:
    outcome = deployment.result.layers[0]
    assert outcome.solution is not None
    broken = replace(outcome, solution=replace(outcome.solution, primal_residual=0.5))
    changed = replace(deployment, result=replace(deployment.result, layers=(broken, *deployment.result.layers[1:])))
    before, after = (build_certificate(found)["response"]["layers"][0] for found in (deployment, changed))
    assert before["within_epsilon"] is True
    assert after["within_epsilon"] is False
    assert after["primal_residual"] == 0.5
    assert after["distance"] <= outcome.solution.epsilon


def test_of_a_large_network_the_first_samples_are_looked_at(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "FEWEST_PROOF_SAMPLES", 5)
    monkeypatch.setattr(evaluate, "PROOF_MACS", 7 * (12 * 10 + 10 * 3))
    few = evaluate.prove_bounds(deployment.networks, deployment.inputs.fit.x, deployment.inputs.held_out)
    np.testing.assert_array_equal(few.pruned_held_out.deviation, deployment.bounds.pruned_held_out.deviation[:7])
    certificate = build_certificate(replace(deployment, bounds=few))
    assert certificate["response"]["bound_samples"] == certificate["new_inputs"]["proof_samples"] == 7


def test_a_single_output_has_an_error_and_no_class(make: Make) -> None:
    deployment = make(n_outputs=1, sparsity=0.3)
    new = build_certificate(deployment)["new_inputs"]
    names = ("pruned", "pruned_lower", "deployed", "deployed_lower", "kept_by_proof", "kept_by_proof_deployed")
    assert [new[name] for name in names] == [None] * len(names)
    assert 0 < new["relative_output_error"] < 1
    text = io.StringIO()
    print_report({**build_report(deployment), "build": {}}, deployment, Console(file=text, width=200))
    assert "output error on 40 held-out samples" in text.getvalue()
    assert "agreement" not in text.getvalue()


def test_a_polish_leaves_no_distance_of_other_weights_in_the_report(make: Make) -> None:
    deployment = make(relative_epsilon=0.3, polish=True)
    certificate, report = build_certificate(deployment), build_report(deployment)
    assert report["goal"]["polish"]
    assert any("--polish" in warning for warning in report["data"]["warnings"])
    for layer in (*certificate["response"]["layers"], *report["layers"]):
        assert (layer["distance"], layer["relative_distance"], layer["primal_residual"]) == (None, None, None)
    for layer in certificate["response"]["layers"]:
        assert layer["error_pruned"] <= layer["bound_pruned"] * (1 + 1e-4)  # measured in float32
    assert all(layer["status"] == "solved, polished" for layer in report["layers"])
