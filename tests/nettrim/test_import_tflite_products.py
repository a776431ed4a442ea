"""Products with matrices in .tflite files, of one row and of several: the results of LiteRT on the same file."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as published

from nettrim.importers import load_model
from nettrim_runtime.errors import UnsupportedOperatorError
from tests.nettrim.test_import_tflite import assert_runs_as_in_litert, random_floats
from tests.nettrim.tflite_models import RELU, FileWriter, write_file


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes", "kind"),
    [((1, 5), (), "Dense"), ((1, 4, 5), (), "Conv2d"), ((1, 4, 5), (1,), "Conv2d"), ((1, 2, 4, 5), (1, 1), "Conv2d")],
)
def test_a_product_with_a_constant_matrix_is_a_layer(
    tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...], kind: str, is_transposed: bool
) -> None:
    file = FileWriter()
    entry, output = file.activation(shape), file.activation((*shape[:-1], 3))
    matrix = file.constant(random_floats(*axes, *((3, 5) if is_transposed else (5, 3))))
    file.add("BATCH_MATMUL", (entry, matrix), output, published.BatchMatMulOptionsT, adjY=is_transposed)
    model = assert_runs_as_in_litert(write_file(tmp_path, file.content((entry,), (output,))))
    assert [type(op).__name__ for op in model.graph.layers] == [kind]


@pytest.mark.parametrize(
    ("shape", "options", "reason"),
    [
        ((2, 5, 3), {}, r"a second factor of shape \(2, 5, 3\), expected one matrix"),
        ((5,), {}, r"a second factor of shape \(5,\), expected one matrix"),
        ((4, 3), {}, r"its input has shape \(4, 5\), expected 4 features"),
        ((4, 3), {"adjX": True}, "its first factor is transposed, expected the second alone"),
        (None, {"adjY": True}, "its second factor is computed by the network, expected a constant"),
    ],
)
def test_other_products_are_refused(
    tmp_path: Path, shape: tuple[int, ...] | None, options: dict[str, bool], reason: str
) -> None:
    file = FileWriter()
    entry, output = file.activation((1, 4, 5)), file.activation((1, 4, 3))
    second = entry if shape is None else file.constant(random_floats(*shape))
    file.add("BATCH_MATMUL", (entry, second), output, published.BatchMatMulOptionsT, **options)
    with pytest.raises(UnsupportedOperatorError, match=f"BATCH_MATMUL .*{reason}"):
        load_model(write_file(tmp_path, file.content((entry,), (output,))))


def rows_file(*, reshapes_before: bool, reshapes_after: bool, keeps_axes: bool = False) -> bytes:
    """Return a dense layer on each of four rows, that stand where the batch is."""
    file = FileWriter()
    entry = source = file.activation((1, 4, 5))
    if reshapes_before:
        shape = file.constant(np.array([-1, 5], np.int32))
        source = file.add("RESHAPE", (entry, shape), file.activation((4, 5)))
    for n_inputs, n_outputs in ((5, 6), (6, 3)):
        product = file.activation((4, n_outputs))
        places = (source, file.constant(random_floats(n_outputs, n_inputs)), file.constant(random_floats(n_outputs)))
        options = {"keepNumDims": keeps_axes, "fusedActivationFunction": RELU}
        file.add("FULLY_CONNECTED", places, product, published.FullyConnectedOptionsT, version=5, **options)
        source = product
        if n_outputs == 6:
            shape = file.constant(np.array([1, 4, 6] if not reshapes_before else [4, 6], np.int32))
            sizes = (1, 4, 6) if not reshapes_before else (4, 6)
            source = file.add("RESHAPE", (product, shape), file.activation(sizes))
    if reshapes_after:
        shape = file.constant(np.array([-1, 4, 3], np.int32))
        source = file.add("RESHAPE", (source, shape), file.activation((1, 4, 3)))
    return file.content((entry,), (source,))


@pytest.mark.parametrize(("reshapes_before", "keeps_axes"), [(False, False), (True, False), (True, True)])
def test_rows_may_take_the_place_of_the_batch_for_a_dense_layer(
    tmp_path: Path, reshapes_before: bool, keeps_axes: bool
) -> None:
    content = rows_file(reshapes_before=reshapes_before, reshapes_after=True, keeps_axes=keeps_axes)
    model = assert_runs_as_in_litert(write_file(tmp_path, content))
    assert model.graph.tensors[model.graph.outputs[0]].shape == (4, 3)


@pytest.mark.parametrize("reshapes_before", [False, True])
def test_rows_in_place_of_the_batch_are_refused_as_the_networks_output(tmp_path: Path, reshapes_before: bool) -> None:
    content = rows_file(reshapes_before=reshapes_before, reshapes_after=False)
    with pytest.raises(UnsupportedOperatorError, match=r"FULLY_CONNECTED .*or a RESHAPE of the 4 results"):
        load_model(write_file(tmp_path, content))
