"""A .tflite network to a Graph, operator by operator; what cannot be carried over is reported all at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nettrim.importers.imported_model import ImportedModel, InputIntegers, InputLayout, transpose_note
from nettrim.importers.refusals import Refusal, refusal_message
from nettrim.importers.tflite_clamps import convert_bounds, convert_clamp
from nettrim.importers.tflite_conversion import Conversion, RefusedOperatorError, UnknownInputError, refuse
from nettrim.importers.tflite_elementwise import convert_pair, convert_power, convert_square
from nettrim.importers.tflite_file import FileGraph, FileOperator, read_tflite
from nettrim.importers.tflite_functions import (
    convert_function,
    convert_gelu,
    convert_leaky_relu,
    convert_prelu,
    convert_softmax,
)
from nettrim.importers.tflite_integers import integer_graph
from nettrim.importers.tflite_joins import convert_concatenation, convert_pack
from nettrim.importers.tflite_layers import (
    convert_batch_mat_mul,
    convert_conv,
    convert_depthwise_conv,
    convert_fully_connected,
)
from nettrim.importers.tflite_moves import (
    convert_depth_to_space,
    convert_resize_nearest,
    convert_space_to_depth,
    convert_transpose,
)
from nettrim.importers.tflite_normalization import (
    NormalizationOperator,
    convert_normalization,
    recognise_normalizations,
)
from nettrim.importers.tflite_padding import convert_pad
from nettrim.importers.tflite_recognition import FunctionOperator, convert_recognised_function, recognise_functions
from nettrim.importers.tflite_reductions import convert_mean, convert_reduce_max
from nettrim.importers.tflite_selection import convert_gather, convert_slice, convert_split, convert_unpack
from nettrim.importers.tflite_shapes import (
    convert_densify,
    convert_dequantize,
    convert_quantize,
    convert_reshape,
)
from nettrim.importers.tflite_transposed_conv import convert_transpose_conv
from nettrim.importers.tflite_windows import convert_pool
from nettrim.passes import simplify, sink_transposes
from nettrim_runtime.errors import GraphError, ModelFileError, UnsupportedOperatorError
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Transpose

CONVERTERS: Mapping[str, Callable[[FileOperator, Conversion], None]] = {
    "ADD": convert_pair,
    "AVERAGE_POOL_2D": convert_pool,
    "BATCH_MATMUL": convert_batch_mat_mul,
    "CONCATENATION": convert_concatenation,
    "CONV_2D": convert_conv,
    "DENSIFY": convert_densify,
    "DEPTH_TO_SPACE": convert_depth_to_space,
    "DEPTHWISE_CONV_2D": convert_depthwise_conv,
    "DEQUANTIZE": convert_dequantize,
    "DIV": convert_pair,
    "EXPAND_DIMS": convert_reshape,
    "FULLY_CONNECTED": convert_fully_connected,
    "GATHER": convert_gather,
    "GELU": convert_gelu,
    "HARD_SWISH": convert_function,
    "LEAKY_RELU": convert_leaky_relu,
    "LOGISTIC": convert_function,
    "LOG_SOFTMAX": convert_softmax,
    "MAXIMUM": convert_bounds,
    "MAX_POOL_2D": convert_pool,
    "MEAN": convert_mean,
    "MINIMUM": convert_bounds,
    "MUL": convert_pair,
    "PACK": convert_pack,
    "PAD": convert_pad,
    "PADV2": convert_pad,
    "POW": convert_power,
    "PRELU": convert_prelu,
    "QUANTIZE": convert_quantize,
    "REDUCE_MAX": convert_reduce_max,
    "RELU": convert_clamp,
    "RELU6": convert_clamp,
    "RELU_0_TO_1": convert_bounds,
    "RELU_N1_TO_1": convert_clamp,
    "RESHAPE": convert_reshape,
    "RSQRT": convert_function,
    "RESIZE_NEAREST_NEIGHBOR": convert_resize_nearest,
    "SLICE": convert_slice,
    "SOFTMAX": convert_softmax,
    "SPACE_TO_DEPTH": convert_space_to_depth,
    "SPLIT": convert_split,
    "SPLIT_V": convert_split,
    "SQUARE": convert_square,
    "SQUARED_DIFFERENCE": convert_square,
    "SQUEEZE": convert_reshape,
    "STRIDED_SLICE": convert_slice,
    "SUB": convert_pair,
    "SUM": convert_mean,
    "TANH": convert_function,
    "TRANSPOSE": convert_transpose,
    "TRANSPOSE_CONV": convert_transpose_conv,
    "UNPACK": convert_unpack,
}
INPUTS_THAT_COUNT = {  # shapes may be computed from the batch size, by operators of no other use
    "RESHAPE": slice(1),
    "TRANSPOSE_CONV": slice(1, None),
}
SEVERAL_OUTPUTS = {"SPLIT", "SPLIT_V", "UNPACK"}
INPUT_TYPES = ("FLOAT32", "INT8", "UINT8", "INT16")
UINT8_SHIFT = 128  # from an int8 zero point to that of the uint8 value of the same meaning


def import_tflite(data: bytes, source: str, name: str, input_shape: tuple[int, ...] | None = None) -> ImportedModel:
    """Return the network in the bytes of a .tflite file.

    Parameters
    ----------
    source : str
        The file, for error messages.
    name : str
        The graph's name.
    input_shape : tuple of int, optional
        The shape of one sample, where the file leaves it open.

    Raises
    ------
    ModelFileError
        When the bytes are damaged, or the input's shape is open.
    UnsupportedOperatorError
        When operators cannot be carried over: the message names all of them.
    """
    file = read_tflite(data, source)
    operators = _needed_operators(file.operators, file.outputs)
    for recognise in (recognise_normalizations, recognise_functions):
        operators = _needed_operators(recognise(file, operators), file.outputs)
    output = _only_output(file)
    conversion = Conversion(file)
    shape = _add_input(conversion, operators, input_shape)
    taken = _input_integers(conversion)
    refusals = _convert(operators, conversion)
    if refusals:
        raise UnsupportedOperatorError(refusal_message(source, refusals, CONVERTERS))
    try:
        built = conversion.builder.build(
            name, (next(iter(conversion.builder.tensors)),), (_output_tensor(conversion, output),)
        )
        graph, integers = simplify(sink_transposes(built)), integer_graph(built, conversion)
    except GraphError as error:
        raise ModelFileError(f"{source}: the network does not fit together: {error}") from error
    notes = (
        _origin_note(file),
        *conversion.notes,
        *([integers.note] if integers else []),
        transpose_note(_transposes(graph)),
    )
    layout: InputLayout = "NHWC" if len(shape) == 3 else "flat"
    quantized = integers.graph if integers else None
    return ImportedModel(graph, layout, shape, notes, "TensorFlow Lite", quantized, taken)


def _output_tensor(conversion: Conversion, output: int) -> str:
    """Return the tensor of the network's output, with the zeros that a PAD puts around it."""
    value, file = conversion.find(output), conversion.file
    tensor = None if value is None else conversion.padded(value)
    if tensor is None or conversion.builder.producer(tensor) is None:
        raise ModelFileError(f"{file.source}: output {file.tensors[output].name!r} is computed by no operator")
    return tensor


def _transposes(graph: Graph) -> list[str]:
    return [op.name for op in graph.ops if isinstance(op, Transpose)]


def _needed_operators(operators: Sequence[FileOperator], outputs: Sequence[int]) -> list[FileOperator]:
    """Return the operators that an output depends on, in the file's order."""
    needed, kept = set(outputs), []
    for operator in reversed(operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs[INPUTS_THAT_COUNT.get(operator.op_type, slice(None))])
            kept.append(operator)
    return kept[::-1]


def _only_output(file: FileGraph) -> int:
    if len(file.outputs) != 1:
        shown = ", ".join(repr(file.tensors[index].name) for index in file.outputs[:4])
        raise UnsupportedOperatorError(
            f"{file.source}: the network has {len(file.outputs)} outputs ({shown}), expected one"
        )
    return file.outputs[0]


def _add_input(
    conversion: Conversion, operators: Sequence[FileOperator], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Add the network's only input; return the shape of one sample."""
    file = conversion.file
    read = {index for operator in operators for index in operator.inputs}
    inputs = [index for index in file.inputs if index in read]
    if len(inputs) != 1:
        shown = ", ".join(repr(file.tensors[index].name) for index in inputs[:4])
        raise UnsupportedOperatorError(f"{file.source}: the network has {len(inputs)} inputs ({shown}), expected one")
    entry = file.tensors[inputs[0]]
    if entry.type not in INPUT_TYPES:
        raise UnsupportedOperatorError(
            f"{file.source}: input {entry.name!r} takes {entry.type}, expected one of {', '.join(INPUT_TYPES)}"
        )
    sizes = entry.signature if len(entry.signature) == len(entry.shape) else entry.shape
    if not sizes or sizes[0] not in {-1, 1} or entry.shape[0] != 1:
        raise ModelFileError(
            f"{file.source}: input {entry.name!r} has shape {sizes}, expected a batch of one or any size in front"
        )
    shape = _completed(file.source, entry.name, sizes[1:], given)
    conversion.put_input(inputs[0], conversion.builder.add_input(entry.name or "input", shape))
    return shape


def _input_integers(conversion: Conversion) -> InputIntegers | None:
    """Return what the input takes, before operators are converted: only it has integers yet, if it has."""
    found = next(iter(conversion.integers.values()), None)
    if found is None:
        return None
    shift = UINT8_SHIFT if found.type == "UINT8" else 0
    quantization = replace(found.quantization, zero_point=found.quantization.zero_point + shift)
    return InputIntegers(found.type.lower(), quantization)


def _completed(source: str, name: str, sizes: tuple[int, ...], given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one sample: the file's, with open sizes from --input-shape."""
    if given is None and -1 in sizes:
        example = ",".join("28" if size == -1 else str(size) for size in sizes)
        raise ModelFileError(f"{source}: input {name!r} has open sizes {sizes}: give --input-shape, such as {example}")
    shape = sizes if given is None else given
    if len(shape) != len(sizes) or any(size not in {-1, own} for size, own in zip(sizes, shape, strict=True)):
        raise ModelFileError(f"{source}: --input-shape {given}, but input {name!r} takes {sizes}")
    return shape


def _convert(operators: Sequence[FileOperator], conversion: Conversion) -> list[Refusal]:
    refusals = []
    for operator in operators:
        try:
            if operator.op_type not in CONVERTERS:
                refuse("")
            if len(operator.outputs) != 1 and operator.op_type not in SEVERAL_OUTPUTS:
                refuse(f"it has {len(operator.outputs)} outputs, expected one")
            if any(conversion.find(output) is not None for output in operator.outputs):
                raise ModelFileError(f"{conversion.file.source}: tensor {operator.name!r} is written twice")
            if isinstance(operator, NormalizationOperator):
                convert_normalization(operator, conversion)
            elif isinstance(operator, FunctionOperator):
                convert_recognised_function(operator, conversion)
            else:
                CONVERTERS[operator.op_type](operator, conversion)
        except RefusedOperatorError as error:
            refusals.append(Refusal(operator.op_type, operator.name, str(error)))
        except UnknownInputError:
            continue  # what it depends on has been refused already
        except GraphError as error:
            raise ModelFileError(
                f"{conversion.file.source}: {operator.op_type} {operator.name!r} does not fit: {error}"
            ) from error
    return refusals


def _origin_note(file: FileGraph) -> str:
    described = file.description if file.description.isprintable() else ""
    return f"TensorFlow Lite file, {described}" if described else "TensorFlow Lite file"
