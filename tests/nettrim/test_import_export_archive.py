"""PyTorch export archives (.pt2): read without unpickling or evaluating anything in them."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from nettrim.importers import load_model
from nettrim.importers.aten_calls import find_call, read_literal
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.onnx_models import op_names
from tests.nettrim.torch_models import Marker, assert_runs_as_in_torch, make_cnn, rewrite

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`:FutureWarning")  # torch's own

WEIGHTS, PROGRAM = "data/weights/model_weights_config.json", "models/model.json"


class Branches(nn.Module):
    """Sizes computed from the batch, several arguments of each kind, an operator with two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.norm(self.stem(x)))
        x = torch.cat([torch.relu(self.depthwise(x) + x), x], 1)
        return torch.softmax(self.head(functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)), dim=1)


class Cosine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


def save(path: Path, module: nn.Module, *shape: int, batch: int = 2) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if batch == 2 else None
    torch.export.save(torch.export.export(module, (torch.zeros(batch, *shape),), dynamic_shapes=shapes), path)
    return path


def small(path: Path) -> Path:
    return save(path, nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), 3)


def entry(path: Path, name: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(f"{archive.namelist()[0].partition('/')[0]}/{name}"))


def edit(path: Path, name: str, change: Callable[[Any], object]) -> None:
    content = entry(path, name)
    change(content)
    rewrite(path, {name: json.dumps(content).encode()})


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("make", [make_cnn, Branches])
def test_archive_runs_as_in_torch(tmp_path: Path, make: Callable[[], nn.Module], batch: int) -> None:
    module = make().eval()
    model = load_model(save(tmp_path / "model.pt2", module, 2, 8, 6, batch=batch))
    assert_runs_as_in_torch(model, module)
    assert (model.source_shape, model.input_layout, model.format) == ((2, 8, 6), "NCHW", "PyTorch export archive")
    assert model.graph.layers[0].name == ("0" if make is make_cnn else "stem")


@pytest.mark.slow
def test_markers_in_pickles_of_an_archive_never_appear(tmp_path: Path) -> None:
    path, marker = small(tmp_path / "model.pt2"), tmp_path / "marker"
    hostile = pickle.dumps(Marker(marker))
    names = ("data/sample_inputs/model.pt", "data/constants/custom_obj_0", "extra/more.pkl", "data/weights/model.pt")
    rewrite(path, dict.fromkeys(names, hostile))
    assert op_names(load_model(path)) == ["Dense"]
    assert not marker.exists()


@pytest.mark.slow
def test_python_in_sizes_and_guards_is_not_evaluated(tmp_path: Path) -> None:
    path, marker = small(tmp_path / "model.pt2"), tmp_path / "marker"
    code = f"__import__('os').mkdir({str(marker)!r})"

    def plant(program: Any) -> None:
        program["guards_code"] = [code]
        for tensor in program["graph_module"]["graph"]["tensor_values"].values():
            for size in tensor["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    edit(path, PROGRAM, plant)
    assert op_names(load_model(path)) == ["Dense"]
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever torch makes of it: the text has been run by then
        torch.export.load(path)
    assert marker.exists()


def test_pickled_weight_is_refused_and_opened_only_when_trusted(tmp_path: Path) -> None:
    path, marker = small(tmp_path / "model.pt2"), tmp_path / "marker"
    edit(path, WEIGHTS, lambda content: content["config"]["0.bias"].update(use_pickle=True))
    name = entry(path, WEIGHTS)["config"]["0.bias"]["path_name"]
    rewrite(path, {f"data/weights/{name}": pickle.dumps(Marker(marker), protocol=2)})
    with pytest.raises(ModelFileError, match=r"'0\.bias' is a pickled object.*--trust-pickle opens it"):
        load_model(path)
    assert not marker.exists()


@pytest.mark.slow
def test_pickled_weight_is_read_when_the_file_is_trusted(tmp_path: Path) -> None:
    path, buffer = small(tmp_path / "model.pt2"), io.BytesIO()
    edit(path, WEIGHTS, lambda content: content["config"]["0.bias"].update(use_pickle=True))
    torch.save(nn.Parameter(torch.tensor([1.0, 2.0])), buffer)
    rewrite(path, {f"data/weights/{entry(path, WEIGHTS)['config']['0.bias']['path_name']}": buffer.getvalue()})
    model = load_model(path, trust_pickle=True)
    assert model.graph.tensors[model.graph.layers[0].bias].values().tolist() == [1.0, 2.0]
    assert "opened with --trust-pickle: the file may have run any code" in model.notes


@pytest.mark.parametrize(
    "target",
    [
        *(
            "torch.ops.aten.from_file.default",
            "torch.hub.os.system",
            "_operator.attrgetter",
            "math.sin",
            "#x:y",
            "eval",
        ),
        *("torch.ops.aten.neg.__getattribute__", "torch.ops.aten.neg.__setattr__", "torch.ops.aten.neg.__getattr__"),
        *("torch.ops.aten.neg.op", "torch.ops.aten.neg.default.__call__", "torch.ops.aten.mul.left_t"),
        *("torch.ops.aten.add.str", "torch.ops.aten.__class__", "torch.ops.aten.float.default"),
    ],
)
def test_other_operators_are_refused_by_name(tmp_path: Path, target: str) -> None:
    path = small(tmp_path / "model.pt2")
    edit(path, PROGRAM, lambda content: content["graph_module"]["graph"]["nodes"][0].update(target=target))
    with pytest.raises(UnsupportedOperatorError, match=rf"unsupported operators: {target}"):
        load_model(path)


def call(target: str, output: str, *arguments: dict[str, Any]) -> dict[str, Any]:
    inputs = [{"name": "a", "arg": argument, "kind": 1} for argument in arguments]
    return {"target": target, "inputs": inputs, "outputs": [{"as_tensor": {"name": output}}], "metadata": {}}


def test_methods_of_operators_are_not_called(tmp_path: Path) -> None:
    path, marker = small(tmp_path / "model.pt2"), tmp_path / "marker"
    neg, code = "torch.ops.aten.neg", f"__import__('os').mkdir({str(marker)!r})"
    chain = [
        call(f"{neg}.__getattribute__", "v", {"as_string": "__call__"}),
        call(f"{neg}.__setattr__", "n", {"as_string": "_op"}, {"as_name": "v"}),
        call(f"{neg}.__getattr__", "globals", {"as_string": "__globals__"}),
        call("_operator.getitem", "builtins", {"as_name": "globals"}, {"as_string": "__builtins__"}),
        call("_operator.getitem", "exec", {"as_name": "builtins"}, {"as_string": "exec"}),
        call("torch.ops.aten.abs.__setattr__", "m", {"as_string": "default"}, {"as_name": "exec"}),
        call("torch.ops.aten.abs.default", "done", {"as_string": code}),
    ]
    edit(path, PROGRAM, lambda content: content["graph_module"]["graph"]["nodes"].__setitem__(slice(0, 0), chain))
    with pytest.raises(UnsupportedOperatorError, match=r"neg\.__getattribute__, torch\.ops\.aten\.neg\.__setattr__"):
        load_model(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("_operator.mul", ("a", 1 << 31)),
        ("_operator.mul", ([1], 1 << 31)),
        ("_operator.add", ("a", "b")),
        ("_operator.add", (1 << 63, 1)),
        ("_operator.getitem", ("ab", 0)),
        ("_operator.getitem", ({"a": 1}, "a")),
        ("_operator.getitem", ([1, 2], "a")),
        ("math.ceil", ("a",)),
    ],
)
def test_python_operators_take_numbers_alone(target: str, arguments: tuple[Any, ...]) -> None:
    function = find_call(torch, target)
    assert function is not None
    with pytest.raises(TypeError, match=r"expected (numbers of 64 bits|one of several outputs)"):
        function(*arguments)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("as_int", "a"),
        ("as_int", 1 << 63),
        ("as_ints", [1, "a"]),
        ("as_float", "a"),
        ("as_bool", [1]),
        ("as_string", 1),
    ],
)
def test_literals_are_of_their_kind(kind: str, entry: Any) -> None:
    with pytest.raises(TypeError, match=f"{kind} holds"):
        read_literal(kind, entry)


@pytest.mark.slow
def test_text_is_not_multiplied(tmp_path: Path) -> None:
    path = small(tmp_path / "model.pt2")
    node = call("_operator.mul", "v", {"as_string": "a"}, {"as_int": 2})

    def plant(content: Any) -> None:
        nodes = content["graph_module"]["graph"]["nodes"]
        nodes[0]["inputs"][2]["arg"] = {"as_name": "v"}
        nodes.insert(0, node)

    edit(path, PROGRAM, plant)
    with pytest.raises(ModelFileError, match="torch cannot export the module"):
        load_model(path)


@pytest.mark.slow
def test_what_the_output_does_not_need_is_not_computed(tmp_path: Path) -> None:
    path = small(tmp_path / "model.pt2")
    doubled = [{"as_tensors": [{"name": "input"}] * 2}, {"as_int": 1}]
    chain = [call("torch.ops.aten.cat.default", "v0", *doubled)]
    for index in range(40):
        parts = {"as_tensors": [{"name": f"v{index}"}] * 2}
        chain.append(call("torch.ops.aten.cat.default", f"v{index + 1}", parts, {"as_int": 1}))
    edit(path, PROGRAM, lambda content: content["graph_module"]["graph"]["nodes"].extend(chain))
    assert op_names(load_model(path)) == ["Dense"]


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2.0
        y.add_(torch.sigmoid(x))
        return y - 1.0


@pytest.mark.slow
def test_what_changes_a_value_in_place_is_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt2", nn.Sequential(nn.Linear(3, 2), InPlace()).eval(), 3)
    assert_runs_as_in_torch(load_model(path), torch.export.load(path).module())


def test_unsupported_operator_of_an_honest_archive_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt2", Cosine(), 4)
    with pytest.raises(UnsupportedOperatorError, match=r"torch\.ops\.aten\._?fft"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (WEIGHTS, lambda c: c["config"]["0.weight"]["tensor_meta"].update(sizes=[{"as_int": 99}] * 2), "damaged"),
        (WEIGHTS, lambda c: c["config"]["0.weight"]["tensor_meta"].update(strides=[{"as_int": -1}] * 2), "damaged"),
        (WEIGHTS, lambda c: c["config"]["0.weight"]["tensor_meta"].update(dtype=99), "damaged"),
        (WEIGHTS, lambda c: c["config"]["0.weight"].update(path_name="../x"), "damaged"),
        (
            WEIGHTS,
            lambda c: c["config"]["0.weight"]["tensor_meta"].update(
                sizes=[{"as_int": 1 << 20}] * 2, strides=[{"as_int": 0}] * 2
            ),
            "more than a model may hold",
        ),
        (PROGRAM, lambda c: c.pop("graph_module"), "damaged"),
        (PROGRAM, lambda c: c["graph_module"]["graph"].pop("nodes"), "damaged"),
        (PROGRAM, lambda c: c["graph_module"]["graph"]["nodes"][0].pop("target"), "does not follow torch's schema"),
        (PROGRAM, lambda c: c["graph_module"]["graph"]["nodes"][0].pop("outputs"), "does not follow torch's schema"),
        (PROGRAM, lambda c: c["graph_module"]["graph"]["nodes"].append(3), "does not follow torch's schema"),
    ],
)
def test_damaged_archive_is_an_error_of_one_line(
    tmp_path: Path, name: str, change: Callable[[Any], object], expected: str
) -> None:
    path = small(tmp_path / "model.pt2")
    edit(path, name, change)
    with pytest.raises(ModelFileError, match=expected) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], [{"name": "input", "arg": {"as_graph": {}}, "kind": 1}], "x"])
def test_call_with_unusable_arguments_is_an_error_of_one_line(tmp_path: Path, arguments: Any) -> None:
    path = small(tmp_path / "model.pt2")
    edit(path, PROGRAM, lambda content: content["graph_module"]["graph"]["nodes"][0].update(inputs=arguments))
    with pytest.raises(ModelFileError, match="torch cannot export the module") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1 << 40, 0, "3"])
def test_unusable_sizes_of_the_input_are_refused(tmp_path: Path, size: Any) -> None:
    path = small(tmp_path / "model.pt2")
    edit(path, PROGRAM, lambda c: c["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][1].update(as_int=size))
    with pytest.raises(ModelFileError):
        load_model(path)


def test_fixed_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(4, 3),)), path)
    with pytest.raises(ModelFileError, match="batches of 4 samples alone") as caught:
        load_model(path)
    assert "--trust-pickle" not in str(caught.value)


def test_archive_from_before_2_8_says_what_opens_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(ModelFileError, match="--trust-pickle opens it"):
        load_model(tmp_path / "model.pt2")


def test_entries_that_read_one_payload_count_each(tmp_path: Path) -> None:
    path = small(tmp_path / "model.pt2")

    def repeat(content: Any) -> None:
        bias = content["config"]["0.bias"]
        bias["tensor_meta"].update(sizes=[{"as_int": 1 << 22}], strides=[{"as_int": 0}])  # 16 MiB as floats
        content["config"] |= {f"more{index}": bias for index in range(16)}

    edit(path, WEIGHTS, repeat)
    with pytest.raises(ModelFileError, match=r"with tensor 'more\d+' .* more than a model may hold") as caught:
        load_model(path)
    assert "--trust-pickle" not in str(caught.value)


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS])
def test_huge_description_is_refused_before_it_is_parsed(tmp_path: Path, name: str) -> None:
    path = small(tmp_path / "model.pt2")
    rewrite(path, {name: bytes((16 << 20) + 1)})
    with pytest.raises(ModelFileError, match=f"{name} has 16777217 bytes, more than a model may hold"):
        load_model(path)
