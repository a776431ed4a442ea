"""An ONNX network to a Graph, node by node; what cannot be carried over is reported all at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from nettrim.importers.imported_model import ImportedModel, transpose_note
from nettrim.importers.onnx_concat import convert_concat
from nettrim.importers.onnx_constants import (
    FOLDABLE,
    all_constant,
    fold_node,
    read_constant_nodes,
    read_initializers,
    shape_placeholder,
)
from nettrim.importers.onnx_conversion import Conversion, is_straight
from nettrim.importers.onnx_elementwise import (
    convert_clip,
    convert_extreme,
    convert_hard_sigmoid,
    convert_relu,
    convert_softmax,
)
from nettrim.importers.onnx_file import check_onnx, opset_version, parse_onnx
from nettrim.importers.onnx_functions import convert_function, convert_gelu, convert_leaky_relu, convert_prelu
from nettrim.importers.onnx_input import add_input, read_input
from nettrim.importers.onnx_layers import convert_batch_normalization, convert_conv, convert_gemm, convert_mat_mul
from nettrim.importers.onnx_node import Node, RefusedNodeError, UnknownInputError, read_node, refuse
from nettrim.importers.onnx_normalization import convert_layer_normalization, recognise_normalizations
from nettrim.importers.onnx_pairs import convert_negation, convert_pair, convert_power, convert_swish
from nettrim.importers.onnx_recognition import recognise_functions
from nettrim.importers.onnx_recurrent import convert_recurrent
from nettrim.importers.onnx_resize import convert_resize
from nettrim.importers.onnx_selection import convert_gather, convert_pad, convert_slice, convert_split
from nettrim.importers.onnx_shapes import (
    convert_dropout,
    convert_flatten,
    convert_identity,
    convert_reshape,
    convert_squeeze,
    convert_transpose,
    convert_unsqueeze,
)
from nettrim.importers.onnx_transposed_conv import convert_conv_transpose
from nettrim.importers.onnx_windows import (
    convert_average_pool,
    convert_global_pool,
    convert_max_pool,
    convert_reduce_mean,
)
from nettrim.importers.refusals import Refusal, refusal_message
from nettrim.passes import simplify
from nettrim.passes.rewiring import replace_input
from nettrim_runtime.errors import GraphError, ModelFileError, UnsupportedOperatorError
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import NO_PADDING, Reshape

CONVERTERS: Mapping[str, Callable[[Node, Conversion], None]] = {
    "Add": convert_pair,
    "AveragePool": convert_average_pool,
    "BatchNormalization": convert_batch_normalization,
    "Clip": convert_clip,
    "Concat": convert_concat,
    "Conv": convert_conv,
    "ConvTranspose": convert_conv_transpose,
    "Div": convert_pair,
    "Dropout": convert_dropout,
    "Flatten": convert_flatten,
    "Gelu": convert_gelu,
    "Gather": convert_gather,
    "Gemm": convert_gemm,
    "GRU": convert_recurrent,
    "GlobalAveragePool": convert_global_pool,
    "GlobalMaxPool": convert_global_pool,
    "HardSigmoid": convert_hard_sigmoid,
    "HardSwish": convert_function,
    "Identity": convert_identity,
    "LSTM": convert_recurrent,
    "LayerNormalization": convert_layer_normalization,
    "LeakyRelu": convert_leaky_relu,
    "LogSoftmax": convert_softmax,
    "MatMul": convert_mat_mul,
    "Max": convert_extreme,
    "MaxPool": convert_max_pool,
    "Min": convert_extreme,
    "Mul": convert_pair,
    "Neg": convert_negation,
    "PRelu": convert_prelu,
    "Pad": convert_pad,
    "Pow": convert_power,
    "ReduceMean": convert_reduce_mean,
    "Relu": convert_relu,
    "Reshape": convert_reshape,
    "Sigmoid": convert_function,
    "Resize": convert_resize,
    "Slice": convert_slice,
    "Softmax": convert_softmax,
    "Split": convert_split,
    "Squeeze": convert_squeeze,
    "Sub": convert_pair,
    "Swish": convert_swish,
    "Tanh": convert_function,
    "Transpose": convert_transpose,
    "Unsqueeze": convert_unsqueeze,
    "Upsample": convert_resize,
}
MANY_OUTPUTS = frozenset({"Split", "GRU", "LSTM"})


def import_onnx(
    data: bytes,
    source: str,
    name: str,
    input_shape: tuple[int, ...] | None = None,
    *,
    folder: Path | None = None,
) -> ImportedModel:
    """Return the network in ONNX bytes.

    Parameters
    ----------
    source : str
        The file, for error messages.
    name : str
        The graph's name.
    input_shape : tuple of int, optional
        The shape of one sample, where the file leaves it open.
    folder : Path, optional
        Where the file lies, and others with its weights may.

    Raises
    ------
    ModelFileError
        When the bytes are damaged, or the input's shape is open.
    UnsupportedOperatorError
        When nodes cannot be carried over: the message names all of them.
    """
    model = parse_onnx(data, source, folder)
    nodes = _needed_nodes(model)
    _check(model, nodes, source)
    output = _only_output(model, source)
    network_input = read_input(model.graph, nodes, source, input_shape)
    constants = read_initializers(model, source)
    known = constants | read_constant_nodes(nodes, model.opset_import)
    nodes, normalizations = recognise_normalizations(nodes, known, [output])
    nodes, functions = recognise_functions(nodes, known, [output], model.opset_import)
    reads = Counter([output, *(name for node in nodes for name in node.inputs)])
    conversion = Conversion(source, constants, reads)
    conversion.rewrites["layer normalisations recognised by their form"] += normalizations
    conversion.rewrites["functions recognised by their values"] += functions
    tensor = add_input(conversion, network_input)
    refusals = _convert_nodes(nodes, conversion, model.opset_import)
    if refusals:
        raise UnsupportedOperatorError(refusal_message(source, refusals, CONVERTERS))
    output_tensor, output_note = _add_output(conversion, output, nodes[-1])
    graph = simplify(conversion.builder.build(name, (tensor,), (output_tensor,)))
    if network_input.layout == "flat":
        graph = _without_first_reshape(graph)
    notes = (_origin_note(model), *_rewrite_notes(conversion), *output_note, transpose_note(conversion.transposes))
    return ImportedModel(graph, network_input.layout, network_input.source_shape, notes, "ONNX")


def _needed_nodes(model: onnx.ModelProto) -> list[Node]:
    """Return the nodes that an output depends on, in the file's order."""
    opset = opset_version(model)
    needed = {info.name for info in model.graph.output}
    nodes = []
    for proto in reversed(model.graph.node):
        if needed.intersection(proto.output):
            needed.update(proto.input)
            nodes.append(read_node(proto, opset))
    return nodes[::-1]


def _check(model: onnx.ModelProto, nodes: Sequence[Node], source: str) -> None:
    try:
        check_onnx(model, source)
    except ModelFileError as error:
        known = CONVERTERS.keys() | FOLDABLE
        unknown = [Refusal(node.op_type, node.name, "") for node in nodes if node.op_type not in known]
        if unknown:
            raise UnsupportedOperatorError(refusal_message(source, unknown, CONVERTERS)) from error
        raise


def _only_output(model: onnx.ModelProto, source: str) -> str:
    names = [str(info.name) for info in model.graph.output]
    if len(names) != 1:
        shown = ", ".join(map(repr, names))
        raise UnsupportedOperatorError(f"{source}: the network has {len(names)} outputs ({shown}), expected one")
    return names[0]


def _convert_nodes(
    nodes: Iterable[Node], conversion: Conversion, opsets: Sequence[onnx.OperatorSetIdProto]
) -> list[Refusal]:
    refusals = []
    for node in nodes:
        try:
            _convert_node(node, conversion, opsets)
        except RefusedNodeError as error:
            refusals.append(Refusal(node.op_type, node.name, error.reason))
        except UnknownInputError:
            continue  # what it depends on has been refused already
        except GraphError as error:
            raise ModelFileError(f"{conversion.builder.source}: node {node.name!r} does not fit: {error}") from error
    return refusals


def _convert_node(node: Node, conversion: Conversion, opsets: Sequence[onnx.OperatorSetIdProto]) -> None:
    if node.op_type in FOLDABLE and all_constant(node, conversion.constants):
        inputs = [conversion.constants[name] if name else None for name in node.inputs]
        conversion.constants[node.outputs[0]] = fold_node(node, inputs, opsets)
    elif node.op_type == "Shape":
        value = conversion.value_of_any_order(node)
        shaped = value if value.batch else conversion.value(node)  # with the padding that waits for a convolution
        placeholder = shape_placeholder(shaped.shape, shaped.batch)
        conversion.constants[node.outputs[0]] = fold_node(node, [placeholder], opsets)
    elif node.op_type not in CONVERTERS:
        refuse(node, "")
    else:
        if node.op_type not in MANY_OUTPUTS and any(conversion.is_read(name) for name in node.outputs[1:]):
            refuse(node, f"its outputs {list(node.outputs[1:])} are used, expected only the first")
        with np.errstate(all="ignore"):  # a result that is not finite is refused when it becomes a constant
            CONVERTERS[node.op_type](node, conversion)


def _add_output(conversion: Conversion, name: str, node: Node) -> tuple[str, tuple[str, ...]]:
    """Return the tensor of the network's output, and a note when its axes changed places.

    What a ``node`` gives as output in another order is transposed; images stay channels last.
    """
    source, value, builder = conversion.builder.source, conversion.find(name), conversion.builder
    if value is not None and value.padding != NO_PADDING:
        value = conversion.value(replace(node, inputs=(name,)))
    is_image = value is not None and len(value.shape) == 3 and is_straight(value.positions.transpose(1, 2, 0))
    if value is None or (builder.producer(value.tensor) is None and (is_image or is_straight(value.positions))):
        raise ModelFileError(f"{source}: output {name!r} is computed by no operator, expected a network")
    if value.batch:
        raise UnsupportedOperatorError(
            f"{source}: output {name!r} has the batch at axis {value.batch}, expected the batch axis to stay first"
        )
    if is_image and not is_straight(value.positions):
        channels, height, width = value.shape
        tensor = builder.reshape(value.tensor, (height, width, channels))
        return tensor, (f"output {name!r} comes as (height, width, channels)",)
    tensor = conversion.arrange(node, value, range(len(value.shape)))
    is_done = builder.tensors[tensor].shape == value.shape and tensor == name
    return tensor if is_done else builder.reshape(tensor, value.shape, name), ()


def _without_first_reshape(graph: Graph) -> Graph:
    """Give the input the shape that its only reader wants: a flat input keeps its order in any shape."""
    name = graph.inputs[0]
    readers = graph.consumers(name)
    if len(readers) != 1 or not isinstance(readers[0], Reshape) or readers[0].output in graph.outputs:
        return graph
    first = readers[0]
    shaped = replace(graph.tensors[name], shape=graph.tensors[first.output].shape)
    tensors = {key: tensor for key, tensor in graph.tensors.items() if key != first.output} | {name: shaped}
    ops = tuple(replace_input(op, first.output, name) for op in graph.ops if op is not first)
    return replace(graph, ops=ops, tensors=tensors)


def _origin_note(model: onnx.ModelProto) -> str:
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    return f"ONNX opset {opset_version(model)}" + (
        f" written by {producer}" if producer.isprintable() and producer else ""
    )


def _rewrite_notes(conversion: Conversion) -> tuple[str, ...]:
    return tuple(f"{rewrite}: {count}" for rewrite, count in sorted(conversion.rewrites.items()) if count)
