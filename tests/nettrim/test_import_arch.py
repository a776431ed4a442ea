"""State dicts with the user's own module: --arch FILE.py:FACTORY."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nettrim.importers import load_model
from nettrim.importers.architecture import load_module
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.onnx_models import arrange_samples, op_names, reference_outputs
from tests.nettrim.torch_models import assert_runs_as_in_torch
from tests.shared_data import shared_data

MLP = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
"""

CNN = """
import torch
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.fc1 = nn.Linear(8 * 3 * 2, 6)
        self.fc2 = nn.Linear(6 + 0, 4)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = functional.relu6(self.norm1(self.stem(x)))
        x = torch.relu(self.pointwise(functional.relu6(self.norm2(self.depthwise(x)))) + x)
        pooled = functional.max_pool2d(x, 2)
        features = torch.relu(self.fc1(pooled.flatten(1)))
        logits = self.head(functional.adaptive_avg_pool2d(pooled, 1)).view(x.size(0), -1)
        return torch.softmax(self.fc2(features) + logits, dim=1)
"""


RESNET_20 = """
import torch
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self, n_inputs, n_outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_inputs, n_outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_outputs)
        self.conv2 = nn.Conv2d(n_outputs, n_outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_outputs)
        self.added = (n_outputs - n_inputs) // 2
        self.stride = stride

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return torch.relu(x + y)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        sizes = [(16, 16), (16, 32), (32, 64)]
        for index, (first, last) in enumerate(sizes, start=1):
            blocks = [Block(first, last, 1 if index == 1 else 2), Block(last, last, 1), Block(last, last, 1)]
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))
"""


def save_with_code(folder: Path, code: str, factory: str) -> tuple[Path, str, Any]:
    """Write net.py and the state dict of its module, with batch statistics that are not trivial."""
    (folder / "net.py").write_text(code)
    arch = f"{folder / 'net.py'}:{factory}"
    torch.manual_seed(0)
    module = load_module(arch)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
    torch.save(module.state_dict(), folder / "model.pt")
    return folder / "model.pt", arch, module.eval()


@pytest.mark.slow
def test_mlp_with_batch_norm_runs_as_in_torch(tmp_path: Path) -> None:
    path, arch, module = save_with_code(tmp_path, MLP, "make")
    model = load_model(path, arch=arch, input_shape=(1, 3, 4))
    assert_runs_as_in_torch(model, module)
    assert op_names(model) == ["Dense", "Dense"]
    assert (model.input_layout, model.source_shape) == ("flat", (1, 3, 4))
    assert any(arch in note for note in model.notes)


@pytest.mark.slow
def test_residual_cnn_runs_as_in_torch(tmp_path: Path) -> None:
    path, arch, module = save_with_code(tmp_path, CNN, "Net")
    model = load_model(path, arch=arch, input_shape=(3, 12, 8))
    assert_runs_as_in_torch(model, module)
    assert model.input_layout == "NCHW"
    assert "Activation" not in op_names(model)


@pytest.mark.slow
def test_public_checkpoint_from_2018_runs_as_the_onnx_file_made_of_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(RESNET_20)
    path = shared_data("models/resnet20-12fca82f.th")  # before PyTorch 1.6, without num_batches_tracked
    model = load_model(path, arch=f"{tmp_path / 'net.py'}:Net", input_shape=(3, 32, 32))
    samples = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    expected = reference_outputs(shared_data("models/resnet20_cifar10.onnx"), samples)
    outputs = run_graph(model.graph, arrange_samples(model, samples))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)  # float32 sums of 576 terms, 20 layers deep


@pytest.mark.slow
def test_unsupported_layer_of_a_module_is_named(tmp_path: Path) -> None:
    code = (
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(4, 3), nn.CELU(), nn.BatchNorm1d(3))\n"
    )
    path, arch, _ = save_with_code(tmp_path, code, "make")
    with pytest.raises(UnsupportedOperatorError, match="Celu"):
        load_model(path, arch=arch, input_shape=(4,))


@pytest.mark.slow
def test_module_that_does_not_take_the_samples_is_an_error_of_one_line(tmp_path: Path) -> None:
    path, arch, _ = save_with_code(tmp_path, MLP, "make")
    with pytest.raises(ModelFileError, match="check --input-shape") as caught:
        load_model(path, arch=arch, input_shape=(1, 3, 5))
    assert "\n" not in str(caught.value)


def test_arch_asks_for_input_shape(tmp_path: Path) -> None:
    path, arch, _ = save_with_code(tmp_path, MLP, "make")
    with pytest.raises(ModelFileError, match="--input-shape 1,28,28"):
        load_model(path, arch=arch)


def test_missing_onnxscript_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, arch, _ = save_with_code(tmp_path, MLP, "make")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelFileError, match=r"pip install nettrim\[torch\]"):
        load_model(path, arch=arch, input_shape=(12,))


def test_arch_with_an_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x12\xff")
    with pytest.raises(ModelFileError, match="--arch belongs to files that hold weights alone"):
        load_model(tmp_path / "m.onnx", arch="net.py:make")


def test_state_dict_of_another_module_is_refused(tmp_path: Path) -> None:
    path, arch, _ = save_with_code(tmp_path, MLP, "make")
    torch.save({"1.weight": torch.ones(8, 12), "extra": torch.ones(1)}, path)
    with pytest.raises(ModelFileError, match=r"missing 1\.bias, .* and 2 more; unexpected extra"):
        load_model(path, arch=arch, input_shape=(12,))


def test_state_dict_with_another_size_is_refused(tmp_path: Path) -> None:
    path, arch, module = save_with_code(tmp_path, MLP, "make")
    torch.save({**module.state_dict(), "1.bias": torch.ones(7)}, path)
    with pytest.raises(ModelFileError, match=r"size mismatch for 1\.bias") as caught:
        load_model(path, arch=arch, input_shape=(12,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "factory", "expected"),
    [
        (None, "make", "there is no file"),
        ("", "make-net", r"expected FILE\.py:FACTORY"),
        ("", "make", "has no function or class 'make'"),
        ("make = 3", "make", "has no function or class 'make'"),
        ("import no_such_module", "make", "running .* failed .ModuleNotFoundError"),
        ("def make(:", "make", "running .* failed .SyntaxError"),
        ("def make():\n    raise ValueError('first\\nsecond')", "make", r"make\(\) failed .ValueError: first"),
        ("def make(size):\n    return size", "make", r"make\(\) failed .TypeError"),
        ("def make():\n    return 3", "make", r"returned int, expected a torch\.nn\.Module"),
    ],
)
def test_bad_factory_is_an_error_of_one_line(tmp_path: Path, code: str | None, factory: str, expected: str) -> None:
    if code is not None:
        (tmp_path / "net.py").write_text(code)
    torch.save({"w": torch.ones(1)}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=expected) as caught:
        load_model(tmp_path / "m.pt", arch=f"{tmp_path / 'net.py'}:{factory}", input_shape=(3,))
    assert "\n" not in str(caught.value)


def test_user_file_may_import_its_neighbours_and_leaves_the_path_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "arch_neighbour.py").write_text("from torch import nn\nSIZE = 3\n")
    (tmp_path / "net.py").write_text("import arch_neighbour as a\ndef make():\n    return a.nn.Linear(a.SIZE, 2)\n")
    before = list(sys.path)
    assert load_module(f"{tmp_path / 'net.py'}:make").in_features == 3
    assert sys.path == before
