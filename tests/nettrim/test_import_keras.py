"""Keras files: against what Keras computed, against the .tflite of the same network, and what is refused."""

import base64
import io
import json
import marshal
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.onnx_models import op_names
from tests.shared_data import shared_data

Array = npt.NDArray[Any]

MODELS = Path(__file__).parent / "keras_models"  # its make.py says what they are


def run(model: ImportedModel, samples: Array) -> Array:
    shape = model.graph.tensors[model.graph.inputs[0]].shape
    return run_graph(model.graph, samples.reshape(len(samples), *shape))


def run_tflite(path: Path, samples: Array) -> Array:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (entry,), (end,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for sample in samples:
        interpreter.set_tensor(entry["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(end["index"])[0])
    return np.array(outputs)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("stem", ["branches", "stack", "nested", "arithmetic", "activations"])
def test_model_runs_as_in_keras(stem: str, suffix: str) -> None:
    model = load_model(MODELS / f"{stem}.{suffix}")
    with np.load(MODELS / "samples.npz") as samples:
        inputs, expected = (samples[f"{stem}_{part}"] for part in ("inputs", "outputs"))
    np.testing.assert_allclose(run(model, inputs), expected, atol=2e-6)  # probabilities from float32 sums
    assert model.format == "Keras"
    assert model.input_layout == ("flat" if stem in {"stack", "activations"} else "NHWC")


@pytest.mark.parametrize(
    ("name", "twin", "scale"),
    [
        ("mlperf_ic", "mlperf_ic_float32", 255),
        ("tinymaix_mnist_valid", "tinymaix_mnist_valid_f", 1),
        ("tinymaix_mnist_resnet", "tinymaix_mnist_resnet_f", 1),
    ],
)
def test_public_h5_runs_as_its_tflite(name: str, twin: str, scale: float) -> None:
    model = load_model(shared_data(f"models/{name}.h5"))
    samples = scale * np.random.default_rng(0).random((3, *model.source_shape), np.float32)
    expected = run_tflite(shared_data(f"models/{twin}.tflite"), samples)
    np.testing.assert_allclose(run(model, samples), expected, atol=5e-6)  # probabilities from float32 sums
    assert "BatchNormalization" not in op_names(model)


def entry(kind: str, name: str, source: str | None = None, **config: Any) -> dict[str, Any]:
    nodes = [[[source, 0, 0, {}]]] if source else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    first = entry("InputLayer", "in", batch_input_shape=[None, 4])
    ports = {"input_layers": [["in", 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "net", "layers": [first, *layers], **ports}}


def write_h5(path: Path, config: Any, weights: dict[str, dict[str, Array]] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.8.0"
        file.attrs["model_config"] = json.dumps(config)
        for layer, arrays in {"model_weights": {}, **(weights or {})}.items():
            group = file.require_group(f"model_weights/{layer}" if layer != "model_weights" else layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, values in arrays.items():
                group[name] = values
    return path


def write_keras(path: Path, config: Any) -> Path:
    """Write a .keras archive without weights."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", buffer.getvalue())
    return path


def dense_model(path: Path) -> Path:
    weights = {"d": {"d/kernel:0": np.ones((4, 2), np.float32), "d/bias:0": np.zeros(2, np.float32)}}
    return write_h5(path, functional(entry("Dense", "d", "in", activation="relu")), weights)


def test_python_code_in_a_lambda_layer_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = compile(f"import os\nos.mkdir({str(marker)!r})", "net", "exec")
    function = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
    config = functional(entry("Lambda", "l", "in", function=function, function_type="lambda"))
    with pytest.raises(UnsupportedOperatorError, match=r"Lambda \('l'\): it is Python code"):
        load_model(write_h5(tmp_path / "m.h5", config))
    with pytest.raises(UnsupportedOperatorError, match=r"Lambda \('l'\): it is Python code"):
        load_model(write_h5(tmp_path / "m.h5", config), trust_pickle=True)
    assert not marker.exists()


def test_python_code_in_a_keras_archive_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = marshal.dumps(compile(f"import os\nos.mkdir({str(marker)!r})", "net", "exec"))
    function = {"class_name": "__lambda__", "config": {"code": base64.b64encode(code).decode()}}
    own = {"module": "builtins", "class_name": "function", "config": "system", "registered_name": "os.system"}
    config = functional(
        entry("Lambda", "l", "in", function=function),
        entry("Activation", "a", "l", activation=own),
        {**entry("system", "s", "a"), "module": "os", "registered_name": "system"},
    )
    with pytest.raises(
        UnsupportedOperatorError, match=r"Lambda \('l'\): it is Python code.*'system' is a function.*system"
    ):
        load_model(write_keras(tmp_path / "m.keras", config))
    assert not marker.exists()


def test_pickle_in_place_of_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/d/d/kernel:0"]
        file["model_weights/d/d/kernel:0"] = np.void(b"\x80\x02cos\nmkdir\n")
    with pytest.raises(ModelFileError, match="expected numbers"):
        load_model(path)


def test_every_unsupported_layer_is_named(tmp_path: Path) -> None:
    config = functional(
        entry("Attention", "a", "in"),
        entry("Custom>Dense", "b", "a"),
        entry("TFOpLambda", "c", "b", function="math.top_k"),
        entry("Activation", "d", "c", activation="mine"),
        {**entry("Dense", "e", "d"), "module": "__main__", "registered_name": "Package>Dense"},
        entry("Activation", "f", "e", activation={"class_name": "function", "config": "mine"}),
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(write_h5(tmp_path / "m.h5", config))
    for part in (
        "Attention ('a')",
        "Custom>Dense ('b')",
        "calls math.top_k",
        "activation 'mine'",
        "Package>Dense ('e')",
    ):
        assert part in str(caught.value)
    assert "a function of one's own" in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (entry("Conv2D", "x", "in", data_format="channels_first"), "has 0 weights, expected 2"),
        (entry("MaxPooling2D", "x", "in", data_format="channels_first"), "data_format 'channels_first'"),
        (entry("MaxPooling2D", "x", "in"), "its input has 1 axes, expected images"),
        (entry("BatchNormalization", "x", "in", axis=[2]), r"its axis is \[2\]"),
        (entry("Concatenate", "x", "in", axis=0), "its axis is 0"),
        (entry("Add", "x", "in"), "expected two or more inputs"),
        (entry("ReLU", "x", "in", threshold=1.0), "ReLU with threshold 1.0"),
        (entry("Softmax", "x", "in", axis=0), "softmax along axis 0"),
    ],
)
def test_layer_with_other_settings_is_refused_with_the_reason(
    tmp_path: Path, layer: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UnsupportedOperatorError, match=expected):
        load_model(write_h5(tmp_path / "m.h5", functional(layer)))


@pytest.mark.parametrize("sources", [[[["in", 0, 0, {}]]] * 2, [[["in", 0, 0, {}], ["in", 0, 0, {}]]]])
def test_model_within_the_model_that_is_not_applied_once_is_refused(tmp_path: Path, sources: list[Any]) -> None:
    inner = {**functional(entry("Flatten", "f", "in")), "name": "inner", "inbound_nodes": sources}
    with pytest.raises(ModelFileError, match="the model 'inner' within the model"):
        load_model(write_h5(tmp_path / "m.h5", functional(inner), {"inner": {}}))


@pytest.mark.parametrize(
    ("function", "y", "expected"),
    [
        ("__operators__.add", 3.0, lambda x: x + 3),
        ("math.subtract", 3.0, lambda x: x - 3),
        ("math.multiply", 0.5, lambda x: x * 0.5),
        ("math.truediv", 2, lambda x: x / 2),
        ("nn.relu6", None, lambda x: np.clip(x, 0, 6)),
        ("math.multiply", ["in", 0, 0], lambda x: x * x),
    ],
)
def test_functions_that_keras_2_wrote_down_are_computed(
    tmp_path: Path, function: str, y: Any, expected: Callable[[Array], Array]
) -> None:
    call = {"class_name": "TFOpLambda", "name": "f", "config": {"name": "f", "function": function}}
    call["inbound_nodes"] = [["in", 0, 0, {"y": y, "name": None}]]
    model = load_model(write_h5(tmp_path / "m.h5", functional(call)))
    samples = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(model, samples), expected(samples), atol=1e-6)  # one float32 operation


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (entry("PReLU", "x", "in"), "one slope a channel"),
        (entry("Normalization", "x", "in", invert=True), "not inverted"),
        (entry("Rescaling", "x", "in", scale=[[1.0]]), r"constants of shape \(1, 1\)"),
        ({**entry("Add", "x"), "inbound_nodes": [{"args": [1.0, 2.0], "kwargs": {}}]}, "applied to nothing"),
    ],
)
def test_arithmetic_with_other_settings_is_refused(tmp_path: Path, layer: dict[str, Any], expected: str) -> None:
    with pytest.raises((UnsupportedOperatorError, ModelFileError), match=expected):
        load_model(write_h5(tmp_path / "m.h5", functional(layer)))


def test_sigmoid_spelled_out_with_an_exponential_is_read_as_one(tmp_path: Path) -> None:
    def pair(kind: str, name: str, *arguments: str | float) -> dict[str, Any]:
        parts = [
            {"class_name": "__keras_tensor__", "config": {"keras_history": [part, 0, 0]}}
            if isinstance(part, str)
            else part
            for part in arguments
        ]
        return {**entry(kind, name), "inbound_nodes": [{"args": parts, "kwargs": {}}]}

    negative, power = pair("Multiply", "n", "in", -1.0), entry("Activation", "e", "n", activation="exponential")
    config = functional(negative, power, pair("Add", "s", "e", 1.0), pair("TrueDivide", "q", 1.0, "s"))
    model = load_model(write_keras(tmp_path / "m.keras", config))
    samples = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(model, samples), 1 / (1 + np.exp(-samples)), atol=1e-6)  # float32
    assert op_names(model) == ["UnaryFunction"]


@pytest.mark.parametrize("function", ["selu", "elu", "softplus", "softsign", "mish"])
def test_function_without_an_operator_is_refused_by_its_keras_name(tmp_path: Path, function: str) -> None:
    path = write_h5(tmp_path / "m.h5", functional(entry("Activation", "x", "in", activation=function)))
    with pytest.raises(UnsupportedOperatorError, match=rf"layers: Activation \('x'\): activation '{function}'"):
        load_model(path)


@pytest.mark.parametrize("kind", ["ELU", "Maximum", "Minimum"])
def test_layer_without_an_operator_is_refused_by_its_keras_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=rf"layers: {kind} \('x'\)"):
        load_model(write_h5(tmp_path / "m.h5", functional(entry(kind, "x", "in"))))


def test_weights_in_another_file_are_not_followed(tmp_path: Path) -> None:
    path, other = dense_model(tmp_path / "m.h5"), dense_model(tmp_path / "other.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/d/d"]
        file["model_weights/d/d"] = h5py.ExternalLink(str(other), "model_weights/d/d")
    with pytest.raises(ModelFileError, match="'d' is a ExternalLink"):
        load_model(path)


def test_numbers_in_another_file_are_not_read(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "m.h5")
    (tmp_path / "secret").write_bytes(bytes(32))
    with h5py.File(path, "a") as file:
        del file["model_weights/d/d/kernel:0"]
        outside = [(str(tmp_path / "secret"), 0, 32)]
        file["model_weights/d/d"].create_dataset("kernel:0", (4, 2), "f4", external=outside)
    with pytest.raises(ModelFileError, match="lies in another file"):
        load_model(path)


def test_small_file_that_claims_huge_weights_is_refused_unread(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/d/d/kernel:0"]
        file["model_weights/d/d"].create_dataset("kernel:0", (1 << 20, 1 << 20), "f4", chunks=(16, 16))
    with pytest.raises(ModelFileError, match="more than a model may hold"):
        load_model(path)


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"class_name": "Functional"},
        {"class_name": "Functional", "config": {"layers": []}},
        {"class_name": "Sequential", "config": []},
        functional(entry("Dense", "d", "nowhere")),
        functional(entry("Dense", "in", "in")),
        functional({"class_name": "Dense", "name": "d", "config": {"name": "d"}, "inbound_nodes": []}),
        functional(entry("Flatten", "f", "f")),
    ],
)
def test_configuration_that_is_no_network_is_an_error_of_one_line(tmp_path: Path, config: Any) -> None:
    with pytest.raises((ModelFileError, UnsupportedOperatorError)) as caught:
        load_model(write_h5(tmp_path / "m.h5", config))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "m.h5") in str(caught.value)


def test_deeply_nested_configuration_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = "[" * 20000
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("name", ["stack.h5", "stack.keras"])
def test_file_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    data = (MODELS / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(tmp_path / name)


def test_damaged_file_gives_a_model_or_a_clear_error(tmp_path: Path) -> None:
    path, rng = tmp_path / "m.h5", np.random.default_rng(0)
    data = dense_model(path).read_bytes()
    for _ in range(40):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_model(path)
        except (ModelFileError, UnsupportedOperatorError) as error:
            assert str(path) in str(error)  # noqa: PT017  not raising is right as well


def test_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(MODELS / "stack.keras") as archive:
        config = json.loads(archive.read("config.json"))
    with pytest.raises(UnsupportedOperatorError, match="has 0 weights, expected 1"):
        load_model(write_keras(tmp_path / "m.keras", config))


def test_weights_alone_are_refused_with_what_to_save(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
    with pytest.raises(ModelFileError, match=r"save the whole model with model\.save"):
        load_model(path)


def test_sequential_model_without_a_shape_asks_for_it(tmp_path: Path) -> None:
    weights = {"d": {"kernel": np.ones((4, 2), np.float32), "bias": np.zeros(2, np.float32)}}
    layers = [{"class_name": "Dense", "config": {"name": "d"}}]
    path = write_h5(tmp_path / "m.h5", {"class_name": "Sequential", "config": layers}, weights)
    with pytest.raises(ModelFileError, match="--input-shape"):
        load_model(path)
    assert load_model(path, input_shape=(4,)).source_shape == (4,)


def test_missing_h5py_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dense_model(tmp_path / "m.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModelFileError, match=r"pip install nettrim\[keras\]"):
        load_model(path)


def test_weights_that_were_never_written_count_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nettrim.importers.memory_limit.MAX_FILE_BYTES", 1 << 20)
    path = dense_model(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        group = file["model_weights/d"]
        names = [f"w{index}" for index in range(5)]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name in names:
            group.create_dataset(name, (1 << 16,), "int8", chunks=(1 << 10,))  # 256 KiB as floats
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ModelFileError, match=r"with tensor 'w4' .* more than a model may hold"):
        load_model(path)


def test_huge_description_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = write_keras(tmp_path / "m.keras", " " * (16 << 20))
    with pytest.raises(ModelFileError, match=r"config\.json has 16777218 bytes, more than a model may hold"):
        load_model(path)
