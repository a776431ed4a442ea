"""Small ONNX models for the importer's tests, and the comparison with ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.engine import run_graph

Array = npt.NDArray[Any]

RELATIVE_TOLERANCE = 1e-5  # of the largest output: float32 sums in another order


def node(op_type: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> onnx.NodeProto:
    """Return a node; names are separated by spaces, "-" stands for an input left out."""
    names = ["" if part == "-" else part for part in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), name=name or f"{op_type}_{outputs}", **attributes)


def write_onnx(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str] | None,
    constants: Mapping[str, Array],
    opset: int = 17,
    *,
    lists_constants_as_inputs: bool = False,
    output: str = "y",
) -> Path:
    """Write a model whose input is "x" and whose last tensor is "y"; return the path."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)]
    initializers = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    if lists_constants_as_inputs:
        inputs += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in initializers]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    inferred.graph.output[0].type.tensor_type.shape.SetInParent()  # in place where the nodes do not fit together
    path.write_bytes(inferred.SerializeToString())
    return path


def reference_outputs(path: Path, samples: Array) -> Array:
    """Return what ONNX Runtime computes, sample by sample where the batch is fixed to one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name, fixed = session.get_inputs()[0].name, session.get_inputs()[0].shape[0] == 1
    batches = np.split(samples, len(samples)) if fixed else [samples]
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def assert_runs_as_in_onnx_runtime(path: Path, n_samples: int = 3, **options: Any) -> ImportedModel:
    """Load a model, compare its outputs on random samples with ONNX Runtime's, and return it."""
    model = load_model(path, **options)
    samples = np.random.default_rng(0).normal(size=(n_samples, *model.source_shape)).astype(np.float32)
    expected = reference_outputs(path, samples)
    outputs = run_graph(model.graph, arrange_samples(model, samples))
    if outputs.ndim == 4 and any("(height, width, channels)" in note for note in model.notes):
        outputs = outputs.transpose(0, 3, 1, 2)
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() <= RELATIVE_TOLERANCE * max(1.0, np.abs(expected).max())
    return model


def arrange_samples(model: ImportedModel, samples: Array) -> Array:
    """Return samples in the shape and order of the graph's input."""
    values = samples.transpose(0, 2, 3, 1) if model.input_layout == "NCHW" else samples
    return np.ascontiguousarray(values).reshape(len(samples), *model.graph.tensors[model.graph.inputs[0]].shape)


def random_floats(*shape: int) -> Array:
    """Return standard normal float32 values, the same every time."""
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def op_names(model: ImportedModel) -> list[str]:
    """Return the kinds of operators in order."""
    return [type(op).__name__ for op in model.graph.ops]
