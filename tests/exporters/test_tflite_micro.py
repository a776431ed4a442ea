"""model.tflite in TensorFlow Lite Micro's own interpreter: the engine's bits, but where the table says otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from graphs import GraphBuilder, quantized, random_branches, random_cnn, random_inputs, random_mlp, widened
from test_tflite import NONE, RELU_N1_TO_1, SINGLE, Build, build
from tflite_micro.python.tflite_micro import runtime

from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_micro import micro_gaps
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Dense, Function

Array = npt.NDArray[Any]

ARENA_BYTES = 1 << 20
N_SAMPLES = 20


def run_micro(graph: Graph, samples: Array) -> Array:
    interpreter = runtime.Interpreter.from_bytes(render_tflite(graph), arena_size=ARENA_BYTES)
    outputs = []
    for index in range(len(samples)):
        interpreter.set_input(samples[index : index + 1], 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0))
    return np.concatenate(outputs)


def check_bits(graph: Graph) -> None:
    """Assert equal bits; behind a dense layer, which rounds twice, one step in a few of a hundred outputs may lie."""
    samples = random_inputs(graph, np.random.default_rng(1), N_SAMPLES)
    steps = np.abs(run_micro(graph, samples).astype(int) - run_graph(graph, samples))
    if any(isinstance(op, Dense) for op in graph.ops):
        assert steps.max() <= 1
        assert np.mean(steps > 0) < 0.03
    else:
        assert steps.max() == 0


@pytest.mark.parametrize(("operators", "shape"), SINGLE)
def test_every_operator_gives_the_bits_of_the_engine_or_is_said_to_lack(
    operators: Build, shape: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    graph = quantized(build(operators, shape=shape), np.random.default_rng(0))
    if micro_gaps(graph):
        with pytest.raises(RuntimeError):
            run_micro(graph, random_inputs(graph, np.random.default_rng(1), 1))
    else:
        check_bits(graph)
    capfd.readouterr()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [random_cnn, random_branches])
def test_networks_with_int16_give_the_bits_of_the_engine(make: Any, seed: int) -> None:
    graph = widened(make(np.random.default_rng(seed)), np.random.default_rng(seed), share=0.5)
    assert "int16" in {tensor.dtype for tensor in graph.tensors.values()}
    assert micro_gaps(graph) == ()
    check_bits(graph)


def gates(rng: np.random.Generator) -> Graph:
    """Return a network of functions, pairs and a softmax of every pixel, without dense layers."""
    builder = GraphBuilder(rng, (5, 4, 3))
    image = builder.conv(6, (3, 3))
    builder.function(Function.SIGMOID)
    product = builder.mul(image)
    builder.function(Function.LEAKY_RELU, 0.2)
    builder.sub(product)
    builder.prelu()
    builder.conv(6, (1, 1))
    builder.function(Function.TANH)
    builder.mul(product)
    builder.softmax()
    builder.conv(2, (1, 1))
    return builder.build()


@pytest.mark.parametrize("seed", range(4))
def test_functions_and_pairs_on_int16_give_the_bits_of_the_engine(seed: int) -> None:
    graph = widened(gates(np.random.default_rng(seed)), np.random.default_rng(seed), share=1 if seed == 0 else 0.5)
    assert micro_gaps(graph) == ()
    check_bits(graph)


def test_what_is_lacking_is_named() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (3, 3, 2))
    builder.activation(RELU_N1_TO_1)
    builder.function(Function.GELU)
    builder.concat(*[builder.output] * 10)
    gaps = micro_gaps(builder.build())
    assert [gap.split()[0] for gap in gaps] == ["a", "GELU", "a"]
    assert "concatenation of 11 inputs, more than 10" in gaps[2]


def test_ordinary_networks_lack_nothing() -> None:
    rng = np.random.default_rng(0)
    assert micro_gaps(random_mlp(rng)) == ()
    builder = GraphBuilder(rng, (3, 3, 2))
    builder.conv(4, (1, 1), NONE)
    assert micro_gaps(builder.build()) == ()


def test_a_concatenation_of_eleven_is_refused_by_the_interpreter(capfd: pytest.CaptureFixture[str]) -> None:
    for count in (9, 10):
        builder = GraphBuilder(np.random.default_rng(0), (6,))
        builder.concat(*["input"] * count)  # and the tensor itself
        graph = quantized(builder.build(), np.random.default_rng(0))
        if count == 9:
            check_bits(graph)
        else:
            with pytest.raises(RuntimeError):
                run_micro(graph, random_inputs(graph, np.random.default_rng(1), 1))
    capfd.readouterr()
