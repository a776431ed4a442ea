"""Metadata of a .tflite: read back slot by slot of the published schema, passed over by LiteRT, labels in a zip."""

import io
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from graphs import GraphBuilder, quantized, random_inputs

from nettrim.importers.flatbuffer import FlatBuffer, Table
from nettrim.importers.tflite_import import import_tflite
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_metadata import Preparation
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.tflite_schema import Field, FieldType

PREPARATION = Preparation(mean=(0.5, 0.25), std=(2.0,), labels=("zero", "one", "zwei"))


@pytest.fixture
def graph() -> Graph:
    rng = np.random.default_rng(0)
    builder = GraphBuilder(rng, (12,))
    builder.dense(3)
    return quantized(builder.build(), rng)


def metadata(content: bytes) -> Table:
    model = published.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    return FlatBuffer(bytes(model.buffers[entry.buffer].data), "metadata").root(b"M001", "ModelMetadata")


def only(table: Table, slot: int) -> Table:
    """Return the only table in the vector of a slot."""
    (place,) = table.children(Field(slot, FieldType.OFFSET), "vector", 1)
    return table.buffer.table(place, "entry")


def text(table: Table, slot: int) -> str:
    return table.text(Field(slot, FieldType.OFFSET))


def test_names_and_preparation_are_read_back(graph: Graph) -> None:
    model = metadata(render_tflite(graph, "what it is", preparation=PREPARATION))
    assert (text(model, 0), text(model, 1), text(model, 7)) == (graph.name, "what it is", "1.0.0")
    subgraph = only(model, 3)
    entry, result = only(subgraph, 2), only(subgraph, 3)
    assert (text(entry, 0), text(result, 0)) == (graph.inputs[0], graph.outputs[0])
    unit = only(entry, 4)
    assert unit.integer(Field(0, FieldType.UINT8)) == 1  # NormalizationOptions
    options = unit.child(Field(1, FieldType.OFFSET), "options")
    assert options is not None
    numbers = [options.numbers(Field(slot, FieldType.OFFSET), np.float32, "numbers", 9).tolist() for slot in (0, 1)]
    assert numbers == [[0.5, 0.25], [2.0]]
    labels = only(result, 6)
    assert text(labels, 0) == "labels.txt"
    assert labels.integer(Field(2, FieldType.INT8)) == 2  # TENSOR_AXIS_LABELS


def test_class_names_lie_in_a_zip_behind_the_model(graph: Graph) -> None:
    content = render_tflite(graph, preparation=PREPARATION)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("labels.txt") == b"zero\none\nzwei\n"
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    assert content == render_tflite(graph, preparation=PREPARATION)


def test_a_file_without_labels_ends_with_the_model(graph: Graph) -> None:
    content = render_tflite(graph, preparation=Preparation())
    assert not zipfile.is_zipfile(io.BytesIO(content))
    assert len(only(only(metadata(content), 3), 3).children(Field(6, FieldType.OFFSET), "files", 1)) == 0


def test_interpreters_and_the_importer_pass_over_it(graph: Graph) -> None:
    content = render_tflite(graph, preparation=PREPARATION)
    samples = random_inputs(graph, np.random.default_rng(1), 1)
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], samples)
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.array_equal(outputs, run_graph(graph, samples))
    read = import_tflite(content, "model.tflite", "model").quantized
    assert read is not None
    assert np.array_equal(run_graph(read, samples), outputs)
