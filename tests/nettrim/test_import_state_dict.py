"""PyTorch state dicts that are plain chains of Linear and ReLU."""

import argparse
import sys
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nettrim.importers import load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.ops import ActivationFunction, Dense
from tests.shared_data import shared_data


def save(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    generator = torch.Generator().manual_seed(0)
    torch.save(OrderedDict((name, torch.randn(shape, generator=generator)) for name, shape in shapes.items()), path)
    return path


def test_lenet_300_100_runs_as_in_torch() -> None:
    path = shared_data("models/lenet_300_100_mnist.pt")
    model = load_model(path)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    module = torch.nn.Sequential(linear(784, 300), relu(), linear(300, 100), relu(), linear(100, 10))
    module.load_state_dict(torch.load(path, weights_only=True))
    samples = np.random.default_rng(0).random((20, 784), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(run_graph(model.graph, samples), expected, atol=1e-4)  # float32 sums of 784 terms
    recognised = "weights recognised as Linear 784-300, ReLU, Linear 300-100, ReLU, Linear 100-10"
    assert model.notes == (recognised, "transposes left: 0")
    assert (model.input_layout, model.source_shape, model.format) == ("flat", (784,), "PyTorch state dict")


def test_layers_follow_the_natural_order_of_their_names(tmp_path: Path) -> None:
    shapes = {f"fc{number}.weight": (number + 1, number) for number in (10, 9, 11)}
    model = load_model(save(tmp_path / "m.pt", shapes))
    assert [layer.name for layer in model.graph.layers] == ["fc9", "fc10", "fc11"]


def test_layers_follow_the_order_of_the_file_when_names_say_nothing(tmp_path: Path) -> None:
    shapes = {"input.weight": (5, 4), "hidden.weight": (6, 5), "head.weight": (2, 6)}
    model = load_model(save(tmp_path / "m.pt", shapes))
    assert [layer.name for layer in model.graph.layers] == ["input", "hidden", "head"]


def test_last_layer_stays_linear_and_missing_biases_are_zero(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m.pt", {"a.weight": (5, 4), "b.weight": (2, 5), "b.bias": (2,)}))
    first, last = model.graph.layers
    assert isinstance(first, Dense)
    assert isinstance(last, Dense)
    assert (first.activation, last.activation) == (ActivationFunction.RELU, ActivationFunction.NONE)
    assert not model.graph.tensors[first.bias].values().any()
    assert model.graph.tensors[last.bias].values().all()


def test_single_linear_layer_without_a_prefix_is_a_chain(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m.pt", {"weight": (2, 4), "bias": (2,)}))
    assert [layer.name for layer in model.graph.layers] == ["linear"]


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_checkpoint_and_wrapper_prefix_are_unwrapped(tmp_path: Path, key: str) -> None:
    state = {"module.fc.weight": torch.ones(2, 4), "module.fc.bias": torch.ones(2)}
    torch.save({"epoch": 3, key: state, "best": 0.5}, tmp_path / "m.pth")
    model = load_model(tmp_path / "m.pth")
    assert model.graph.layers[0].name == "fc"
    assert model.notes[:2] == (
        f"state dict found under '{key}' of a checkpoint",
        "prefix 'module.' removed from every name",
    )


def test_state_dict_is_known_by_its_content(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", {"weight": (2, 4)})
    assert load_model(path).format == "PyTorch state dict"


def test_input_shape_of_an_image_is_taken_over(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt", {"weight": (2, 12)})
    assert load_model(path, input_shape=(1, 3, 4)).source_shape == (1, 3, 4)
    with pytest.raises(ModelFileError, match="--input-shape 5,5 has 25 values, the first layer takes 12"):
        load_model(path, input_shape=(5, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({"weight": torch.full((2, 4), 0.5, dtype=dtype)}, tmp_path / "m.pt")
    graph = load_model(tmp_path / "m.pt").graph
    np.testing.assert_array_equal(graph.tensors[graph.layers[0].weight].values(), np.full((2, 4), 0.5, np.float32))


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"conv.weight": (4, 1, 3, 3), "fc.weight": (2, 4)}, r"'conv\.weight' has shape \(4, 1, 3, 3\)"),
        ({"fc.weight": (2, 4), "bn.running_mean": (2,)}, r"'bn\.running_mean' is not the weight or bias"),
        ({"a.weight": (3, 4), "b.weight": (2, 5)}, "do not follow one from the other"),
        ({"fc.weight": (2, 4), "fc.bias": (3,)}, r"'fc\.bias' has shape \(3,\)"),
        ({"b.weight": (4, 4), "a.weight": (4, 4)}, "in the order of the file and in the order of their names"),
    ],
)
def test_other_networks_ask_for_their_code(tmp_path: Path, shapes: dict[str, tuple[int, ...]], reason: str) -> None:
    with pytest.raises(ModelFileError, match=rf"not a plain chain .*{reason}.*--arch FILE\.py:FACTORY"):
        load_model(save(tmp_path / "m.pt", shapes))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"weight": torch.full((2, 4), float("nan"))}, "holds NaN or infinity"),
        ({"weight": torch.ones(2, 4, dtype=torch.int32)}, r"torch\.int32"),
        ({"weight": torch.ones(1).expand(1 << 20, 1 << 20)}, "more than a model may hold"),
        ({"epoch": 3, "lr": 0.1}, "a dict with the keys 'epoch', 'lr'"),
        ({}, "an empty dict"),
        (torch.ones(3), "one Tensor"),
        ([torch.ones(3)], "one list"),
    ],
)
def test_files_without_usable_weights_are_refused(tmp_path: Path, content: Any, expected: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=expected):
        load_model(tmp_path / "m.pt")


def test_missing_torch_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "m.pt", {"weight": (2, 4)})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelFileError, match=r"pip install nettrim\[torch\]"):
        load_model(path)


def test_tensors_of_strides_of_zero_count_all_together(tmp_path: Path) -> None:
    layer = torch.zeros(1, 1).expand(1 << 11, 1 << 11)  # 16 MiB
    torch.save({f"{index}.weight": layer for index in range(5)}, tmp_path / "m.pt")
    with pytest.raises(ModelFileError, match=r"with tensor '4\.weight' .* more than a model may hold"):
        load_model(tmp_path / "m.pt")


@pytest.mark.parametrize(("mebibytes", "fits"), [(16, True), (65, False)])
def test_small_file_makes_little(tmp_path: Path, mebibytes: int, fits: bool) -> None:
    rows = torch.zeros(1, 256).expand(mebibytes << 10, 256)
    torch.save({"weight": rows}, tmp_path / "m.pt")
    if fits:
        assert load_model(tmp_path / "m.pt").graph.layers[0].name == "linear"
        return
    with pytest.raises(ModelFileError, match=r"more than a model may hold \(67108864\) in a file of this size"):
        load_model(tmp_path / "m.pt")


def test_file_of_large_tensors_may_make_four_times_its_size(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(1 << 10, 17 << 10, dtype=torch.float16)}  # 34 MiB, 68 as floats
    torch.save(state, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").graph.layers[0].name == "linear"


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["model_best.pth.tar", "checkpoint.th"])
def test_checkpoint_of_a_training_script_is_read_whatever_it_is_called(tmp_path: Path, name: str, is_zip: bool) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    content = {"epoch": 3, "arch": "net", "best_prec1": 0.9, "args": argparse.Namespace(lr=0.1, layers=[3, 2])}
    content |= {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    assert "state dict found under 'state_dict' of a checkpoint" in load_model(tmp_path / name).notes


def test_archive_of_the_oldest_pytorch_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.pt", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ModelFileError, match="tar archive, as the oldest PyTorch wrote; load it with PyTorch and save"):
        load_model(tmp_path / "model.pt")
