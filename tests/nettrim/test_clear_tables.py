"""Tables of functions keep away from rounding borders, where C libraries could differ."""

import numpy as np
import pytest

from nettrim.clear_tables import CLEAR
from nettrim.quantize import quantization_of_range, quantize_graph
from nettrim_runtime.fixed_output import FUNCTIONS
from nettrim_runtime.ops import Function, UnaryFunction
from nettrim_runtime.unary import border_distance, evaluate
from tests.graphs import GraphBuilder

FLOAT_FUNCTIONS = [
    function for function in Function if function not in {Function.LEAKY_RELU, Function.HARD_SWISH, Function.RSQRT}
]


@pytest.mark.parametrize("function", FLOAT_FUNCTIONS)
def test_no_entry_of_a_quantised_graph_lies_next_to_a_border(function: Function) -> None:
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(60):
        builder = GraphBuilder(rng, (4,))
        output = builder.function(function)
        (op,) = builder.ops
        assert isinstance(op, UnaryFunction)
        low, high = -rng.uniform(0.1, 9), rng.uniform(0.1, 9)
        values = evaluate(op, np.linspace(low, high, 500))
        graph = quantize_graph(builder.build(), {"input": (low, high), output: (values.min(), values.max())})
        assert border_distance(op, graph.quantization("input"), graph.quantization(output)) >= CLEAR
        plain = quantization_of_range(low, high), quantization_of_range(values.min(), values.max())
        source, target = plain if function not in FUNCTIONS else (plain[0], FUNCTIONS[function])
        moved += border_distance(op, source, target) < CLEAR
        np.testing.assert_allclose(graph.quantization("input").scale, plain[0].scale, rtol=4e-3)  # 64 moves of 2^-14
    assert moved > 0


def test_functions_that_share_an_input_are_clear_at_once() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        builder = GraphBuilder(rng, (4,))
        builder.function(Function.TANH)
        builder.output = "input"
        builder.function(Function.SIGMOID)
        builder.mul("tanh0.out")
        low, high = -rng.uniform(0.1, 9), rng.uniform(0.1, 9)
        graph = quantize_graph(builder.build(), {"input": (low, high), builder.output: (-1.0, 1.0)})
        for op in graph.ops:
            if isinstance(op, UnaryFunction):
                assert border_distance(op, graph.quantization("input"), graph.quantization(op.output)) >= CLEAR
