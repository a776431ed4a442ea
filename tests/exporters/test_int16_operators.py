"""Operators on int16 alone: NumPy, C and LiteRT's reference kernels over all inputs, or over many pairs and rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st

from nettrim_exporters.c_header import KERNELS_FILE, render_c_kernels
from nettrim_exporters.c_steps import c_steps
from nettrim_exporters.memory_plan import plan_memory
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.engine import prepare
from nettrim_runtime.errors import GraphError
from nettrim_runtime.fixed_output import WIDE
from nettrim_runtime.graph import Graph, Quantization, Tensor
from nettrim_runtime.interpolation import interpolation_table
from nettrim_runtime.ops import (
    INT8_FUNCTIONS,
    Activation,
    ActivationFunction,
    Function,
    LogSoftmax,
    Mul,
    Op,
    PRelu,
    Requantize,
    Softmax,
    Sub,
    UnaryFunction,
    op_inputs,
)
from nettrim_runtime.softmax_int16 import FRACTION, INT16, RANGE, exponential_table, reciprocal_table
from nettrim_runtime.unary_int16 import ENTRIES_A_UNIT, N_ENTRIES, ONE_MORE, sigmoid_table
from tests.c_model import C99, compile_c, run_c

Array = npt.NDArray[Any]

ALL_INPUTS = np.arange(INT16.min, INT16.max + 1).astype(np.int16)
CHANNELS = 64
SATURATING = (Function.SIGMOID, Function.TANH)
seeds = st.integers(0, 2**32 - 1)

MAIN = """
#include <stdio.h>
#include "nettrim_kernels.h"
{arrays}
NT_ALIGN16 static int8_t bytes[{arena}];
int main(void)
{{
{reads}
    {{
{statements}
    }}
    return fwrite(bytes + {result}, 1, {size}, stdout) == {size} ? 0 : 1;
}}
"""


def scaled(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    return Tensor(name, shape, "int16", Quantization(np.array([scale], np.float32), 0))


def alone(op: Op, shape: tuple[int, ...], scales: Mapping[str, float], *constants: Tensor) -> Graph:
    """Return a graph of one operator whose inputs and output, all of a shape, are int16."""
    tensors = {name: scaled(name, shape, scale) for name, scale in scales.items()}
    inputs = tuple(dict.fromkeys(op_inputs(op)))
    return Graph("alone", inputs, (op.output,), (op,), tensors | {each.name: each for each in constants})


def run_numpy(graph: Graph, *inputs: Array) -> Array:
    return prepare(graph).run(*(values[np.newaxis] for values in inputs))[0][0]


def run_litert(graph: Graph, *inputs: Array) -> Array:
    content = render_tflite(graph)
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    places = {each["name"]: each["index"] for each in interpreter.get_input_details()}
    for name, values in zip(graph.inputs, inputs, strict=True):
        interpreter.set_tensor(places[name], values[np.newaxis])
    interpreter.invoke()
    result: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    return result


def run_compiled(graph: Graph, folder: Path, *inputs: Array) -> Array:
    """Run the C of a graph's operator, between requantisations that put its tensors into the arena."""
    (op,) = graph.ops
    shape = graph.tensors[op.output].shape
    ends = {
        name: Tensor(name, shape, "int8", Quantization(np.array([1], np.float32), 0)) for name in ("int8", "narrow")
    }
    before = [Requantize(f"to {name}", "int8", name) for name in graph.inputs]
    ops = (*before, op, Requantize("narrow", op.output, "narrow"))
    surrounded = Graph("alone", ("int8",), ("narrow",), ops, {**graph.tensors, **ends})
    plan = plan_memory(surrounded)
    step = c_steps(surrounded, plan, "nt")[len(before)]
    reads = [(plan.buffer_of(name).offset, graph.tensors[name].size * 2) for name in graph.inputs]
    source = folder / "main.c"
    (folder / KERNELS_FILE).write_text(render_c_kernels())
    source.write_text(
        MAIN.format(
            arrays="\n".join(array.declaration for array in step.arrays),
            arena=plan.arena_bytes,
            reads="\n".join(f"    if (fread(bytes + {at}, 1, {n}, stdin) != {n}) return 1;" for at, n in reads),
            statements="\n".join(step.statements),
            result=plan.buffer_of(op.output).offset,
            size=graph.tensors[op.output].size * 2,
        )
    )
    binary = compile_c(source, folder / "alone", "gcc", (*C99, "-O1", "-fsanitize=undefined", "-fno-sanitize-recover"))
    bytes_in = np.concatenate([values.ravel() for values in inputs]).view(np.int8)
    return run_c(binary, 0, bytes_in[np.newaxis], graph.tensors[op.output].size * 2).view(np.int16).reshape(shape)


def function_alone(function: Function, scale: float, output_scale: float, alpha: float = 0.0) -> Graph:
    output_scale = float(WIDE.scale[0]) if function in SATURATING else output_scale
    op = UnaryFunction("f", "x", "y", function, alpha if function is Function.LEAKY_RELU else 0.0)
    return alone(op, ALL_INPUTS.shape, {"x": scale, "y": output_scale})


FUNCTIONS = [
    *(
        pytest.param(kind, 2.0**power, 0.0, 0.0, id=f"{kind.value}-{power}")
        for kind in SATURATING
        for power in (2, -12)
    ),
    *(pytest.param(kind, 3.1e-4, 0.0, 0.0, id=f"{kind.value}-3.1e-4") for kind in SATURATING),
    pytest.param(Function.LEAKY_RELU, 2.0**-9, 2.0**-9, 0.1),
    pytest.param(Function.LEAKY_RELU, 2.0**-9, 2.0**-16, 1.5),
]


@pytest.mark.parametrize(("function", "scale", "output_scale", "alpha"), FUNCTIONS)
def test_functions_have_the_bits_of_the_reference_kernels_on_all_inputs(
    tmp_path: Path, function: Function, scale: float, output_scale: float, alpha: float
) -> None:
    graph = function_alone(function, scale, output_scale, alpha)
    expected = run_litert(graph, ALL_INPUTS)
    np.testing.assert_array_equal(run_numpy(graph, ALL_INPUTS), expected)
    np.testing.assert_array_equal(run_compiled(graph, tmp_path, ALL_INPUTS), expected)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*SATURATING, Function.LEAKY_RELU]), st.floats(-27, 2), st.floats(-4, 8), st.floats(0, 1.5))
def test_functions_have_the_bits_of_the_reference_kernels_at_any_scale(
    function: Function, power: float, ratio: float, alpha: float
) -> None:
    graph = function_alone(function, 2.0**power, 2.0 ** (power - ratio), alpha)
    np.testing.assert_array_equal(run_numpy(graph, ALL_INPUTS), run_litert(graph, ALL_INPUTS))


@pytest.mark.parametrize("function", SATURATING)
def test_sigmoid_and_tanh_come_within_their_tables_step(function: Function) -> None:
    graph = function_alone(function, 2.0**-12, 0.0)
    x = ALL_INPUTS * 2.0**-12
    exact = 1 / (1 + np.exp(-x)) if function is Function.SIGMOID else np.tanh(x)
    assert np.abs(run_numpy(graph, ALL_INPUTS) / 32768 - exact).max() < 1.5e-4


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([Mul, Sub]))
def test_pairs_have_the_bits_of_the_reference_kernels_at_any_scale(seed: int, kind: type[Mul | Sub]) -> None:
    graph, inputs = pair_alone(kind, np.random.default_rng(seed), exact=seed % 2 == 0)
    np.testing.assert_array_equal(run_numpy(graph, *inputs), run_litert(graph, *inputs))


@pytest.mark.parametrize("kind", [Mul, Sub])
def test_pairs_in_c_have_the_bits_of_the_reference_kernels(tmp_path: Path, kind: type[Mul | Sub]) -> None:
    graph, inputs = pair_alone(kind, np.random.default_rng(0), exact=True)
    np.testing.assert_array_equal(run_compiled(graph, tmp_path, *inputs), run_litert(graph, *inputs))


def pair_alone(kind: type[Mul | Sub], rng: np.random.Generator, *, exact: bool) -> tuple[Graph, tuple[Array, Array]]:
    """Return a product or a difference of random scales, powers of two where they are to be exact, and its inputs."""
    powers = rng.uniform(-16, 2, 2)
    powers = np.ceil(powers) if exact else powers
    room = rng.uniform(1, 16) if kind is Mul else rng.uniform(-12, 4)
    room = np.ceil(room) if exact else room
    powers = np.append(powers, (powers.sum() if kind is Mul else powers.max()) + room)
    first, second = (rng.integers(INT16.min, INT16.max, 5000, endpoint=True, dtype=np.int16) for _ in range(2))
    first[:4], second[:4] = (INT16.min, INT16.min, INT16.max, INT16.max), (INT16.min, INT16.max, INT16.min, INT16.max)
    activation = ActivationFunction.RELU6 if rng.random() < 0.3 else ActivationFunction.NONE
    op = kind("pair", "a", "b", "y", activation)
    return alone(op, first.shape, dict(zip("aby", 2.0**powers, strict=True))), (first, second)


@pytest.mark.parametrize("ratio", [2.0**13, 1.7, 1.0, 0.3, 2.0**-15])
def test_other_scales_in_c_have_the_bits_of_the_reference_kernel(tmp_path: Path, ratio: float) -> None:
    graph = alone(Requantize("r", "x", "y"), ALL_INPUTS.shape, {"x": 2.0**-9, "y": 2.0**-9 / ratio})
    expected = run_litert(graph, ALL_INPUTS)
    np.testing.assert_array_equal(run_numpy(graph, ALL_INPUTS), expected)
    np.testing.assert_array_equal(run_compiled(graph, tmp_path, ALL_INPUTS), expected)


def prelu_alone(rng: np.random.Generator) -> tuple[Graph, Array]:
    slopes = rng.integers(-127, 127, CHANNELS, dtype=np.int8)
    scale = Quantization(np.array([rng.uniform(0.001, 0.02)], np.float32), 0)
    power = np.floor(rng.uniform(-16, 2))
    op = PRelu("p", "x", "slope", "y")
    shape = (ALL_INPUTS.size // CHANNELS, 1, CHANNELS)
    scales = {"x": 2.0**power, "y": 2.0 ** (power + rng.integers(-4, 3))}
    return alone(op, shape, scales, Tensor("slope", (CHANNELS,), "int8", scale, slopes)), ALL_INPUTS.reshape(shape)


@pytest.mark.parametrize("seed", range(5))
def test_slopes_by_channel_have_the_bits_of_the_reference_kernel(seed: int, tmp_path: Path) -> None:
    graph, inputs = prelu_alone(np.random.default_rng(seed))
    expected = run_litert(graph, inputs)
    np.testing.assert_array_equal(run_numpy(graph, inputs), expected)
    if seed == 0:
        np.testing.assert_array_equal(run_compiled(graph, tmp_path, inputs), expected)


def softmax_alone(rng: np.random.Generator, *, exact: bool) -> tuple[Graph, Array]:
    """Return a softmax of rows, and rows of anything, of logits of a normal spread, and of values all equal."""
    shape = (6, int(rng.integers(1, 512)))
    power = np.floor(rng.uniform(-20, 3)) if exact else rng.uniform(-20, 2)
    rows = rng.integers(INT16.min, INT16.max, shape, endpoint=True)
    rows[2:4] = np.clip(rng.normal(size=(2, shape[1])) * 3 / 2.0**power, INT16.min, INT16.max)
    rows[4:] = np.reshape([INT16.min, INT16.max], (2, 1))
    graph = alone(Softmax("s", "x", "y"), shape, {"x": 2.0**power, "y": float(WIDE.scale[0])})
    return graph, rows.astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_softmaxes_have_the_bits_of_the_reference_kernel(seed: int) -> None:
    graph, inputs = softmax_alone(np.random.default_rng(seed), exact=seed % 2 == 0)
    np.testing.assert_array_equal(run_numpy(graph, inputs), run_litert(graph, inputs))


@pytest.mark.parametrize("seed", range(4))
def test_softmaxes_in_c_have_the_bits_of_the_reference_kernel(seed: int, tmp_path: Path) -> None:
    graph, inputs = softmax_alone(np.random.default_rng(seed), exact=True)
    np.testing.assert_array_equal(run_compiled(graph, tmp_path, inputs), run_litert(graph, inputs))


def test_no_entry_of_a_table_depends_on_the_last_digits_of_an_exponential() -> None:
    sigmoids = 65536 / (1 + np.exp(-np.arange(N_ENTRIES) / ENTRIES_A_UNIT))
    assert np.abs(sigmoids - np.floor(sigmoids) - 0.5).min() > 1e-3
    assert set(np.flatnonzero(sigmoid_table() - sigmoids > 0.5)) == set(ONE_MORE)
    for change in (1 - 1e-9, 1 + 1e-9):
        moved = interpolation_table(lambda x, by=change: np.exp(x) * by, np.float64(10) / RANGE, INT16.max, FRACTION)
        np.testing.assert_array_equal(moved, exponential_table())
        moved = interpolation_table(lambda x, by=change: by / (1 + x), 1 / RANGE, INT16.min, FRACTION)
        np.testing.assert_array_equal(moved, reciprocal_table())


@pytest.mark.parametrize("kind", [Function.SIGMOID, Function.TANH, Softmax])
def test_an_input_of_too_large_a_scale_is_refused(kind: Function | type[Softmax]) -> None:
    op = UnaryFunction("f", "x", "y", kind) if isinstance(kind, Function) else Softmax("f", "x", "y")
    graph = alone(op, (8,), {"x": 4.1, "y": float(WIDE.scale[0])})
    with pytest.raises(GraphError, match=r"an int16 input of scale 4\.1, expected at most 4"):
        prepare(graph)


@pytest.mark.parametrize("function", INT8_FUNCTIONS)
def test_functions_on_int8_only_are_refused_on_int16(function: Function) -> None:
    with pytest.raises(GraphError, match="its input is int16, expected int8"):
        function_alone(function, 0.01, 0.01)


def on_int16(op: Op) -> bytes:
    """Return the file of an operator on int16 that a graph refuses: its int8 file with other types."""
    tensors = {name: Tensor(name, (8,)) for name in (*op_inputs(op), op.output)}
    graph = Graph("alone", op_inputs(op), (op.output,), (op,), tensors)
    wide = {name: scaled(name, (8,), 2.0**-10) for name in tensors}
    object.__setattr__(graph, "tensors", wide)  # past the check
    return render_tflite(graph)


@pytest.mark.parametrize(
    "op",
    [
        UnaryFunction("f", "x", "y", Function.HARD_SWISH),
        LogSoftmax("f", "x", "y"),
        Activation("f", "x", "y", ActivationFunction.RELU_N1_TO_1),
    ],
)
def test_litert_has_no_kernel_on_int16(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nettrim_exporters.tflite.check_tflite", lambda _graph: None)
    interpreter = Interpreter(
        model_content=on_int16(op), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    interpreter.allocate_tensors()
    with pytest.raises(RuntimeError, match=r"Only float32, uint8,? (and )?int8"):
        interpreter.invoke()
