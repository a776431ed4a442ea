"""The command line from a model file to a verified folder."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_digits

from nettrim.cli import app, deploy_app, run
from tests.boards.need_tools import need_tools
from tests.nettrim.onnx_models import node, random_floats, write_onnx
from tests.nettrim.test_prune_steps import FEATURES, STEPS, write_stack

Deploy = Callable[..., int]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with model.pt (64-32-10, random features, fitted), calibration.npz and test.npz of real digits."""
    folder = tmp_path_factory.mktemp("digits")
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    data = load_digits()
    x = (data.data / 16).astype(np.float32)
    with torch.no_grad():
        features = torch.nn.functional.pad(network[:2](torch.from_numpy(x)), (0, 1), value=1.0)
        fitted = torch.linalg.lstsq(features, torch.eye(10)[data.target]).solution
        network[2].weight.copy_(fitted[:-1].T)
        network[2].bias.copy_(fitted[-1])
    torch.save(network.state_dict(), folder / "model.pt")
    with torch.no_grad():
        labels = network(torch.from_numpy(x[400:600])).argmax(dim=1).numpy()
    np.savez(folder / "calibration.npz", x=x[:400])
    np.savez(folder / "test.npz", x=x[400:600], y=labels)  # the network's own answers: it is right by definition
    return folder


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deploy:
    """Run nettrim-deploy in an empty folder and return its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["nettrim-deploy", *map(str, arguments)])
        return exit_code(lambda: run(deploy_app))

    return call


def exit_code(call: Callable[[], int]) -> int:
    try:
        return call()
    except SystemExit as end:
        return int(end.code or 0)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_one_command_writes_a_verified_deployment(
    deploy: Deploy, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("--target", "rpi4", digits / "model.pt", "--test-data", digits / "test.npz", "--sparsity", 0.5) == 0
    folder = tmp_path / "model-rpi4"
    names = {"manifest.json", "report.json", "certificate.json", "model.npz", "model.tflite", "model.h", "README.md"}
    assert names <= {path.name for path in folder.iterdir()}
    report = json.loads((folder / "report.json").read_text())
    assert 0 <= round(0.5 * (64 * 32 + 32 * 10)) - report["totals"]["nnz"] < 24  # int8 rounds a few more to zero
    assert report["accuracy"]["original"] == 1
    assert report["accuracy"]["samples"] == 200
    agreement = report["agreement"]  # the level is a matter of rounding: a network of 32 hidden neurons, halved
    equal = round(agreement["deployed"] * agreement["samples"])
    assert agreement["deployed"] > 0.85
    assert agreement["deployed_lower"] == pytest.approx(
        scipy.stats.beta.ppf(0.05, equal, agreement["samples"] - equal + 1)
    )
    assert all(check["differing"] == 0 for check in report["verification"])
    assert "accuracy: 100.00%" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["nettrim", "verify", str(folder)])
    assert exit_code(lambda: run(app)) == 0


def test_two_runs_give_the_same_bytes(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert deploy("--target", "rpi4", digits / "model.pt", "--output", tmp_path / name) == 0
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")


def test_json_is_the_report(deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--target", "host", digits / "model.pt", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "model-host" / "report.json").read_text())


def test_without_data_it_works_and_warns_plainly(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone.pt").write_bytes((digits / "model.pt").read_bytes())
    assert deploy("--target", "host", tmp_path / "alone.pt") == 0
    assert "warning: no calibration data: random Gaussian inputs are used" in capsys.readouterr().err
    report = json.loads((tmp_path / "alone-host" / "report.json").read_text())
    assert report["accuracy"]["original"] is None
    assert 0 < report["accuracy"]["agreement_lower_bound"] < report["accuracy"]["agreement"]
    certificate = json.loads((tmp_path / "alone-host" / "certificate.json").read_text())
    assert certificate["new_inputs"]["synthetic_samples"] is True
    fitted, new = (certificate[part]["layers"] for part in ("response", "new_inputs"))
    assert [layer["name"] for layer in fitted] == [layer["name"] for layer in new]
    assert all(a["error_deployed"] != b["error_deployed"] for a, b in zip(fitted, new, strict=True))


def test_a_result_that_disagrees_with_the_original_says_so(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(digits / "calibration.npz") as data:
        np.savez(tmp_path / "few.npz", x=data["x"][:40])
    assert deploy("--target", "host", digits / "model.pt", "--data", tmp_path / "few.npz") == 0
    error = capsys.readouterr().err
    assert "warning: few.npz holds only 40 samples" in error
    assert "warning: 32 samples to fit are fewer than the inputs of 0:" in error
    assert deploy("--target", "host", digits / "model.pt", "--sparsity", 0.99, "--output", "sparse") == 0
    error = capsys.readouterr().err
    assert "warning: the deployed network answers otherwise than the original on" in error
    assert "fewer than the inputs" not in error


def test_the_largest_drop_is_kept_on_held_out_samples_or_ends_with_exit_code_5(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparsities = []
    for allowed in (0, 0.01, 0.5):
        code = deploy("--target", "host", digits / "model.pt", "--max-drop", allowed, "--output", str(allowed))
        report = json.loads((tmp_path / str(allowed) / "report.json").read_text())
        assert code == (0 if report["goal"]["drop"] <= allowed else 5)
        assert ("is the best of those tried" in capsys.readouterr().err) == (code == 5)
        assert report["goal"]["drop"] == pytest.approx(1 - report["agreement"]["deployed"])
        trials = [(trial["sparsity"], trial["drop"]) for trial in report["goal"]["trials"]]
        within = [sparsity for sparsity, drop in trials if drop <= 0.7 * allowed]
        assert report["goal"]["sparsity"] == (max(within) if within else min(trials, key=lambda trial: trial[1])[0])
        sparsities.append(report["totals"]["sparsity"])
    assert sparsities[2] > 0.8
    assert max(sparsities[:2]) < sparsities[2]


def test_goal_trials_and_the_place_in_the_run_are_told(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("--target", "host", digits / "model.pt") == 0
    lines = capsys.readouterr().err.splitlines()
    report = json.loads((tmp_path / "model-host" / "report.json").read_text())
    goal, page = report["goal"], (tmp_path / "model-host" / "report.html").read_text()
    assert goal["text"].startswith("at most 0.5% of the answers may change on held-out samples (the default; ")
    assert lines[0] == f"goal: {goal['text']}"
    assert f"<p>{goal['text']}.</p>" in page
    for number, trial in enumerate(goal["trials"], start=1):
        verdict = "kept" if trial["is_kept"] else "missed"
        told = f"{trial['drop']:.2%} of the answers change: {verdict}"
        assert f"trial {number}: at sparsity {trial['sparsity']:.1%} {told}" in lines
        assert (
            f"<td>{number}</td><td>{trial['sparsity']:.2%}</td><td>{trial['drop']:.2%}</td><td>{verdict}</td>" in page
        )
        pruning = [line for line in lines if f"(trial {number} of at most 5, " in line and line.startswith("pruning")]
        assert [line.split(" (")[0] for line in pruning] == ["pruning 0, layer 1 of 2", "pruning 2, layer 2 of 2"]
        assert all((" s left" in line) == (number > 1) for line in pruning)


def test_a_relative_epsilon_is_kept_by_every_layer(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    for mode in ("parallel", "cascade"):
        arguments = ("--relative-epsilon", 0.1, "--mode", mode, "--output", mode)
        assert deploy("--target", "host", digits / "model.pt", *arguments) == 0
        report = json.loads((tmp_path / mode / "report.json").read_text())
        assert all(layer["distance"] <= layer["epsilon"] for layer in report["layers"])
        assert all(layer["status"] == "solved" for layer in report["layers"])
        assert report["totals"]["sparsity"] > 0.2


def test_a_microcontroller_gets_firmware_that_fits(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    need_tools("arm-none-eabi-gcc", "arm-none-eabi-size")
    assert deploy("--target", "nucleo-f446re", digits / "model.pt", "--sparsity", 0.8) == 0
    report = json.loads((tmp_path / "model-nucleo-f446re" / "report.json").read_text())
    assert (tmp_path / "model-nucleo-f446re" / report["build"]["program"]).read_bytes()[:4] == b"\x7fELF"
    assert 0 < report["build"]["firmware"]["flash_bytes"] < 512 * 1024


def test_calibration_data_as_test_data_carry_a_warning(
    deploy: Deploy, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", digits / "test.npz", "--test-data", digits / "test.npz")
    assert deploy("--target", "host", digits / "model.pt", *data) == 0
    assert "is both calibration and test data" in capsys.readouterr().err


@pytest.mark.slow
def test_the_number_of_blas_threads_does_not_change_the_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(300, 320), torch.nn.ReLU(), torch.nn.Linear(320, 10))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).normal(size=(1500, 300)))
    for threads in ("1", "2"):
        command = [sys.executable, "-c", "from nettrim.cli import deploy_main; deploy_main()", "--target", "host"]
        arguments = ["model.pt", "--relative-epsilon", "0.2", "--output", threads]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        subprocess.run([*command, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


@pytest.mark.slow
def test_ctrl_c_in_mid_solve_leaves_nothing(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(700, 500), torch.nn.ReLU(), torch.nn.Linear(500, 10))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).normal(size=(3000, 700)))
    before = sorted(tmp_path.iterdir())
    command = [
        sys.executable,
        "-c",
        "from nettrim.cli import deploy_main; deploy_main()",
        "--target",
        "rpi4",
        "model.pt",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("pruning"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "error: interrupted; nothing half-written is left"
    assert "Traceback" not in rest
    assert sorted(tmp_path.iterdir()) == before


def test_fit_keeps_what_the_flash_of_a_microcontroller_holds(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    assert deploy("--target", "nucleo-f446re", digits / "model.pt", "--fit") == 0
    report = json.loads((tmp_path / "model-nucleo-f446re" / "report.json").read_text())
    assert report["goal"]["sparsity"] == 0
    assert report["totals"]["flash_bytes"] <= report["goal"]["fit_flash_bytes"] < 512 * 1024


def test_int16_activations_are_verified_everywhere_and_reported(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    arguments = ("--sparsity", 0.5, "--int16", "all")
    assert deploy("--target", "host", digits / "model.pt", *arguments) == 0
    report = json.loads((tmp_path / "model-host" / "report.json").read_text())
    assert {layer["activations"] for layer in report["layers"]} == {"int16"}
    assert {check["artifact"] for check in report["verification"]} >= {"model.npz", "model.tflite", "model.h"}
    assert ("model.tflite", "nettrim, read back") in {(each["artifact"], each["by"]) for each in report["verification"]}
    assert report["accuracy"]["agreement"] > 0.9


def test_blocks_of_16_weights_give_a_second_tflite_file_for_a_raspberry_pi(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(640, 24), torch.nn.ReLU(), torch.nn.Linear(24, 4))
    torch.save(network.state_dict(), tmp_path / "wide.pt")
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).random((60, 640), np.float32))
    arguments = (tmp_path / "wide.pt", "--structure", "1x16", "--sparsity", 0.95)
    assert deploy("--target", "rpi4", *arguments) == 0
    report = json.loads((tmp_path / "wide-rpi4" / "report.json").read_text())
    assert report["sparse_tflite"]["layers"] == ["0"]
    assert "model.sparse.tflite" in {check["artifact"] for check in report["verification"]}
    sizes = [(tmp_path / "wide-rpi4" / name).stat().st_size for name in ("model.sparse.tflite", "model.tflite")]
    assert sizes[0] < sizes[1]
    assert "model.sparse.tflite" in (tmp_path / "wide-rpi4" / "README.md").read_text()
    step = report["sparse_tflite"]["largest_step"]
    steps = "1 step" if step == 1 else f"{step} steps"
    line = f"model.sparse.tflite: layer 0 in blocks of 1x16; at most {steps} from model.tflite, "
    assert line in capsys.readouterr().out.replace("\n", " ")
    assert deploy("--target", "host", *arguments) == 0
    assert not (tmp_path / "wide-host" / "model.sparse.tflite").exists()


def test_a_recurrent_network_is_pruned_in_all_its_layers_and_has_the_same_bits_everywhere(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_stack(tmp_path / "cells.onnx", "GRU", linear_before_reset=1)
    np.savez(tmp_path / "calibration.npz", x=random_floats(100, STEPS, FEATURES))
    assert deploy("--target", "host", path, "--sparsity", 0.6) == 0
    report = json.loads((tmp_path / "cells-host" / "report.json").read_text())
    assert report["totals"]["sparsity"] == pytest.approx(0.6, abs=0.02)  # int8 rounds a few more to zero
    assert len(report["verification"]) >= 3
    assert all(check["differing"] == 0 for check in report["verification"])
    assert "were asked" not in capsys.readouterr().err


def test_a_sparsity_that_layers_left_whole_keep_from_being_met_names_them(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        node("Conv", "x w", "c", name="depthwise", group=8),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("MatMul", "f d", "y"),
    ]
    constants = {"w": random_floats(8, 1, 3, 3), "d": random_floats(32, 2)}
    write_onnx(tmp_path / "depthwise.onnx", nodes, ["N", 8, 4, 4], constants)
    np.savez(tmp_path / "calibration.npz", x=random_floats(100, 8, 4, 4))
    assert deploy("--target", "host", tmp_path / "depthwise.onnx", "--sparsity", 0.9) == 0
    expected = "90.0% were asked: layers that are not pruned hold 52.9% of all: depthwise (kept dense)"
    assert expected in capsys.readouterr().err


def test_class_names_and_normalisation_go_into_the_tflite_file(deploy: Deploy, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"digit {number}\n" for number in range(10)))
    arguments = (digits / "model.pt", "--sparsity", 0.5, "--labels", tmp_path / "names.txt")
    assert deploy("--target", "host", *arguments) == 0
    with zipfile.ZipFile(tmp_path / "model-host" / "model.tflite") as archive:
        assert archive.read("labels.txt").decode().split("\n")[3] == "digit 3"
    assert (tmp_path / "model-host" / "labels.txt").read_text() == (tmp_path / "names.txt").read_text()
    (tmp_path / "names.txt").write_text("only one\n")
    assert deploy("--target", "host", *arguments, "--force") == 2


def test_calibration_of_another_kind_than_the_test_samples_is_said(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(digits / "calibration.npz") as arrays:
        np.savez(
            tmp_path / "noise.npz", x=np.random.default_rng(0).normal(-40, 1, arrays["x"].shape).astype(np.float32)
        )
    arguments = ("--data", tmp_path / "noise.npz", "--test-data", digits / "test.npz", "--sparsity", 0.8)
    assert deploy("--target", "host", digits / "model.pt", *arguments) == 0
    assert "are they samples of one kind? Calibration values run from -4" in " ".join(capsys.readouterr().err.split())
