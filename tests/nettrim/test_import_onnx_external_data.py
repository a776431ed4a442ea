"""ONNX models whose weights lie in another file: read from the model's folder, and from nowhere else."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nettrim.importers import load_model
from nettrim.importers.memory_limit import MAX_FILE_BYTES
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, random_floats, write_onnx

MLP = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v", "y")]
CONSTANTS = {"w": random_floats(6, 4), "b": random_floats(4), "v": random_floats(4, 2)}


def write_external(folder: Path, location: str = "m.onnx.data", **options: Any) -> Path:
    """Write a model whose weights lie in another file."""
    path = write_onnx(folder / "m.onnx", MLP, ["N", 6], CONSTANTS)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0, **options)
    return path


def with_entries(path: Path, **entries: str) -> Path:
    """Change where the file says that its first weight lies."""
    model = onnx.load(path, load_external_data=False)
    weight = model.graph.initializer[0]
    known = {entry.key: entry.value for entry in weight.external_data} | entries
    weight.ClearField("external_data")
    for key, value in known.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("shares_a_file", [True, False])
def test_weights_beside_the_model_are_read(tmp_path: Path, shares_a_file: bool) -> None:
    path = write_external(tmp_path, all_tensors_to_one_file=shares_a_file)
    assert (tmp_path / "m.onnx.data").exists() == shares_a_file
    assert_runs_as_in_onnx_runtime(path)


def test_weights_beside_the_model_may_be_far_larger_than_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nettrim.importers.memory_limit.UNCOUNTED_BYTES", 16)
    monkeypatch.setattr("nettrim.importers.memory_limit.MAX_GROWTH", 0)
    assert_runs_as_in_onnx_runtime(write_external(tmp_path))


def test_weights_in_a_folder_below_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    path = write_external(tmp_path, "weights/all")
    inside = load_model(write_onnx(tmp_path / "inside.onnx", MLP, ["N", 6], CONSTANTS))
    samples = random_floats(3, 6)
    np.testing.assert_array_equal(run_graph(load_model(path).graph, samples), run_graph(inside.graph, samples))


def test_what_pytorch_exports_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(6, 400), torch.nn.ReLU(), torch.nn.Linear(400, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that PyTorch raises about itself
        torch.onnx.export(network, (torch.zeros(1, 6),), tmp_path / "m.onnx", dynamo=True, verbose=False)
    assert (tmp_path / "m.onnx.data").exists()
    model = load_model(tmp_path / "m.onnx")
    samples = random_floats(1, 6)
    expected = network(torch.from_numpy(samples)).detach().numpy()
    np.testing.assert_allclose(run_graph(model.graph, samples), expected, atol=1e-6)  # float32 sums


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelFileError, match=r"tensor 'w' lies in 'm.onnx.data', which is not there; keep both files"):
        load_model(path)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path, data = write_external(tmp_path), tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"tensor '.' takes bytes \d+ to \d+ of m.onnx.data, which ends before"):
        load_model(path)


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "a/../../secret", "..", "", "C:\\secret", "a\\b", "c:secret", "//host/share", "a\0b"],
)
def test_files_outside_the_folder_are_refused_unopened(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(96))
    (tmp_path / "models" / "a").mkdir(parents=True)
    path = with_entries(write_external(tmp_path / "models"), location=location)
    with pytest.raises(ModelFileError, match=r"tensor 'w' lies in .*, expected a file in the folder of the model"):
        load_model(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = write_external(tmp_path / "models")
    data = tmp_path / "models" / "m.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match=r"tensor 'w' lies in 'm.onnx.data', a link out of the folder"):
        load_model(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "circle"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path, data = write_external(tmp_path), tmp_path / "m.onnx.data"
    data.unlink()
    if kind == "folder":
        data.mkdir()
    elif kind == "pipe":
        os.mkfifo(data)
    else:
        data.symlink_to(data)
    with pytest.raises(ModelFileError, match=r"tensor 'w' lies in .*(not there|cannot be found)"):
        load_model(path)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"length": "92"}, r"has 92 bytes in another file, expected 96 of shape \(6, 4\)"),
        ({"length": "-1"}, "an offset or length of '-1' in another file, expected a number"),
        ({"offset": "99999999999"}, "takes bytes 99999999999 to 100000000095 of m.onnx.data, which ends before"),
        ({"offset": "9" * 18}, "which ends before"),
        ({"offset": "1" * 5000}, "an offset or length of '1+' in another file, expected a number"),
        ({"offset": "²"}, "an offset or length of '²' in another file, expected a number"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(tmp_path: Path, entries: dict[str, str], reason: str) -> None:
    path = with_entries(write_external(tmp_path), **entries)
    with pytest.raises(ModelFileError, match=reason):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dims": [6, -4]}, r"is float32 of shape \(6, -4\) in another file, expected numbers"),
        ({"data_type": TensorProto.STRING}, "in another file, expected numbers"),
        ({"data_type": 99}, "is of type 99 in another file, expected numbers"),
        ({"dims": [MAX_FILE_BYTES, 4]}, "more than a model may hold"),
    ],
)
def test_shapes_and_types_are_checked_before_anything_is_read(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_external(tmp_path)
    model = onnx.load(path, load_external_data=False)
    weight = model.graph.initializer[0]
    if "dims" in changes:
        weight.dims[:] = changes["dims"]
    weight.data_type = changes.get("data_type", weight.data_type)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=reason):
        load_model(path)


def hidden_tensor() -> TensorProto:
    values = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    values.ClearField("float_data")
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="m.onnx")
    return values


@pytest.mark.parametrize("place", ["node", "function"])
def test_tensors_that_are_no_initializers_stay_inside(tmp_path: Path, place: str) -> None:
    path = write_onnx(tmp_path / "m.onnx", [node("Relu", "x", "y")], ["N", 6], {})
    model, constant = onnx.load(path), node("Constant", "", "w", value=hidden_tensor())
    del model.graph.node[:]
    if place == "node":
        model.graph.node.extend([constant, node("Add", "x w", "y")])
    else:
        imports = [helper.make_opsetid("", 17)]
        model.functions.append(helper.make_function("own", "F", ["a"], ["w"], [constant], imports))
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node.extend([node("F", "x", "f", domain="own"), node("Add", "x f", "y")])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"tensor 'hidden' .*expected that of initializers alone"):
        load_model(path)
