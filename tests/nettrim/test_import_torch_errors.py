"""What torch cannot run or export: one sentence, and nothing of torch's own on the terminal."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nettrim.importers import load_model
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.torch_models import make_cnn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript itself is deprecated

Save = Callable[[Path], None]


class ByValue(nn.Module):
    """Goes by what is in its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if x.sum() > 0 else x


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(10, 8, proj_size=4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.rnn(x)
        return outputs[:, -1]


def save_module(path: Path) -> None:
    torch.save(make_cnn(), path)


def save_script(path: Path) -> None:
    torch.jit.save(torch.jit.script(make_cnn()), path)


def save_trace(path: Path) -> None:
    torch.jit.save(torch.jit.trace(make_cnn(), torch.zeros(2, 2, 8, 6)), path)


def save_projected(path: Path) -> None:
    torch.jit.save(torch.jit.script(Projected().eval()), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("save", "shape", "expected"),
    [
        (save_module, (1, 8, 6), r"layer '0', Conv2d\(2, 4, .*, gets \(1, 8, 6\) \(RuntimeError.* to have 2 channels"),
        (save_module, (2, 9, 9), r"layer '6\.0', Linear\(in_features=48, .*\), gets \(64,\)"),
        (save_module, (8,), r"samples of shape \(8,\) do not fit the network: layer '0', Conv2d.* gets \(8,\)"),
        (save_script, (1, 8, 6), r"samples of shape \(1, 8, 6\) \(RuntimeError: .* to have 2 channels, but got 1"),
        (save_script, (2, 9, 9), r"\(RuntimeError: mat1 and mat2 shapes cannot be multiplied \(2x64 and 48x8\)\)"),
        (save_trace, (2, 9, 9), r"\(RuntimeError: mat1 and mat2 shapes cannot be multiplied \(2x64 and 48x8\)\)"),
        (save_projected, (6, 10), r"LSTMs with projections.* export it yourself with torch\.onnx\.export\(model"),
    ],
)
def test_samples_that_do_not_fit_are_one_clean_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], save: Save, shape: tuple[int, ...], expected: str
) -> None:
    save(tmp_path / "model.pt")
    capfd.readouterr()
    with pytest.raises(ModelFileError, match=expected) as caught:
        load_model(tmp_path / "model.pt", input_shape=shape)
    assert str(caught.value).isprintable()
    assert "check --input-shape" in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_network_that_goes_by_values_is_not_taken_for_one_of_other_samples(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(f"from {__name__} import ByValue\n")
    torch.save(ByValue().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=r"torch cannot export the module.*data-dependent") as caught:
        load_model(tmp_path / "model.pt", input_shape=(3,), arch=f"{tmp_path / 'net.py'}:ByValue")
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_what_a_process_writes_after_an_export_is_seen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_trace(tmp_path / "model.pt")
    load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))
    torch._C._jit_set_onnx_log_enabled(True)
    torch._C._jit_onnx_log("written by C++")
    torch._C._jit_set_onnx_log_enabled(False)
    assert "written by C++" in capfd.readouterr().out
