"""Every layer of torch.nn that can be carried over, from every kind of PyTorch file, against torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from nettrim.importers import ImportedModel, load_model
from nettrim.importers.standard_layers import STANDARD_LAYERS
from tests.nettrim.torch_layers import LAYERS, make_layer
from tests.nettrim.torch_models import assert_runs_as_in_torch, scripts_in_this_process

__all__ = ["scripts_in_this_process"]  # a fixture

pytestmark = [
    pytest.mark.usefixtures("scripts_in_this_process"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # TorchScript itself is deprecated
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # constants in a trace
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`:FutureWarning"),  # torch's own
]

Load = Callable[[str, Path], ImportedModel]


def load_pickled_or_with_arch(name: str, folder: Path) -> ImportedModel:
    """Load a module of torch.nn's own layers as a whole, any other one's weights with its code."""
    module, shape = make_layer(name), LAYERS[name][1]
    if is_standard(module):
        torch.save(module, folder / "model.pt")
        return load_model(folder / "model.pt", input_shape=shape)
    return load_with_arch(name, folder)


def load_with_arch(name: str, folder: Path) -> ImportedModel:
    torch.save(make_layer(name).state_dict(), folder / "model.pt")
    code = f"from {make_layer.__module__} import make_layer\n\ndef make():\n    return make_layer({name!r})\n"
    (folder / "net.py").write_text(code)
    return load_model(folder / "model.pt", input_shape=LAYERS[name][1], arch=f"{folder / 'net.py'}:make")


def load_scripted(name: str, folder: Path) -> ImportedModel:
    torch.jit.save(torch.jit.script(make_layer(name)), folder / "model.pt")
    return load_model(folder / "model.pt", input_shape=LAYERS[name][1])


def load_traced(name: str, folder: Path) -> ImportedModel:
    torch.jit.save(torch.jit.trace(make_layer(name), torch.zeros(2, *LAYERS[name][1])), folder / "model.pt")
    return load_model(folder / "model.pt", input_shape=LAYERS[name][1])


def load_exported(name: str, folder: Path) -> ImportedModel:
    program = torch.export.export(make_layer(name), (torch.zeros(1, *LAYERS[name][1]),))
    torch.export.save(program, folder / "model.pt2")
    return load_model(folder / "model.pt2")


def is_standard(module: nn.Module) -> bool:
    return all(type(part).__module__.startswith("torch.nn") for part in module.modules())


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_pickled_or_with_arch, load_scripted, load_traced, load_exported])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_runs_as_in_torch(tmp_path: Path, name: str, load: Load) -> None:
    assert_runs_as_in_torch(load(name, tmp_path), make_layer(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Conv2d", "BatchNorm2d", "PReLU", "LayerNorm"])
def test_standard_layer_takes_its_weights_with_its_code_too(tmp_path: Path, name: str) -> None:
    assert_runs_as_in_torch(load_with_arch(name, tmp_path), make_layer(name))


@pytest.mark.slow
def test_program_of_any_batch_runs_as_in_torch(tmp_path: Path) -> None:
    batch = {0: torch.export.Dim("batch")}
    for name in ("ConvTranspose2d", "reshape", "chunk", "Embedding"):
        sample = torch.zeros(2, *LAYERS[name][1])
        program = torch.export.export(make_layer(name), (sample,), dynamic_shapes=(batch,))
        torch.export.save(program, tmp_path / "model.pt2")
        assert_runs_as_in_torch(load_model(tmp_path / "model.pt2"), make_layer(name))


def test_modules_of_torchs_own_layers_are_tested_as_pickles() -> None:
    tested = {type(part).__name__ for name in LAYERS for part in make_layer(name).modules() if is_standard(part)}
    assert len(tested & set(STANDARD_LAYERS)) > 30
