"""Mistakes a user can make on the command line: one line that says what to do, and an exit code."""
# ruff: noqa: F811  # fixtures that are imported

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.nettrim.test_deploy import Deploy, deploy, digits, exit_code, hashes  # noqa: F401  # two of them fixtures


def broken_calibration(folder: Path, name: str) -> Path:
    x = np.zeros((20, 64), np.float32)
    arrays = {"nan": x + np.nan, "narrow": x[:, :60], "few": x[:3]}
    path = folder / f"{name}.npz"
    np.savez(path, x=arrays[name])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "NaN or infinity in 20 of 20 samples"),
        ("narrow", r"x has shape (20, 60), expected (n_samples, 64)"),
        ("few", "x holds 3 samples, expected at least 8"),
    ],
)
def test_bad_data_are_one_line_and_exit_code_2(
    name: str, message: str, deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = broken_calibration(tmp_path, name)
    assert deploy("--target", "rpi4", digits / "model.pt", "--data", data) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [data]


def test_test_data_without_labels_are_refused(deploy: Deploy, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--target", "rpi4", digits / "model.pt", "--test-data", digits / "calibration.npz") == 2
    assert "holds no array y, expected the labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"dear model,\nhow are you?\n", "text"), (None, "no such file")]
)
def test_a_file_that_is_no_model_is_one_line_and_exit_code_2(
    content: bytes | None, message: str, deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "model.pt").write_bytes(content)
    assert deploy("--target", "rpi4", tmp_path / "model.pt") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "model.pt" in error
    assert len(error.strip().splitlines()) == 1


class OwnNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x))


@pytest.mark.slow
def test_a_pickled_module_is_opened_only_when_trusted_and_report_and_manifest_say_so(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(OwnNet(), tmp_path / "own.pt")
    data = ("--data", digits / "calibration.npz", "--sparsity", 0.5, "--input-shape", 64)
    assert deploy("--target", "host", tmp_path / "own.pt", *data) == 2
    assert "--trust-pickle opens it" in capsys.readouterr().err
    assert deploy("--target", "host", tmp_path / "own.pt", *data, "--trust-pickle") == 0
    notes = json.loads((tmp_path / "own-host" / "report.json").read_text())["model"]["notes"]
    assert "opened with --trust-pickle: the file may have run any code" in notes
    assert json.loads((tmp_path / "own-host" / "manifest.json").read_text())["model"]["trust_pickle"] is True


def test_an_unknown_board_names_the_nearest(deploy: Deploy, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--target", "rpi44", digits / "model.pt") == 2
    assert "rpi4" in capsys.readouterr().err.replace("rpi44", "")


def test_a_convolutional_state_dict_asks_for_its_architecture_and_shape(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.nn.Conv2d(1, 4, 3).state_dict(), tmp_path / "conv.pt")
    assert deploy("--target", "rpi4", tmp_path / "conv.pt") == 2
    assert "--arch" in capsys.readouterr().err
    (tmp_path / "arch.py").write_text("import torch\n\ndef make():\n    return torch.nn.Conv2d(1, 4, 3)\n")
    assert deploy("--target", "rpi4", tmp_path / "conv.pt", "--arch", "arch.py:make") == 2
    assert "--input-shape" in capsys.readouterr().err


def test_an_unsupported_operator_is_exit_code_3_before_any_work(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    node = onnx.helper.make_node("Sin", ["x"], ["y"], name="wave")
    graph = onnx.helper.make_graph([node], "net", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "net.onnx")
    assert deploy("--target", "rpi4", tmp_path / "net.onnx") == 3
    error = capsys.readouterr().err
    assert "Sin" in error
    assert "wave" in error
    assert "MaxPool" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plain",), "--plain is a convex program"),
        (("--plain", "--polish", "--relative-epsilon", "0.1"), "give one of the two"),
        (
            ("--max-drop", "1%"),
            "--max-drop is 1%, expected a share from 0 to below 1; 1 per cent are 0.01",
        ),
        (
            ("--sparsity", "90"),
            "--sparsity is 90, expected a share from 0 to below 1; 90 per cent are 0.9",
        ),
        (("--relative-epsilon", "-1"), "--relative-epsilon is -1"),
        (("--sparsity", "0.5", "--relative-epsilon", "0.1"), "different goals"),
        (("--input-shape", "1,x"), "--input-shape is '1,x'"),
        (("--mean", "a"), "--mean is 'a'"),
        (("--std", "0"), "--std or --input-scale is 0"),
        (("--input-scale", "nan"), "--input-scale is (nan,), expected finite numbers"),
        (("--seed", "-1"), "--seed"),
        (("--structure", "100x64"), "one block holds each layer whole, the largest has 32 outputs of 64 inputs"),
        (("--precision", "float16"), "'float16' is not one of 'int8', 'hybrid', 'float32'"),
        (("--precision", "float32", "--int16", "all"), "--precision float32 computes in floats: give one"),
    ],
)
def test_options_that_make_no_sense_are_exit_code_2(
    arguments: tuple[str, ...], message: str, deploy: Deploy, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy("--target", "rpi4", digits / "model.pt", *arguments) == 2
    assert message in capsys.readouterr().err


def test_an_existing_folder_is_refused_before_any_work(
    deploy: Deploy, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    assert deploy("--target", "rpi4", digits / "model.pt", "--output", "taken") == 2
    assert "--force" in capsys.readouterr().err
    assert deploy("--target", "rpi4", digits / "model.pt", "--output", "taken/mine.txt/out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_network_too_large_for_the_board_is_exit_code_4(
    deploy: Deploy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(64, 9000), torch.nn.ReLU(), torch.nn.Linear(9000, 2))
    torch.save(network.state_dict(), tmp_path / "wide.pt")
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).normal(size=(16, 64)))
    assert deploy("--target", "nucleo-f446re", tmp_path / "wide.pt", "--sparsity", 0) == 4
    assert "bytes of flash at sparsity 0, nucleo-f446re has 524288" in capsys.readouterr().err
    assert not (tmp_path / "wide-nucleo-f446re").exists()


def test_fit_needs_a_flash_to_fill(deploy: Deploy, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy("--target", "rpi4", digits / "model.pt", "--fit") == 2
    assert "--fit fills the flash of a microcontroller, and rpi4 has none to fill" in capsys.readouterr().err
    assert deploy("--target", "nucleo-f446re", digits / "model.pt", "--fit", "--sparsity", 0.5) == 2
    assert "--sparsity and --fit are different goals" in capsys.readouterr().err
