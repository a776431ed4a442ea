import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nettrim.hybrid import shipped_floats
from nettrim.storage import smallest_formats
from nettrim_runtime.csr import csr_from_dense
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import ModelFileError
from nettrim_runtime.graph import Graph
from nettrim_runtime.model_file import load_model, render_model
from tests.graphs import (
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
)


def sparse_cnn(rng: np.random.Generator) -> Graph:
    graph = quantized(random_cnn(rng, density=0.3), rng)
    weights = [graph.tensors[layer.weight] for layer in graph.layers]
    return graph.with_tensors(
        replace(weight, data=csr_from_dense(weight.values().reshape(weight.shape[0], -1))) for weight in weights
    )


def sparse_hybrid(rng: np.random.Generator) -> Graph:
    return smallest_formats(shipped_floats(random_mlp(rng, density=0.05), "hybrid"))


@pytest.mark.parametrize(
    "make", [random_mlp, random_cnn, random_branches, random_functions, random_moves, sparse_cnn, sparse_hybrid]
)
def test_a_saved_graph_reads_back_with_the_same_outputs(
    make: Callable[[np.random.Generator], Graph], rng: np.random.Generator, tmp_path: Path
) -> None:
    graph = make(rng)
    (tmp_path / "model.npz").write_bytes(render_model(graph))
    samples = random_inputs(graph, rng, 5)
    np.testing.assert_array_equal(run_graph(load_model(tmp_path / "model.npz"), samples), run_graph(graph, samples))


def test_the_same_graph_gives_the_same_bytes(rng: np.random.Generator) -> None:
    graph = sparse_cnn(rng)
    assert render_model(graph) == render_model(graph)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"gone\.npz: no such file"):
        load_model(tmp_path / "gone.npz")


def test_every_truncation_is_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    content = render_model(quantized(random_mlp(rng), rng))
    path = tmp_path / "model.npz"
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            load_model(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_gives_the_model_or_a_typed_error(tmp_path: Path, position: int, value: int) -> None:
    content = bytearray(render_model(random_mlp(np.random.default_rng(1))))
    content[position % len(content)] = value
    path = tmp_path / "model.npz"
    path.write_bytes(bytes(content))
    try:
        load_model(path)
    except ModelFileError as error:
        assert str(path) in str(error)  # noqa: PT017  # either outcome is right; the message must name the file


def _with_header(content: bytes, **changes: object) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes()) | changes
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    result = io.BytesIO()
    np.savez(result, **arrays)
    return result.getvalue()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "format version 2, this nettrim reads version 1"),
        ({"format": "other"}, "of another format"),
        ({"ops": [{"type": "Explode"}]}, "operator 'Explode' is unknown"),
        ({"ops": [{"type": "Concat", "name": "c", "inputs": [1], "output": "y"}]}, "inputs holds .1., expected texts"),
        ({"ops": 3}, "ops is 3, expected a list"),
        ({"inputs": [1]}, "expected texts"),
        ({"outputs": ["nowhere"]}, "inconsistent"),
        ({"tensors": []}, "inconsistent"),
    ],
)
def test_a_header_that_is_wrong_is_refused_by_name(
    changes: dict[str, object], message: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(_with_header(render_model(random_mlp(rng)), **changes))
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


def test_sparse_rows_that_lie_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    with np.load(io.BytesIO(render_model(sparse_cnn(rng)))) as file:
        arrays = dict(file)
    name = next(name for name in arrays if name.endswith(".indices"))
    arrays[name] = np.full_like(arrays[name], 255)
    np.savez(tmp_path / "model.npz", **arrays)
    with pytest.raises(ModelFileError, match="a column index is 255, expected less than"):
        load_model(tmp_path / "model.npz")


def test_an_archive_that_unpacks_too_large_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nettrim_runtime.model_file.LARGEST_FILE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "model.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"\0" * 5000)
    with pytest.raises(ModelFileError, match="unpacks to 5000 bytes"):
        load_model(tmp_path / "model.npz")
