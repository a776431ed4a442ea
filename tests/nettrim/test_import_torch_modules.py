"""Whole modules that torch.save wrote: standard layers are opened safely, anything else only with --trust-pickle."""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from nettrim.importers import load_model
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.onnx_models import op_names
from tests.nettrim.torch_models import Marker, assert_runs_as_in_torch, make_cnn, rewrite


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x))


class HostileModule(nn.Sequential):
    """Creates a folder when it is unpickled, and is a working module then."""

    def __init__(self, marker: Path) -> None:
        super().__init__(nn.Linear(3, 2))
        self.marker = Marker(marker)


@pytest.mark.slow
def test_module_of_standard_layers_runs_as_in_torch(tmp_path: Path) -> None:
    module = make_cnn()
    torch.save(module, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))
    assert_runs_as_in_torch(model, module)
    assert op_names(model) == ["Conv2d", "MaxPool2d", "Reshape", "Dense", "Dense", "Softmax"]
    assert (model.format, model.input_layout) == ("PyTorch module", "NCHW")
    assert not any("--trust-pickle" in note for note in model.notes)


@pytest.mark.slow
def test_module_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": nn.Sequential(nn.Linear(3, 2)).double()}, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(3,))
    assert "module found under 'model' of a checkpoint" in model.notes


@pytest.mark.slow
def test_module_of_ones_own_is_opened_when_trusted_and_the_notes_say_so(tmp_path: Path) -> None:
    module = Net().eval()
    torch.save(module, tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(3,), trust_pickle=True)
    assert_runs_as_in_torch(model, module)
    assert "opened with --trust-pickle: the file may have run any code" in model.notes


@pytest.mark.slow
def test_trusting_a_file_that_needs_no_trust_changes_nothing(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 2)), tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(3,), trust_pickle=True)
    assert not any("--trust-pickle" in note for note in model.notes)


@pytest.mark.parametrize("is_zip", [True, False])
def test_module_of_ones_own_is_refused_by_name_with_what_opens_it(tmp_path: Path, is_zip: bool) -> None:
    torch.save(Net(), tmp_path / "model.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ModelFileError, match=rf"asks for {Net.__module__}\.Net\).*--trust-pickle opens it"):
        load_model(tmp_path / "model.pt", input_shape=(3,))


@pytest.mark.parametrize("is_zip", [True, False])
def test_marker_in_a_module_never_appears(tmp_path: Path, is_zip: bool) -> None:
    marker = tmp_path / "marker"
    torch.save(HostileModule(marker), tmp_path / "model.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ModelFileError, match="opening it would run Python code"):
        load_model(tmp_path / "model.pt", input_shape=(3,))
    assert not marker.exists()


def test_marker_appears_when_the_file_is_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "marker"  # shows that the tests for its absence can fail
    torch.save({"w": torch.zeros(2)}, tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", {"data.pkl": pickle.dumps(Marker(marker), protocol=2)})
    with pytest.raises(ModelFileError, match="one NoneType"):
        load_model(tmp_path / "model.pt", trust_pickle=True)
    assert marker.exists()


def test_class_that_is_gone_is_an_error_of_one_line_even_when_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Net(), tmp_path / "model.pt")
    monkeypatch.delattr(f"{Net.__module__}.Net")
    with pytest.raises(ModelFileError, match="PYTHONPATH") as caught:
        load_model(tmp_path / "model.pt", input_shape=(3,), trust_pickle=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        (
            "_forward_hooks",
            OrderedDict({0: torch.Size}),
            "has _forward_hooks, functions that run with it: take them off before saving",
        ),
        ("forward", torch.Size, "replaces its method 'forward'"),
        ("_modules", [nn.Linear(2, 2)], "keeps its parts in a list"),
        ("_parameters", 3, "the module in the file is damaged"),
        ("_buffers", {"0": "text"}, "the module in the file is damaged"),
        ("_modules", {"0": nn.Linear(2, 2), "1": torch.zeros(2)}, r"'module\.1' is a Tensor"),
    ],
)
def test_tampered_standard_layers_are_refused(tmp_path: Path, attribute: str, value: object, expected: str) -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    vars(module)[attribute] = value
    torch.save(module, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=expected):
        load_model(tmp_path / "model.pt", input_shape=(3,))


@pytest.mark.slow
def test_module_that_begins_with_a_linear_layer_tells_its_input(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Dropout(), nn.Linear(3, 2))).eval()
    torch.save(module, tmp_path / "model.pt")
    assert_runs_as_in_torch(load_model(tmp_path / "model.pt"), module)


@pytest.mark.parametrize("layers", [[nn.Conv2d(3, 2, 1)], [nn.ReLU(), nn.Linear(3, 2)], [nn.Flatten()], []])
def test_module_asks_for_input_shape_and_takes_no_arch(tmp_path: Path, layers: list[nn.Module]) -> None:
    torch.save(nn.Sequential(*layers), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="a pickled module needs the shape of one sample"):
        load_model(tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="carries its own network"):
        load_model(tmp_path / "model.pt", arch="net.py:make", input_shape=(3,))


def test_state_dict_from_before_version_1_6_is_read(tmp_path: Path) -> None:
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2)}
    torch.save(state, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    assert [layer.name for layer in load_model(tmp_path / "model.pt").graph.layers] == ["fc"]


@pytest.mark.parametrize(
    ("wrap", "asked"),
    [
        (
            lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
            r"torch\.nn\.utils\.prune\.L1Unstructured",
        ),
        (nn.utils.spectral_norm, r"torch\.nn\.utils\.spectral_norm\.SpectralNorm"),
    ],
)
def test_wrapped_layers_are_refused_with_how_to_unwrap_them(
    tmp_path: Path, wrap: Callable[[nn.Module], nn.Module], asked: str
) -> None:
    torch.save(nn.Sequential(wrap(nn.Linear(3, 2))), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=rf"asks for .*{asked}.*; take off what wraps its layers \(prune\.remove"):
        load_model(tmp_path / "model.pt", input_shape=(3,))


def nested(levels: int, copies: int) -> nn.Sequential:
    module = nn.Sequential(nn.Linear(3, 3))
    for _ in range(levels):
        module = nn.Sequential(*[module] * copies)
    return module


def within_itself() -> nn.Sequential:
    module = nn.Sequential(nn.Linear(3, 3))
    vars(module)["_modules"]["1"] = module
    return module


@pytest.mark.parametrize("make", [within_itself, lambda: nested(100, 1), lambda: nested(40, 2)])
def test_parts_without_end_are_refused(tmp_path: Path, make: Callable[[], nn.Sequential]) -> None:
    torch.save(make(), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="the module holds itself, more than"):
        load_model(tmp_path / "model.pt", input_shape=(3,))


def test_deeper_module_than_python_can_walk_is_refused(tmp_path: Path) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # for torch.save
    try:
        torch.save(nested(1500, 1), tmp_path / "model.pt")
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(ModelFileError, match="the module holds itself, more than"):
        load_model(tmp_path / "model.pt", input_shape=(3,))


@pytest.mark.slow
def test_part_that_stands_twice_is_read(tmp_path: Path) -> None:
    module = nested(2, 2)
    torch.save(module, tmp_path / "model.pt")
    assert_runs_as_in_torch(load_model(tmp_path / "model.pt", input_shape=(3,)), module)


@pytest.mark.parametrize("kind", ["weight", "buffer"])
def test_tensors_of_strides_of_zero_count_all_together(tmp_path: Path, kind: str) -> None:
    module = nn.Sequential(*[nn.Linear(3, 3) for _ in range(5)])
    for part in module:
        values = torch.zeros(1, 1).expand(1 << 11, 1 << 11)  # 16 MiB
        if kind == "weight":
            part.weight = nn.Parameter(values, requires_grad=False)
        else:
            part.register_buffer(kind, values)
    torch.save(module, tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=rf"with tensor '3\.{kind}' .* more than a model may hold"):
        load_model(tmp_path / "model.pt", input_shape=(3,))
