"""ONNX GRU and LSTM, against ONNX Runtime; their quantised forms against LiteRT and compiled C."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nettrim.importers import load_model
from nettrim.widen import widenable, widenable_together
from nettrim_exporters.c_header import c_model_facts, render_c_header
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Dense
from tests.c_model import compile_c, run_c, write_sources
from tests.exporters.test_tflite import read_back, run_litert
from tests.graphs import quantized, random_inputs, widened
from tests.nettrim.onnx_models import assert_runs_as_in_onnx_runtime, node, op_names, random_floats, write_onnx

Array = npt.NDArray[Any]

STEPS, FEATURES, HIDDEN = 5, 4, 3
GATES = {"GRU": 3, "LSTM": 4}
TO_STEPS_FIRST = node("Transpose", "x", "s", perm=[1, 0, 2])


def weights(kind: str, directions: int = 1) -> dict[str, Array]:
    rng, rows = np.random.default_rng(3), GATES[kind] * HIDDEN
    shapes = {"w": (directions, rows, FEATURES), "r": (directions, rows, HIDDEN), "b": (directions, 2 * rows)}
    return {name: rng.normal(size=shape, scale=0.7).astype(np.float32) for name, shape in shapes.items()}


def model_of(kind: str, tail: list[Any], folder: Path, constants: dict[str, Array], **attributes: Any) -> Path:
    attributes = {"hidden_size": HIDDEN, **attributes}
    outputs = "q h" if kind == "GRU" else "q h c"
    recurrent = node(kind, "s w r b", outputs, name="cell", **attributes)
    return write_onnx(
        folder / "m.onnx", [TO_STEPS_FIRST, recurrent, *tail], ["N", STEPS, FEATURES], constants, opset=14
    )


TAILS: dict[str, list[Any]] = {
    "all states": [
        node("Squeeze", "q one", "t"),
        node("Transpose", "t", "u", perm=[1, 0, 2]),
        node("Flatten", "u", "v"),
        node("MatMul", "v m", "y"),
    ],
    "last of all states": [
        node("Squeeze", "q one", "t"),
        node("Transpose", "t", "u", perm=[1, 0, 2]),
        node("Gather", "u last", "v", axis=1),
        node("MatMul", "v k", "y"),
    ],
    "last state": [node("Squeeze", "h zero", "v"), node("MatMul", "v k", "y")],
    "gathered last state": [node("Gather", "h last", "v", axis=0), node("MatMul", "v k", "y")],
    "states as output": [node("Squeeze", "q one", "t"), node("Transpose", "t", "y", perm=[1, 0, 2])],
}
MORE = {
    "one": np.array([1]),
    "zero": np.array([0]),
    "last": np.array(-1),
    "m": random_floats(STEPS * HIDDEN, 2),
    "k": random_floats(HIDDEN, 2),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("LSTM", {}), ("LSTM", {"direction": "reverse"})],
)
def test_a_recurrent_node_is_unrolled(tmp_path: Path, kind: str, attributes: dict[str, Any], tail: list[Any]) -> None:
    path = model_of(kind, tail, tmp_path, {**weights(kind), **MORE}, **attributes)
    model = assert_runs_as_in_onnx_runtime(path)
    shared = {op.weight for op in model.graph.ops if isinstance(op, Dense)} - {"m", "k"}
    assert all(len(model.graph.sharing(weight)) in {1, STEPS - 1} for weight in shared)
    assert "transposes left: 0" in model.notes


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_both_directions_lie_side_by_side(tmp_path: Path, kind: str) -> None:
    tail = [
        node("Transpose", "q", "t", perm=[2, 0, 1, 3]),
        node("Flatten", "t", "u"),
        node("Transpose", "h", "i", perm=[1, 0, 2]),
        node("Flatten", "i", "j"),
        node("Concat", "u j", "v", axis=1),
        node("MatMul", "v n", "y"),
    ]
    constants = {**weights(kind, 2), "n": random_floats(2 * (STEPS + 1) * HIDDEN, 3)}
    path = model_of(kind, tail, tmp_path, constants, direction="bidirectional")
    assert "transposes left: 0" in assert_runs_as_in_onnx_runtime(path).notes


def test_cells_and_states_of_zeros_and_a_second_layer(tmp_path: Path) -> None:
    second = node("LSTM", "t v r b - state state", "p g e", name="second", hidden_size=HIDDEN)
    tail = [node("Squeeze", "q one", "t"), second, node("Squeeze", "e zero", "y")]
    constants = {**weights("LSTM"), **MORE, "state": np.zeros((1, 1, HIDDEN), np.float32)}
    constants["v"] = random_floats(1, 4 * HIDDEN, HIDDEN)
    path = model_of("LSTM", tail, tmp_path, constants)
    # one sample, as the states of zeros have one
    model = assert_runs_as_in_onnx_runtime(path, n_samples=1)
    assert op_names(model).count("Conv2d") == 2


@pytest.mark.parametrize("prepare", [quantized, widened])
@pytest.mark.parametrize(("kind", "attributes"), [("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("LSTM", {})])
def test_quantised_steps_have_the_bits_of_litert_and_of_c(
    tmp_path: Path, rng: np.random.Generator, kind: str, attributes: dict[str, Any], prepare: Callable[..., Graph]
) -> None:
    path = model_of(kind, TAILS["all states"], tmp_path, {**weights(kind), **MORE}, **attributes)
    graph = prepare(assert_runs_as_in_onnx_runtime(path).graph, rng)
    samples = random_inputs(graph, rng, 50)
    expected = run_graph(graph, samples)
    content = render_tflite(graph)
    np.testing.assert_array_equal(run_litert(content, samples), expected)
    source = write_sources({"cell": render_c_header(graph, "cell", (samples[0], expected[0]))}, tmp_path)
    np.testing.assert_array_equal(run_c(compile_c(source, tmp_path / "cell"), 0, samples, 2), expected)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_steps_share_weights_and_tables_in_flash_and_weights_in_the_file(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    flash, nnz, file_bytes = [], [], []
    for n_steps in (4, 8):
        nodes = [TO_STEPS_FIRST, node(kind, "s w r b", "q h", hidden_size=HIDDEN), node("Squeeze", "h zero", "y")]
        constants = {**weights(kind), **MORE}
        path = write_onnx(tmp_path / "m.onnx", nodes, ["N", n_steps, FEATURES], constants, opset=14)
        graph = quantized(assert_runs_as_in_onnx_runtime(path).graph, rng)
        facts = c_model_facts(graph)
        flash.append(facts.flash_bytes)
        nnz.append(facts.nnz)
        file_bytes.append([tensor.name for tensor in read_back(render_tflite(graph)).subgraphs[0].tensors])
    assert flash[0] == flash[1]
    assert nnz[0] == nnz[1] == GATES[kind] * HIDDEN * (FEATURES + HIDDEN)
    shared = [[name for name in names if name.endswith((b".weight", b".bias"))] for names in file_bytes]
    assert shared[0] == shared[1] == list(dict.fromkeys(shared[1]))


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_what_may_be_int16_is_as_many_sets_of_tensors_for_any_number_of_steps(tmp_path: Path, kind: str) -> None:
    found = []
    for n_steps in (4, 8):
        nodes = [TO_STEPS_FIRST, node(kind, "s w r b", "q h", hidden_size=HIDDEN), node("Squeeze", "h zero", "y")]
        path = write_onnx(tmp_path / "m.onnx", nodes, ["N", n_steps, FEATURES], {**weights(kind), **MORE}, opset=14)
        graph = load_model(path).graph
        together = widenable_together(graph)
        assert frozenset().union(*together) == frozenset().union(*widenable(graph))
        found.append(len(together))
    assert found[0] == found[1] < len(widenable(graph)) / 2


@pytest.mark.parametrize(
    ("changes", "attributes", "reason"),
    [
        ({}, {"activations": ["Tanh", "Tanh", "Tanh"]}, "expected .'Sigmoid', 'Tanh', 'Tanh'."),
        ({}, {"clip": 3.0}, "clip or input_forget"),
        ({"state": random_floats(1, 1, HIDDEN)}, {}, "an initial state other than zeros"),
        ({"r": random_floats(1, 4 * HIDDEN, HIDDEN + 1)}, {}, "weights"),
        ({"r": np.zeros((), np.float32)}, {}, "weights"),
        ({}, {"direction": "bidirectional"}, r"expected \[\(2, 12, 4\), \(2, 12, 3\), \(2, 24\)\]"),
        ({"b": random_floats(1, 4 * HIDDEN)}, {}, r"\(1, 12\)\] for 4 features, expected"),
    ],
)
def test_other_forms_are_refused(
    tmp_path: Path, changes: dict[str, Array], attributes: dict[str, Any], reason: str
) -> None:
    constants = {**weights("LSTM"), **MORE, "state": np.zeros((1, 1, HIDDEN), np.float32), **changes}
    recurrent = node("LSTM", "s w r b - state", "q h c", hidden_size=HIDDEN, **attributes)
    nodes = [TO_STEPS_FIRST, recurrent, node("Squeeze", "h zero", "y")]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", STEPS, FEATURES], constants, opset=14)
    with pytest.raises(UnsupportedOperatorError, match=reason):
        assert_runs_as_in_onnx_runtime(path)


def test_an_output_that_has_the_steps_first_is_refused(tmp_path: Path) -> None:
    path = model_of("GRU", [node("Squeeze", "q one", "y")], tmp_path, {**weights("GRU"), **MORE})
    with pytest.raises(UnsupportedOperatorError, match="batch at axis 1, expected the batch axis to stay first"):
        assert_runs_as_in_onnx_runtime(path)


class LastState(torch.nn.Module):
    """Two recurrent layers and a classifier of the last state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cells = getattr(torch.nn, kind)(FEATURES, HIDDEN, num_layers=2, batch_first=True)
        self.classes = torch.nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        classes: torch.Tensor = self.classes(self.cells(x)[0][:, -1])
        return classes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("dynamo", [False, True])
def test_what_torch_exports_runs_as_in_torch(tmp_path: Path, kind: str, dynamo: bool) -> None:
    network, path = LastState(kind).eval(), tmp_path / "m.onnx"
    sample = torch.randn(2, STEPS, FEATURES)
    options: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim("b")},), "external_data": False, "verbose": False}
        if dynamo
        else {"input_names": ["x"], "dynamic_axes": {"x": {0: "b"}}}
    )
    with warnings.catch_warnings(action="ignore"):  # torch's own, of its exporters
        torch.onnx.export(network, (sample,), path, dynamo=dynamo, **options)
    model = assert_runs_as_in_onnx_runtime(path)
    found = run_graph(model.graph, sample.numpy().reshape(2, *model.graph.tensors[model.graph.inputs[0]].shape))
    np.testing.assert_allclose(found, network(sample).detach().numpy(), atol=1e-6)
