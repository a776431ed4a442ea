"""The benchmark beside CMSIS-NN: what it calls, how it compares, and that the table of operators says what came out."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cmsis_nn_build
from benchmarks.cmsis_nn import Comparison, Subject, compare, figures, random_subjects
from benchmarks.cmsis_nn_build import PROCESSORS, build_calls, split_outputs
from benchmarks.cmsis_nn_calls import Call, Function, cmsis_call
from benchmarks.cmsis_nn_networks import random_networks
from benchmarks.results_file import ROOT
from nettrim.toolchain import ToolchainError
from nettrim_exporters.tflite_micro import CMSIS_NN
from nettrim_runtime.engine import prepare
from nettrim_runtime.errors import DataError
from nettrim_runtime.fixed_point import multiply_by_quantized_multiplier
from nettrim_runtime.ops import Conv2d

C_SOURCE = (Path(cmsis_nn_build.__file__).parent / "cmsis_nn_calls.c").read_text(encoding="utf-8")


@pytest.fixture(scope="module", name="subjects")
def made_once() -> list[Subject]:
    return random_subjects(np.random.default_rng(0), rounds=1)


def softmax_call(n_samples: int = 3) -> Call:
    values = np.zeros((n_samples, 4), np.int8)
    ones = np.ones(1, np.int32)
    return Call(Function.SOFTMAX, values, (4,), ones, ones, (-9, 0))


def test_differences_are_counted_by_operator_and_type() -> None:
    expected = np.arange(12, dtype=np.int8).reshape(3, 4)
    subjects = [Subject(softmax_call(), expected)] * 2
    (found,) = compare("here", "double", subjects, [expected, expected + np.int8([0, 1, 0, -2])])
    assert found == Comparison("here", "double", "Softmax", "int8", outputs=24, differing=6, largest_step=2)


def test_int8_values_at_both_ends_are_255_steps_apart() -> None:
    low, high = np.full((3, 4), -128, np.int8), np.full((3, 4), 127, np.int8)
    (found,) = compare("here", "double", [Subject(softmax_call(), low)], [high])
    assert found.largest_step == 255


def test_figures_are_of_the_default_rounding() -> None:
    found = [
        Comparison("here", "double", "Dense", "int8", 100, 1, 1),
        Comparison("here", "double", "Dense, one scale", "int8", 300, 3, 1),
        Comparison("here", "double", "Conv2d", "int8", 100, 0, 0),
        Comparison("here", "single", "Conv2d", "int8", 100, 50, 7),
    ]
    values = {name: figure.value for name, figure in figures(found).items()}
    assert values == {
        "cmsis_nn_largest_step": 1,
        "cmsis_nn_dense_share": 0.01,
        "cmsis_nn_operators": 2,
        "cmsis_nn_operators_equal": 1,
    }


def test_a_call_has_the_fields_that_the_program_reads(subjects: list[Subject]) -> None:
    (body,) = re.findall(r"struct call \{(.*?)\};", C_SOURCE, re.DOTALL)
    fields = re.findall(r"\w+(?=[,;])", body)
    (names,) = re.findall(r"enum function \{(.*?)\}", C_SOURCE)
    assert names.replace(" ", "").split(",") == [function.name for function in Function]
    for call in (subject.call for subject in subjects):
        arrays = (call.first, call.second, call.bias, call.multiplier, call.shift)
        content = call.to_bytes()
        header = dict(zip(fields, np.frombuffer(content, "<i4", len(fields)).tolist(), strict=True))
        assert len(content) == 4 * len(fields) + sum(array.nbytes for array in arrays)
        assert header["first_bytes"] == call.first.nbytes
        assert header["shift_bytes"] == call.shift.nbytes
        assert header["output_bytes"] == call.n_outputs * call.first.itemsize
        assert header["out_channels"] == call.output_shape[-1]


def test_a_dense_call_is_within_a_step_of_the_operator_with_two_roundings(subjects: list[Subject]) -> None:
    calls = [each for each in subjects if each.name.startswith("Dense") and each.expected.dtype == np.int8]
    assert len(calls) >= 5
    for subject in calls:
        call = subject.call
        sums = (call.first.astype(np.int64) - call.zero_points[0]) @ call.second.T.astype(np.int64) + call.bias
        scaled = multiply_by_quantized_multiplier(sums, call.multiplier.astype(np.int64), call.shift.astype(np.int64))
        output = np.clip(scaled + call.zero_points[2], *call.limits)
        assert np.abs(output - subject.expected).max() <= 1


def test_every_operator_of_the_table_is_called(subjects: list[Subject]) -> None:
    assert {each.name.split(",")[0] for each in subjects} == {operator.__name__ for operator in CMSIS_NN}
    assert {each.expected.dtype.name for each in subjects} == {"int8", "int16"}


def test_groups_on_int16_have_no_function() -> None:
    called = set()
    for graph in random_networks(np.random.default_rng(0)):
        buffers = prepare(graph, 1).buffers
        for op in graph.ops:
            if isinstance(op, Conv2d) and 1 < op.groups < buffers[op.input].shape[-1]:
                called.add((buffers[op.input].dtype.name, cmsis_call(graph, op, buffers) is not None))
    assert called == {("int8", True), ("int16", False)}


def test_outputs_lie_one_behind_the_other() -> None:
    calls = [softmax_call(1), softmax_call(2)]
    first, second = split_outputs(bytes(range(12)), calls)
    assert first.tolist() == [[0, 1, 2, 3]]
    assert second.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ToolchainError, match="gave 11 bytes, expected 12"):
        split_outputs(bytes(11), calls)


def test_a_folder_without_the_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Include"):
        build_calls(tmp_path, PROCESSORS[0], tmp_path)


def test_the_table_of_operators_says_what_was_measured() -> None:
    content = json.loads((ROOT / "benchmarks" / "results" / "cmsis_nn.json").read_text(encoding="utf-8"))
    rows = [row for row in content["rows"] if row["part"].endswith("double rounding")]
    assert {row["part"].split(", double")[0] for row in rows} == {processor.name for processor in PROCESSORS}
    differing = {row["operator"].split(",")[0] for row in rows if row["differing"]}
    assert {row["operator"].split(",")[0] for row in rows} == {operator.__name__ for operator in CMSIS_NN}
    assert differing == {operator.__name__ for operator, text in CMSIS_NN.items() if not text.startswith("equal bits")}
