"""What tools show of a .tflite file: names, how samples become its input, what its classes are called.

Follows the published metadata_schema.fbs of TensorFlow Lite Support, version 1.0.0; interpreters pass over it.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

from nettrim_exporters.flatbuffer_tables import Encode, Fields, write_table, write_tables, write_vector
from nettrim_runtime.graph import Graph
from nettrim_runtime.tflite_schema import Field, FieldType

BUFFER_NAME = "TFLITE_METADATA"  # by which tools find it in the model
FILE_IDENTIFIER = b"M001"  # metadata_schema.fbs: file_identifier
PARSER_VERSION = "1.0.0"
LABELS_FILE = "labels.txt"  # packed behind the model, and beside it
LABELS_OF_AN_AXIS = 2  # enum AssociatedFileType: TENSOR_AXIS_LABELS
NORMALIZATION = 1  # union ProcessUnitOptions: NormalizationOptions
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows: the same input gives the same bytes

MODEL_NAME, MODEL_DESCRIPTION, MODEL_SUBGRAPHS, MODEL_PARSER = (Field(n, FieldType.OFFSET) for n in (0, 1, 3, 7))
SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = (Field(n, FieldType.OFFSET) for n in (2, 3))
TENSOR_NAME, TENSOR_PROCESS_UNITS, TENSOR_FILES = (Field(n, FieldType.OFFSET) for n in (0, 4, 6))
UNIT_OPTIONS_TYPE, UNIT_OPTIONS = Field(0, FieldType.UINT8), Field(1, FieldType.OFFSET)
NORMALIZATION_MEAN, NORMALIZATION_STD = (Field(n, FieldType.OFFSET) for n in (0, 1))
FILE_NAME, FILE_TYPE = Field(0, FieldType.OFFSET), Field(2, FieldType.INT8)


@dataclass(frozen=True)
class Preparation:
    """How a raw sample becomes the network's input, and what its classes are called.

    Attributes
    ----------
    mean, std : tuple of float
        (x - mean) / std, one value or one a channel, before the input's own quantisation.
    labels : tuple of str
        One a class, or none.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] = ()


def encode_metadata(graph: Graph, preparation: Preparation, description: str = "") -> bytes:
    """Return the flatbuffer of a network's metadata (table ModelMetadata)."""
    builder = flatbuffers.Builder(1024)
    has_labels = bool(preparation.labels)
    inputs: list[Encode] = [_input(name, preparation) for name in graph.inputs]
    outputs: list[Encode] = [_output(name, has_labels=has_labels) for name in graph.outputs]
    fields = {
        MODEL_SUBGRAPHS: write_tables(builder, [_subgraph(inputs, outputs)]),
        MODEL_NAME: builder.CreateString(graph.name),
        MODEL_DESCRIPTION: builder.CreateString(description),
        MODEL_PARSER: builder.CreateString(PARSER_VERSION),
    }
    builder.Finish(write_table(builder, fields), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def with_labels(content: bytes, labels: Sequence[str]) -> bytes:
    """Return a .tflite with its class names packed behind it, as a zip that flatbuffers do not see."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, ZIP_DATE), render_labels(labels))
    return file.getvalue()


def render_labels(labels: Sequence[str]) -> str:
    """Return the text of labels.txt: one name a line, in the order of the classes."""
    return "".join(f"{label}\n" for label in labels)


def _subgraph(inputs: Sequence[Encode], outputs: Sequence[Encode]) -> Encode:
    def encode(builder: Any) -> int:
        fields = {
            SUBGRAPH_INPUTS: write_tables(builder, inputs),
            SUBGRAPH_OUTPUTS: write_tables(builder, outputs),
        }
        return write_table(builder, fields)

    return encode


def _input(name: str, preparation: Preparation) -> Encode:
    def encode_options(builder: Any) -> int:
        fields = {
            NORMALIZATION_MEAN: write_vector(builder, np.array(preparation.mean), np.float32),
            NORMALIZATION_STD: write_vector(builder, np.array(preparation.std), np.float32),
        }
        return write_table(builder, fields)

    def encode_unit(builder: Any) -> int:
        return write_table(builder, {UNIT_OPTIONS_TYPE: NORMALIZATION, UNIT_OPTIONS: encode_options(builder)})

    def encode(builder: Any) -> int:
        fields = {TENSOR_PROCESS_UNITS: write_tables(builder, [encode_unit]), TENSOR_NAME: builder.CreateString(name)}
        return write_table(builder, fields)

    return encode


def _output(name: str, *, has_labels: bool) -> Encode:
    def encode_file(builder: Any) -> int:
        fields = {FILE_NAME: builder.CreateString(LABELS_FILE), FILE_TYPE: LABELS_OF_AN_AXIS}
        return write_table(builder, fields)

    def encode(builder: Any) -> int:
        fields: Fields = {TENSOR_NAME: builder.CreateString(name)}
        if has_labels:
            fields = {**fields, TENSOR_FILES: write_tables(builder, [encode_file])}
        return write_table(builder, fields)

    return encode
