"""Functions that .tflite files spell out in floats: one operator each, with the results of LiteRT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import ImportedModel
from nettrim_runtime.ops import Function, UnaryFunction
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert
from tests.nettrim.tflite_models import NONE, FileWriter, write_file

SHAPE = (1, 4, 5, 3)
RELU6 = published.ActivationFunctionType.RELU6
OPTIONS = {
    **{code: f"{code.capitalize()}OptionsT" for code in ("ADD", "DIV", "MUL", "POW", "SUB")},
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), "MaximumMinimumOptionsT"),
}
Step = tuple[str, str | float, str | float] | tuple[str, str]
SPELLED: dict[str, tuple[Function, list[Step]]] = {
    "hard swish by a fused clamp": (
        Function.HARD_SWISH,
        [("ADD RELU6", "x", 3.0), ("MUL", "x", "0"), ("MUL", "1", 1 / 6)],
    ),
    "hard swish by bounds": (
        Function.HARD_SWISH,
        [("ADD", 3.0, "x"), ("MAXIMUM", "0", 0.0), ("MINIMUM", "1", 6.0), ("DIV", "2", 6.0), ("MUL", "3", "x")],
    ),
    "hard swish by RELU6": (
        Function.HARD_SWISH,
        [("ADD", "x", 3.0), ("RELU6", "0"), ("MUL", "1", 1 / 6), ("MUL", "2", "x")],
    ),
    "GELU by a power": (
        Function.GELU_TANH,
        [
            ("POW", "x", 3.0),
            ("MUL", "0", 0.044715),
            ("ADD", "x", "1"),
            ("MUL", "2", float(np.sqrt(2 / np.pi))),
            ("TANH", "3"),
            ("ADD", "4", 1.0),
            ("MUL", "x", 0.5),
            ("MUL", "6", "5"),
        ],
    ),
    "logistic by an exponential": (
        Function.SIGMOID,
        [("NEG", "x"), ("EXP", "0"), ("ADD", "1", 1.0), ("DIV", 1.0, "2")],
    ),
}


def spelled(file: FileWriter, entry: int, steps: list[Step]) -> list[int]:
    """Append operators on the input "x", on earlier results by their numbers and on constants."""
    outputs: list[int] = []
    for code, *operands in steps:
        op_type, *clamp = code.split()
        places = []
        for operand in operands:
            if isinstance(operand, str):
                places.append(entry if operand == "x" else outputs[int(operand)])
            else:
                places.append(file.constant(np.array(operand, np.float32)))
        name = OPTIONS.get(op_type)
        values: dict[str, Any] = {"fusedActivationFunction": RELU6 if clamp else NONE} if name else {}
        values = {} if op_type in {"POW", "MAXIMUM", "MINIMUM"} else values
        options = getattr(published, name) if name else None
        outputs.append(file.add(op_type, tuple(places), file.activation(SHAPE), options, **values))
    return outputs


def functions(model: ImportedModel) -> list[Function]:
    return [op.function for op in model.graph.ops if isinstance(op, UnaryFunction)]


@pytest.mark.parametrize(("function", "steps"), SPELLED.values(), ids=SPELLED)
def test_a_function_that_is_spelled_out_is_one_operator(tmp_path: Path, function: Function, steps: list[Step]) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    output = spelled(file, entry, steps)[-1]
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))), spread=4)
    assert functions(model) == [function]
    assert len(model.graph.ops) == 1
    assert any(f"{function.value} 't{output}' recognised by its values" in note for note in model.notes)


def test_a_part_that_something_else_reads_stays(tmp_path: Path) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    gate, *_, swish = spelled(file, entry, SPELLED["hard swish by a fused clamp"][1])
    output = file.add("ADD", (gate, swish), file.activation(SHAPE), published.AddOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert functions(model) == [Function.HARD_SWISH]


@pytest.mark.parametrize("shift", [2.0, 3.1])
def test_what_is_only_near_a_function_is_not_taken_for_it(tmp_path: Path, shift: float) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    output = spelled(file, entry, [("ADD RELU6", "x", shift), ("MUL", "x", "0"), ("MUL", "1", 1 / 6)])[-1]
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert functions(model) == []


def test_operators_on_two_tensors_are_no_function_of_one(tmp_path: Path) -> None:
    file = FileWriter()
    entry = file.activation(SHAPE)
    clamped = file.add("RELU", (entry,), file.activation(SHAPE))
    parts = spelled(file, entry, [("ADD RELU6", "x", 3.0)])
    product = file.add("MUL", (clamped, parts[0]), file.activation(SHAPE), published.MulOptionsT)
    sixth = file.constant(np.array(1 / 6, np.float32))
    output = file.add("MUL", (product, sixth), file.activation(SHAPE), published.MulOptionsT)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert functions(model) == []
