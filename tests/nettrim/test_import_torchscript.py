"""TorchScript: traced and scripted modules, and programs that do more than compute."""

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nettrim.importers import load_model
from nettrim.importers.aten_operators import SCRIPT_HELPERS, TENSOR_OPERATORS
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.onnx_models import op_names
from tests.nettrim.torch_models import Marker, assert_runs_as_in_torch, make_cnn, rewrite

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript itself is deprecated


class Writing(torch.nn.Module):
    """Writes its input into a file whenever it runs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(x, self.path)
        return torch.relu(x)


class Labelled(torch.nn.Module):
    """Has an attribute that is called as torch's namespace of C++ classes is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.classes = ["cat", "dog"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x))


def trace(module: torch.nn.Module) -> Any:
    return torch.jit.trace(module, torch.zeros(1, 2, 8, 6))


@pytest.mark.parametrize("compile_", [torch.jit.script, trace])
def test_torchscript_runs_as_in_torch(tmp_path: Path, compile_: Callable[[Any], Any]) -> None:
    module = make_cnn()
    torch.jit.save(compile_(module), tmp_path / "model.pt")
    model = load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))
    assert_runs_as_in_torch(model, module)
    assert op_names(model) == ["Conv2d", "MaxPool2d", "Reshape", "Dense", "Dense", "Softmax"]
    assert (model.format, model.input_layout) == ("TorchScript", "NCHW")


def test_newer_operators_are_read_although_they_move_the_version_in_the_archive(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GELU()).eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "model.pt")
    assert_runs_as_in_torch(load_model(tmp_path / "model.pt", input_shape=(3,)), module)


def test_program_that_writes_files_is_refused_unless_trusted(tmp_path: Path) -> None:
    written = tmp_path / "written"
    torch.jit.save(torch.jit.script(Writing(written)), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=r"this TorchScript program names save.*--trust-pickle opens it"):
        load_model(tmp_path / "model.pt", input_shape=(3,))
    assert not written.exists()
    torch.jit.load(tmp_path / "model.pt")(torch.zeros(1, 3))
    assert written.exists()


def test_listed_operators_that_take_text_only_format_compare_or_choose_a_mode() -> None:
    listed = TENSOR_OPERATORS | SCRIPT_HELPERS
    schemas = [schema for schema in torch._C._jit_get_all_schemas() if schema.name.rpartition("::")[2] in listed]
    found = {
        each.name.rpartition("::")[2] for each in schemas if any("str" in str(part.type) for part in each.arguments)
    }
    on_text = {
        "warn",
        "format",
        "RaiseException",
        "Float",
        "Int",
        "list",
        "add",
        "split",
        "slice",
        "index",
        "sort",
        "copy",
    }
    on_text |= {"lt", "le", "eq", "ne", "gt", "ge", "len", "keys", "values", "items", "__contains__", "__getitem__"}
    with_mode = {"device", "div", "div_", "conv1d", "conv2d", "_convolution_mode", "pad", "gelu", "annotate"}
    assert found <= on_text | with_mode
    assert not {"save", "from_file", "as_strided", "set_", "resize_"} & listed


def test_program_that_runs_while_the_file_is_opened_is_refused(tmp_path: Path) -> None:
    torch.jit.save(trace(make_cnn()), tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", {"code/__torch__/more.py": b"class More(Module):\n  def __setstate__(self): pass"})
    with pytest.raises(ModelFileError, match="names __setstate__"):
        load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))


def test_custom_class_in_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.jit.save(trace(make_cnn()), tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", {"constants.pkl": b"\x80\x02c__torch__.torch.classes.any\nThing\n)\x81."})
    with pytest.raises(ModelFileError, match=r"names torch\.classes"):
        load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))


@pytest.mark.parametrize(
    "name", ["data.pkl", "constants.pkl", "traced_inputs.pkl", "extra/more.pkl", "code/x.debug_pkl"]
)
def test_marker_in_a_pickle_of_torchscript_never_appears(tmp_path: Path, name: str) -> None:
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    torch.jit.save(trace(make_cnn()), path)
    rewrite(path, {name: pickle.dumps(Marker(marker), protocol=2)})
    with contextlib.suppress(ModelFileError):
        load_model(path, input_shape=(2, 8, 6))
    assert not marker.exists()


def test_program_with_a_suspicious_word_is_opened_when_trusted_and_the_notes_say_so(tmp_path: Path) -> None:
    module = Labelled().eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="names classes"):
        load_model(tmp_path / "model.pt", input_shape=(3,))
    model = load_model(tmp_path / "model.pt", input_shape=(3,), trust_pickle=True)
    assert_runs_as_in_torch(model, module)
    assert "opened with --trust-pickle: the file may have run any code" in model.notes


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_of_two_entries_of_one_name_the_checked_one_is_opened(tmp_path: Path) -> None:
    written, buffer = tmp_path / "written", io.BytesIO()
    torch.jit.save(torch.jit.script(Writing(written)), buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "model.pt", "w") as twice:
        for name in archive.namelist():
            twice.writestr(name, archive.read(name))
        for name in archive.namelist():
            twice.writestr(name, archive.read(name).replace(b"torch.save(x, path)", b"torch.relu(x)"))
    model = load_model(tmp_path / "model.pt", input_shape=(3,))
    assert op_names(model) == ["Activation"]
    assert not written.exists()


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl", "version", "data/0"])
def test_damaged_torchscript_is_an_error_of_one_line(tmp_path: Path, name: str) -> None:
    torch.jit.save(trace(make_cnn()), tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", {name: b"x"})
    with pytest.raises(ModelFileError, match="damaged") as caught:
        load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))
    assert "\n" not in str(caught.value)


def test_torchscript_asks_for_input_shape(tmp_path: Path) -> None:
    torch.jit.save(trace(make_cnn()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="TorchScript needs the shape of one sample"):
        load_model(tmp_path / "model.pt")


class Wide(torch.nn.Module):
    """Buffers of 16 MiB each, four bytes each in the file."""

    def __init__(self) -> None:
        super().__init__()
        for index in range(5):
            self.register_buffer(f"w{index}", torch.zeros(1, 1).expand(1 << 11, 1 << 11))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


def test_tensors_of_strides_of_zero_count_all_together(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Wide()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match="more than a model may hold"):
        load_model(tmp_path / "model.pt", input_shape=(3,))


class Endless(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while True:
            x = x + 1
        return x


class EndlessByValue(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() < 1e9):
            x = torch.relu(x * 1.0)
        return x


class Doubling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(40):
            x = torch.cat([x, x], 1)
        return x


@pytest.mark.slow
@pytest.mark.parametrize("make", [Endless, EndlessByValue])
def test_program_without_an_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type[torch.nn.Module]
) -> None:
    monkeypatch.setattr("nettrim.importers.script_process.TIME_LIMIT_S", 12.0)
    torch.jit.save(torch.jit.script(make()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=r"has not ended after 12 s: a loop in it may have no end") as caught:
        load_model(tmp_path / "model.pt", input_shape=(3,))
    assert "\n" not in str(caught.value)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nobody is left


@pytest.mark.slow
def test_program_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Doubling()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=r"torch cannot export the module .* (memory|alloc)") as caught:
        load_model(tmp_path / "model.pt", input_shape=(1024,))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
class Spreading(torch.nn.Module):
    """One number an input, repeated by a stride of zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1].expand(-1, 100_000_000)


def test_output_that_takes_memory_only_once_it_is_copied_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Spreading()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=r"returns a tensor of shape \(100000000,\), expected at most 16777216"):
        load_model(tmp_path / "model.pt", input_shape=(4,))


def test_files_of_the_working_directory_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.save(trace(make_cnn()), tmp_path / "model.pt")
    for name in ("torch", "numpy", "onnx", "nettrim"):
        (tmp_path / f"{name}.py").write_text("open('marker', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    load_model(tmp_path / "model.pt", input_shape=(2, 8, 6))
    assert not (tmp_path / "marker").exists()


class Squeezed(torch.nn.Module):
    """Has shapes that torch's exporter loses sight of, and parameters that are called as operators are."""

    def __init__(self) -> None:
        super().__init__()
        self.std = torch.nn.Parameter(torch.tensor([1.5, 0.5]))
        self.gamma = torch.nn.Parameter(torch.tensor([0.5, 2.0]))
        self.conv = torch.nn.Conv1d(2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x.view(-1, 5, 2) / self.std * self.gamma).permute(0, 2, 1)
        return torch.max_pool1d(self.conv(x), 3).squeeze(-1)


@pytest.mark.slow
@pytest.mark.parametrize("compile_", [torch.jit.script, lambda module: torch.jit.trace(module, torch.zeros(2, 10))])
def test_shapes_that_an_open_batch_hides_are_known_for_one_sample(
    tmp_path: Path, compile_: Callable[[Any], Any]
) -> None:
    module = Squeezed().eval()
    torch.jit.save(compile_(module), tmp_path / "model.pt")
    assert_runs_as_in_torch(load_model(tmp_path / "model.pt", input_shape=(10,)), module)


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.relu(x), x


class Total(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x).sum()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "expected"), [(Pair, "returns tuple"), (Total, r"returns \(\)")])
def test_network_of_other_outputs_is_refused(tmp_path: Path, make: type[torch.nn.Module], expected: str) -> None:
    torch.jit.save(torch.jit.script(make()), tmp_path / "model.pt")
    with pytest.raises(ModelFileError, match=rf"for 2 samples the network {expected}, expected one tensor"):
        load_model(tmp_path / "model.pt", input_shape=(3,))
