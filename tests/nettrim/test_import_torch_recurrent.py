"""GRU, LSTM and look-ups of constant places from every kind of PyTorch file, against torch."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nettrim.cli import deploy_app, run
from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.ops import Concat, Dense
from tests.nettrim.onnx_models import arrange_samples, random_floats
from tests.nettrim.test_deploy import exit_code
from tests.nettrim.torch_models import assert_runs_as_in_torch, scripts_in_this_process
from tests.shared_data import shared_data

__all__ = ["scripts_in_this_process"]  # a fixture

pytestmark = [
    pytest.mark.usefixtures("scripts_in_this_process"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # TorchScript itself is deprecated
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`:FutureWarning"),  # torch's own
    pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning"),  # of a GRU in torch.export
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

CLIP = (49, 10)  # steps and coefficients of a spoken word
STEPS, FEATURES, HIDDEN = 5, 10, 6


class Keywords(nn.Module):
    """The last output of a GRU, classified."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, HIDDEN, batch_first=True, **options)
        self.fc = nn.Linear(self.rnn.hidden_size * (1 + self.rnn.bidirectional), 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.rnn(x)
        return self.fc(outputs[:, -1])


class LastStates(nn.Module):
    """The last state of the last of two LSTM layers behind a convolution, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, 8, 2, stride=2)
        self.rnn = nn.LSTM(8, HIDDEN, num_layers=2, batch_first=True, dropout=0.1)
        self.fc = nn.Linear(HIDDEN, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, (states, _) = self.rnn(torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))
        return self.fc(states[-1])


class StepsFirst(nn.Module):
    """The mean of the outputs of an LSTM in both directions, steps before the batch, from given first states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, bidirectional=True)
        self.fc = nn.Linear(2 * HIDDEN, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(2, x.size(0), 6)
        outputs, _ = self.rnn(x.transpose(0, 1), (state, x.new_zeros(2, x.size(0), 6)))
        return self.fc(outputs.transpose(0, 1).mean(1))


class Places(nn.Module):
    """A learnt vector for each step, looked up and added."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(STEPS, FEATURES)
        self.fc = nn.Linear(STEPS * FEATURES, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((x + self.places(torch.arange(x.size(1)))).flatten(1))


class Projected(nn.Module):
    """An LSTM whose states are projected: torch's exporter takes it for a smaller one without projection."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, proj_size=3, batch_first=True)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.rnn(x)
        return self.fc(outputs[:, -1])


def both_ways() -> Keywords:
    return Keywords(num_layers=2, bidirectional=True)


def without_bias() -> Keywords:
    return Keywords(bias=False)


def load_state_dict(path: Path, module: nn.Module, shape: tuple[int, ...]) -> ImportedModel:
    torch.save(module.state_dict(), path)
    code = path.with_name("net.py")
    factory = type(module).__name__
    code.write_text(f"from {__name__} import {factory}\n")
    return load_model(path, arch=f"{code}:{factory}", input_shape=shape)


def load_pickled(path: Path, module: nn.Module, shape: tuple[int, ...]) -> ImportedModel:
    torch.save(module, path)
    return load_model(path, input_shape=shape, trust_pickle=True)


def load_scripted(path: Path, module: nn.Module, shape: tuple[int, ...]) -> ImportedModel:
    torch.jit.save(torch.jit.script(module), path)
    return load_model(path, input_shape=shape)


def load_traced(path: Path, module: nn.Module, shape: tuple[int, ...]) -> ImportedModel:
    torch.jit.save(torch.jit.trace(module, torch.zeros(2, *shape)), path)
    return load_model(path, input_shape=shape)


def load_exported(path: Path, module: nn.Module, shape: tuple[int, ...]) -> ImportedModel:
    path = path.with_suffix(".pt2")
    torch.export.save(torch.export.export(module, (torch.zeros(1, *shape),)), path)
    return load_model(path)


NETWORKS = [Keywords, LastStates, StepsFirst, Places]
FILES = [load_state_dict, load_pickled, load_scripted, load_traced, load_exported]
Load = Callable[[Path, nn.Module, tuple[int, ...]], ImportedModel]


@pytest.mark.slow
@pytest.mark.parametrize("load", FILES)
@pytest.mark.parametrize("make", NETWORKS)
def test_recurrent_network_runs_as_in_torch(tmp_path: Path, make: Callable[[], nn.Module], load: Load) -> None:
    torch.manual_seed(0)
    module = make().eval()
    model = load(tmp_path / "model.pt", module, (STEPS, FEATURES))
    assert_runs_as_in_torch(model, module)
    if make is LastStates:  # the first layer's outputs are joined, the two layers' last states are not
        assert sum(isinstance(op, Concat) for op in model.graph.ops) == 1
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize("load", [load_scripted, load_traced])
@pytest.mark.parametrize("make", [both_ways, without_bias])
def test_two_layers_both_ways_and_none_of_the_biases(tmp_path: Path, make: Callable[[], nn.Module], load: Load) -> None:
    torch.manual_seed(0)
    module = make().eval()
    assert_runs_as_in_torch(load(tmp_path / "model.pt", module, (STEPS, FEATURES)), module)


@pytest.mark.parametrize("load", [load_scripted, load_traced])
def test_words_through_a_gru_give_torchs_outputs(tmp_path: Path, load: Load) -> None:
    torch.manual_seed(0)
    module, words = Keywords().eval(), normalised_words()
    model = load(tmp_path / "model.pt", module, CLIP)
    with torch.no_grad():
        expected = module(torch.from_numpy(words)).numpy()
    assert (
        np.abs(run_graph(model.graph, arrange_samples(model, words)) - expected).max() < 1e-4
    )  # float32 over 49 steps
    assert sum(isinstance(op, Dense) for op in model.graph.ops) == 2 * (CLIP[0] - 1) + 1


@pytest.mark.slow
def test_words_through_a_gru_are_deployed_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    words = normalised_words()
    torch.export.save(torch.export.export(Keywords().eval(), (torch.zeros(1, *CLIP),)), tmp_path / "model.pt2")
    np.savez(tmp_path / "words.npz", x=words)
    monkeypatch.chdir(tmp_path)
    arguments = "--target host model.pt2 --data words.npz --sparsity 0.3 --output out"
    monkeypatch.setattr(sys, "argv", ["nettrim-deploy", *arguments.split()])
    assert exit_code(lambda: run(deploy_app)) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"]["format"] == "PyTorch export archive"
    assert all(check["differing"] == 0 for check in report["verification"])


def normalised_words() -> Any:
    values = np.load(shared_data("kws_arm_features_300.npz"))["mfcc_49x10"]
    flat = values.reshape(-1, CLIP[1])
    return ((values - flat.mean(0)) / flat.std(0)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("make", [nn.GRU, nn.LSTM])
def test_pickled_layer_keeps_its_outputs_at_all_steps(tmp_path: Path, make: type[nn.GRU] | type[nn.LSTM]) -> None:
    module = nn.Sequential(nn.Dropout(), make(FEATURES, HIDDEN, 2, batch_first=True, bidirectional=True)).eval()
    torch.save(module, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(STEPS, FEATURES))
    samples = random_floats(3, STEPS, FEATURES)
    with torch.no_grad():
        expected = module(torch.from_numpy(samples))[0].numpy()
    np.testing.assert_allclose(run_graph(model.graph, arrange_samples(model, samples)), expected, atol=1e-5)
    assert any("the last states of its GRU or LSTM are left out" in note for note in model.notes)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.GRU(FEATURES, HIDDEN), r"'module\.0' is a GRU .* expected batch_first=True"),
        (nn.Embedding(STEPS, FEATURES), r"'module\.0' is an Embedding, .* give what it looks up as samples"),
    ],
)
def test_pickled_layer_that_takes_other_samples_is_refused(tmp_path: Path, layer: nn.Module, expected: str) -> None:
    torch.save(nn.Sequential(layer), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=expected):
        load_model(tmp_path / "model.pt", input_shape=(STEPS, FEATURES))


class Words(nn.Module):
    """Looks up its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 4)
        self.fc = nn.Linear(4 * STEPS, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.words(x).flatten(1))


@pytest.mark.slow
def test_network_that_looks_up_its_samples_is_refused(tmp_path: Path) -> None:
    expected = "begins with an Embedding, .* give what it looks up as samples"
    for load in (load_state_dict, load_scripted):
        with pytest.raises(ModelFileError, match=expected):
            load(tmp_path / "model.pt", Words().eval(), (STEPS,))
    program = torch.export.export(Words().eval(), (torch.zeros(1, STEPS, dtype=torch.long),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ModelFileError, match=expected):
        load_model(tmp_path / "model.pt2")


@pytest.mark.slow
def test_layer_that_torch_exports_as_another_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"differ by .* for instance an LSTM with proj_size; replace that layer"):
        load_exported(tmp_path / "model.pt", Projected().eval(), (STEPS, FEATURES))
