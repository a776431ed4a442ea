"""What a user is told of a finished network."""

from dataclasses import replace

import numpy as np
import pytest

from nettrim.deployment_warnings import (
    _agreement_warnings,
    _excess,
    _input_warnings,
    empty_layer_warnings,
    micro_warnings,
    precision_warnings,
)
from nettrim.evaluate import Agreement, Networks
from nettrim.hybrid import deployed_floats
from nettrim.importers.imported_model import InputIntegers
from nettrim.prune import PruneSettings
from nettrim_runtime.graph import Quantization
from nettrim_runtime.ops import Function
from tests.graphs import GraphBuilder, quantized, random_mlp, widened


@pytest.mark.parametrize(
    ("pruned", "deployed", "advice"),
    [(0.999, 0.5, "int8 is too coarse"), (0.6, 0.5, "ask for less --sparsity"), (0.999, 0.995, None)],
)
def test_the_advice_is_for_what_the_loss_comes_from(pruned: float, deployed: float, advice: str | None) -> None:
    rng = np.random.default_rng(0)
    graph = random_mlp(rng)
    networks = Networks(graph, graph, quantized(graph, rng))
    warnings = _agreement_warnings(_agreement(pruned, deployed), networks)
    assert len(warnings) == (advice is not None)
    assert all(advice in warning for warning in warnings if advice)


def _agreement(pruned: float, deployed: float) -> Agreement:
    return Agreement(pruned, pruned - 0.01, deployed, deployed - 0.01, 0.1, 0.2, 1000)


def test_int16_is_advised_unless_all_that_can_be_int16_is() -> None:
    rng = np.random.default_rng(0)
    graph = random_mlp(rng)
    advised = [
        "--int16 all" in _agreement_warnings(_agreement(0.999, 0.5), Networks(graph, graph, deployed))[0]
        for deployed in (quantized(graph, rng), widened(graph, rng))
    ]
    assert advised == [True, False]
    (warning,) = _agreement_warnings(_agreement(0.999, 0.5), Networks(graph, graph, widened(graph, rng)))
    assert "int8 is too coarse for its input or output, which --int16 leaves as they are; scale inputs" in warning


def test_one_answer_of_many_does_not_make_int8_too_coarse() -> None:
    graph = random_mlp(np.random.default_rng(0))
    networks = Networks(graph, graph, quantized(graph, np.random.default_rng(1)))
    for lost, is_coarse in ((1, False), (5, True)):
        agreement = replace(_agreement(1.0, 1 - lost / 80), samples=80)
        (warning,) = _agreement_warnings(agreement, networks)
        assert ("int8 is too coarse" in warning) == is_coarse


def test_floats_are_advised_where_int8_weights_beside_floats_are_too_coarse() -> None:
    graph = random_mlp(np.random.default_rng(0))
    networks = Networks(graph, graph, deployed_floats(graph, "hybrid"))
    (warning,) = _agreement_warnings(_agreement(0.999, 0.5), networks)
    assert warning.endswith(
        "int8 is too coarse for its dense layers; scale inputs of different sizes alike (--mean, "
        "--std), or give --precision float32"
    )
    assert "int16" not in warning


def test_hybrid_without_a_dense_layer_is_named_as_float32() -> None:
    builder = GraphBuilder(np.random.default_rng(0), (5, 5, 4))
    builder.conv(4)
    graph = builder.build()
    assert "float32 all over" in precision_warnings(graph, "hybrid")[0]
    assert precision_warnings(graph, "float32") == ()
    assert precision_warnings(random_mlp(np.random.default_rng(0)), "hybrid") == ()


def test_dense_layers_on_int16_are_named_as_what_cmsis_nn_lacks() -> None:
    rng = np.random.default_rng(0)
    assert micro_warnings(quantized(random_mlp(rng), rng)) == ()
    (warning,) = micro_warnings(widened(random_mlp(rng), rng))
    assert warning.endswith("portable kernels: CMSIS-NN lacks dense layers on int16 with a scale an output")


def test_convolutions_in_groups_are_lacking_on_int16_and_depthwise_ones_are_not() -> None:
    lacking = {}
    for groups in (1, 2, 4):
        rng = np.random.default_rng(0)
        builder = GraphBuilder(rng, (5, 5, 4))
        builder.conv(4, (1, 1))
        builder.conv(4, groups=groups)
        builder.conv(4, (1, 1))
        graph = builder.build()
        assert micro_warnings(quantized(graph, rng)) == ()
        lacking[groups] = any("convolutions in groups on int16" in each for each in micro_warnings(widened(graph, rng)))
    assert lacking == {1: False, 2: True, 4: False}


def test_what_every_kernel_lacks_is_said_first() -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (6,))
    builder.dense(4)
    builder.dense(4)
    builder.function(Function.GELU)
    (warning,) = micro_warnings(widened(builder.build(), rng))
    assert warning.startswith("model.tflite does not run in TensorFlow Lite Micro, which lacks GELU")


def test_layers_without_a_weight_are_named() -> None:
    graph = random_mlp(np.random.default_rng(0))
    assert empty_layer_warnings(graph) == ()
    weight = graph.tensors[graph.layers[1].weight]
    (warning,) = empty_layer_warnings(graph.with_tensors([replace(weight, data=np.zeros_like(weight.values()))]))
    assert warning.startswith(f"no weight is left in {graph.layers[1].name}: what lies behind")


def test_other_integers_at_the_input_than_the_files_are_told_with_both_scales() -> None:
    rng = np.random.default_rng(0)
    graph = random_mlp(rng)
    deployed = quantized(graph, rng)
    own = deployed.quantization(deployed.inputs[0])
    assert _input_warnings(None, deployed) == ()
    assert _input_warnings(InputIntegers("int8", own), deployed) == ()
    file_own = InputIntegers("int8", Quantization(np.array([0.5], np.float32), 83))
    assert _input_warnings(file_own, graph) == ()  # floats at the input
    (warning,) = _input_warnings(file_own, deployed)
    assert f"zero point {own.zero_point}, the file's had 0.5 and 83: quantise your inputs anew" in warning


def test_weights_that_go_with_their_block_are_not_said_to_never_matter() -> None:
    assert _excess(PruneSettings()) == "the others never matter on these samples"
    assert _excess(PruneSettings(structure="1x16")).startswith("structure 1x16 removes no finer share, or")
