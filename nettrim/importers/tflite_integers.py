"""The quantised graph that a .tflite file holds: its own integers and scales, where nettrim computes as TFLite does."""

from dataclasses import dataclass, replace

from nettrim.clear_tables import CLEAR
from nettrim.importers.tflite_conversion import Conversion, Integers
from nettrim.importers.tflite_parameters import scale_objection
from nettrim.passes import simplify, sink_transposes
from nettrim_runtime.errors import NettrimError
from nettrim_runtime.fixed_output import fixed_output
from nettrim_runtime.graph import Graph, Tensor
from nettrim_runtime.ops import Reshape, UnaryFunction, op_constants, op_inputs
from nettrim_runtime.unary import border_distance

DTYPES = {"INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64"}
RETYPES = {"QUANTIZE", "DEQUANTIZE"}  # operators whose floats are the integers beside them
OBJECTIONS_SHOWN = 3


@dataclass(frozen=True, eq=False)
class FileIntegers:
    """A file's integers as a graph, or None; ``note`` says which, and why."""

    graph: Graph | None
    note: str


def integer_graph(graph: Graph, conversion: Conversion) -> FileIntegers | None:
    """Return the quantised graph of the operators that were converted; None of a file of floats.

    Parameters
    ----------
    graph : Graph
        Of floats, not simplified: with a `Requantize` wherever the file rescales.
    """
    if not any(found.data is None for found in conversion.integers.values()):
        return None
    for op in graph.ops:
        if isinstance(op, Reshape) and op.input in conversion.integers:
            conversion.integers.setdefault(op.output, conversion.integers[op.input])
    objections = [*conversion.objections, *_in_floats(conversion), *_missing(graph, conversion)]
    if objections:
        return _refused(objections)
    tensors = {name: _with_integers(tensor, conversion.integers[name]) for name, tensor in graph.tensors.items()}
    try:
        quantized = simplify(sink_transposes(replace(graph, tensors=tensors)))
    except NettrimError as error:
        return _refused([str(error)])
    objections = [*filter(None, (scale_objection(quantized, op) for op in quantized.ops))]
    objections = objections or _uncertain(graph, conversion)
    if objections:
        return _refused(objections)
    return FileIntegers(quantized, "the file's own integers")


def _in_floats(conversion: Conversion) -> list[str]:
    """Name the operators that the file computes in floats, and that were not left out: other bits than integers'."""
    tensors, objections = conversion.file.tensors, []
    for operator in conversion.file.operators:
        read, written = ({conversion.find(place) for place in ends} for ends in (operator.inputs, operator.outputs))
        is_left_out = written <= {None, *read}
        activations = [place for place in (*operator.inputs, *operator.outputs) if conversion.find(place) is not None]
        is_float = any(tensors[place].type == "FLOAT32" for place in activations)
        if is_float and not is_left_out and operator.op_type not in RETYPES:
            objections.append(f"{operator.op_type} {operator.name!r} computes in floats")
    return objections


def _missing(graph: Graph, conversion: Conversion) -> list[str]:
    """Name the operators that do not compute with int8 and int16."""
    objections = []
    for op in graph.ops:
        kinds = {conversion.integers[name].type for name in (*op_inputs(op), op.output) if name in conversion.integers}
        is_whole = all(name in conversion.integers for name in (*op_inputs(op), *op_constants(op), op.output))
        if not is_whole or "UINT8" in kinds:
            objections.append(f"{type(op).__name__} {op.name!r} is not int8 throughout")
    ends = {conversion.integers[name].type for name in (*graph.inputs, *graph.outputs) if name in conversion.integers}
    if ends != {"INT8"}:
        objections.append(f"its input and output are {', '.join(sorted(ends))}, expected INT8")
    return objections


def _uncertain(graph: Graph, conversion: Conversion) -> list[str]:
    """Name outputs of other scales than TFLite's, and functions whose table depends on the C library."""
    objections = []
    for op in graph.ops:
        output = conversion.integers[op.output]
        found, wanted = output.quantization, fixed_output(op, DTYPES[output.type])
        if wanted is not None and not wanted.same_as(found):
            objections.append(f"{type(op).__name__} {op.name!r} writes scale {found.scale[0]}, not {wanted.scale[0]}")
        elif isinstance(op, UnaryFunction) and output.type == "INT8":
            distance = border_distance(op, conversion.integers[op.input].quantization, found)
            if distance < CLEAR:
                objections.append(f"{op.function.value} {op.name!r} rounds at a border, where C libraries differ")
    return objections


def _with_integers(tensor: Tensor, found: Integers) -> Tensor:
    return replace(tensor, dtype=DTYPES[found.type], quantization=found.quantization, data=found.data)


def _refused(objections: list[str]) -> FileIntegers:
    more = f" and {len(objections) - OBJECTIONS_SHOWN} more" if len(objections) > OBJECTIONS_SHOWN else ""
    listed = "; ".join(objections[:OBJECTIONS_SHOWN])
    return FileIntegers(None, f"the file's integers cannot be kept as they are, its values are: {listed}{more}")
