"""Damaged and hostile .tflite files: one typed error each, soon, and without the memory that they claim."""

import resource
import struct
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from benchmarks.mutated_tflite import Job, import_ending, main, run_job
from benchmarks.tflite_mutations import mutated, original
from nettrim.importers.tflite_import import import_tflite
from nettrim_exporters.tflite import render_tflite
from nettrim_runtime.errors import ModelFileError
from tests.graphs import quantized, random_branches, random_cnn, random_functions, random_mlp, random_moves, widened
from tests.nettrim.test_import_tflite import dense_file, random_floats
from tests.nettrim.test_import_tflite_sparse import sparse_levels
from tests.nettrim.tflite_models import FileWriter
from tests.shared_data import shared_data

TYPED = {"loaded", "ModelFileError", "UnsupportedOperatorError"}
MUTATIONS = 80  # of each file


@pytest.fixture(autouse=True)
def warnings_count_as_faults() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sparse_file(block: int = 4) -> tuple[FileWriter, bytes]:
    weight = random_floats(6, 16)
    weight[:, 4:12] = 0
    sparsity, values = sparse_levels(weight, block)
    file, entry, output = dense_file(weight, bias=None)
    file.buffers[file.tensors[2].buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    file.tensors[2].sparsity = sparsity
    return file, file.content((entry,), (output,))


def small_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        "float": render_tflite(random_cnn(rng)),
        "int8": render_tflite(quantized(random_cnn(rng), rng)),
        "int16": render_tflite(widened(random_mlp(rng), rng)),
        "branches": render_tflite(quantized(random_branches(rng), rng)),
        "functions": render_tflite(quantized(random_functions(rng), rng)),
        "moves": render_tflite(quantized(random_moves(rng), rng)),
        "sparse": sparse_file()[1],
    }


@pytest.mark.parametrize("name", ["float", "int8", "int16", "branches", "functions", "moves", "sparse"])
def test_mutated_files_load_or_are_refused(name: str) -> None:
    source = original(name, small_files()[name])
    endings = [import_ending(mutated(source, np.random.default_rng([1, number]))) for number in range(MUTATIONS)]
    assert set(endings) <= TYPED, [ending for ending in endings if ending not in TYPED]
    assert endings.count("ModelFileError") > MUTATIONS / 4


@pytest.mark.parametrize("name", ["int8", "sparse"])
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    data = small_files()[name]
    for size in range(8, len(data) - 16, 7):
        assert import_ending(data[:size]) == "ModelFileError", size


def test_the_benchmark_counts_what_it_imports() -> None:
    outcome = run_job(Job(shared_data("models/hello_world_int8.tflite"), 0, 20))
    assert (outcome.counts.total(), outcome.counts["crash"], outcome.crashes) == (20, 0, ())


def test_the_benchmark_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["mutated_tflite"])
    assert main() == 6
    assert "give --data DIR" in capsys.readouterr().err


def message(data: bytes) -> str:
    with pytest.raises(ModelFileError) as caught:
        import_tflite(data, "net.tflite", "net")
    assert str(caught.value).startswith("net.tflite: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "identifier b'' at byte 4, expected b'TFL3'"),
        (b"\x1c\0\0\0ONNX" + bytes(64), "identifier b'ONNX' at byte 4"),
        (b"\xff\xff\xff\xffTFL3" + bytes(64), "the model claims 4 bytes at byte 4294967295 of 72"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "the model claims a vtable of 0 bytes"),
        (struct.pack("<I4sIi", 12, b"TFL3", 0, -100) + bytes(8), "vtable of the model claims 2 bytes at byte 112"),
    ],
)
def test_what_is_damaged_is_named_with_its_place(data: bytes, expected: str) -> None:
    assert expected in message(data)


def model_of(change: Callable[[Any], object]) -> bytes:
    """Return a sound file of one dense layer, changed through the schema's own classes."""
    import flatbuffers

    file, entry, output = dense_file(random_floats(3, 5), bias=None)
    model = published.ModelT.InitFromPackedBuf(file.content((entry,), (output,)), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def change_tensor(number: int, **values: Any) -> Callable[[Any], object]:
    return lambda model: [setattr(model.subgraphs[0].tensors[number], name, value) for name, value in values.items()]


def change_operator(**values: Any) -> Callable[[Any], object]:
    return lambda model: [setattr(model.subgraphs[0].operators[0], name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda model: setattr(model, "version", 2), "schema version 2, expected 3"),
        (lambda model: setattr(model, "subgraphs", []), "has no subgraph"),
        (change_tensor(2, shape=[1 << 30, 1 << 30]), "holds 60 bytes, expected what fits the shape"),
        (change_tensor(2, shape=[-3, 5]), "holds 60 bytes, expected what fits the shape"),
        (change_tensor(2, shape=[3] * 9), "shape of tensor 2 has 9 entries, expected at most 8"),
        (change_tensor(2, type=published.TensorType.STRING), "is STRING, expected one of FLOAT32"),
        (change_tensor(2, buffer=77), "names buffer 77, expected one of 2"),
        (change_tensor(0, shape=[1, 1 << 30]), "at most 16777216 values"),
        (change_tensor(0, shape=[1, 0]), "expected sizes of at least one"),
        (change_operator(opcodeIndex=9), "operator 0 names code 9, expected one of 1"),
        (change_operator(inputs=[0, 99, -1]), "inputs of operator 0 are tensors (0, 99, -1), expected -1 to 2"),
        (change_operator(builtinOptionsType=1), "has options of type 1, expected FULLY_CONNECTED (8)"),
        (lambda model: model.subgraphs[0].operators.append(model.subgraphs[0].operators[0]), "is written twice"),
    ],
)
def test_files_that_contradict_themselves_are_refused(change: Callable[[Any], object], expected: str) -> None:
    assert expected in message(model_of(change))


def test_an_output_that_is_the_input_is_refused() -> None:
    file = FileWriter()
    entry, output = file.activation((1, 8), "int8", scale=0.05), file.activation((1, 8))
    file.add("DEQUANTIZE", (entry,), output, version=2)
    assert "output 't1' is computed by no operator" in message(file.content((entry,), (output,)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda sparsity: setattr(sparsity, "traversalOrder", [0, 0, 2]), "traversal order [0, 0, 2]"),
        (lambda sparsity: setattr(sparsity, "blockMap", [7]), "block map [7]"),
        (lambda sparsity: setattr(sparsity.dimMetadata[2], "denseSize", 5), "blocks of 5 along axis 1"),
        (lambda sparsity: setattr(sparsity.dimMetadata[2], "denseSize", 0), "blocks of 0 along axis 1"),
        (lambda sparsity: setattr(sparsity.dimMetadata[1].arraySegments, "values", [0, 1, 2, 3, 4, 5, 99]), "segments"),
        (lambda sparsity: setattr(sparsity.dimMetadata[1].arrayIndices, "values", [9] * 12), "indices"),
        (lambda sparsity: setattr(sparsity.dimMetadata[1], "arraySegmentsType", 0), "segments of type 0"),
    ],
)
def test_sparse_layouts_that_do_not_fit_are_refused(change: Callable[[Any], object], expected: str) -> None:
    file, _ = sparse_file()
    change(file.tensors[2].sparsity)
    assert expected in message(file.content((0,), (1,)))


def test_memory_is_not_taken_before_sizes_are_checked() -> None:
    tracemalloc.start()
    try:
        for change in (change_tensor(0, shape=[1, (1 << 31) - 1]), change_tensor(2, shape=[(1 << 31) - 1, 2])):
            message(model_of(change))
        file, _ = sparse_file()
        file.tensors[2].shape = [1 << 20, 1 << 20]
        message(file.content((0,), (1,)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_name_of_any_bytes_is_shown_as_text() -> None:
    data = bytearray(model_of(lambda _: None))
    place = data.index(b"t2")
    data[place : place + 2] = b"\xff\xfe"
    model = import_tflite(bytes(data), "net.tflite", "net")
    assert model.graph.layers[0].name == "\ufffd\ufffd"


def test_a_job_leaves_the_process_as_it_was() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    run_job(Job(shared_data("models/hello_world_int8.tflite"), 0, 2))
    assert resource.getrlimit(resource.RLIMIT_AS) == before
