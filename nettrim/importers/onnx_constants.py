"""Values known before any sample arrives: initializers, and nodes that read nothing else."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nettrim.importers.onnx_node import Node, RefusedNodeError, refuse
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

REARRANGING = {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze"}
COMPUTING = {
    "Add",
    "Cast",
    "Concat",
    "ConstantOfShape",
    "Div",
    "Expand",
    "Gather",
    "Mod",
    "Mul",
    "Range",
    "Slice",
    "Sub",
}
FOLDABLE = frozenset(REARRANGING | COMPUTING)
MAX_FOLDED_VALUES = 1 << 26  # keeps a few bytes of ConstantOfShape from filling the memory


def read_initializers(model: onnx.ModelProto, source: str) -> dict[str, Array]:
    """Return the constants that a model lists, by name.

    Raises
    ------
    ModelFileError
        When one does not hold as many values as its shape says, or is sparse.
    """
    if model.graph.sparse_initializer:
        raise ModelFileError(f"{source}: the model has sparse initializers, expected dense ones")
    return {tensor.name: _read_tensor(tensor, source) for tensor in model.graph.initializer}


def read_constant_nodes(nodes: Iterable[Node], opsets: Sequence[onnx.OperatorSetIdProto]) -> dict[str, Array]:
    """Return the values of Constant nodes, by name, without those that cannot be evaluated."""
    found = {}
    for node in nodes:
        if node.op_type == "Constant":
            with contextlib.suppress(RefusedNodeError):
                found[node.outputs[0]] = fold_node(node, [], opsets)
    return found


def fold_node(node: Node, inputs: Sequence[Array | None], opsets: Sequence[onnx.OperatorSetIdProto]) -> Array:
    """Return the only output of a node whose inputs are all constants, by ONNX's own reference implementation.

    Parameters
    ----------
    inputs : sequence of Array or None
        The constants in the node's order, None for one left out.

    Raises
    ------
    RefusedNodeError
        When it cannot be evaluated, or the result could be too large.
    """
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415  only files with such nodes need it

    if node.op_type in COMPUTING and _largest_result(node, inputs) > MAX_FOLDED_VALUES:
        refuse(node, f"its constant result could have more than {MAX_FOLDED_VALUES} values")
    feeds = {name: values for name, values in zip(node.inputs, inputs, strict=True) if values is not None}
    value_infos = [onnx.helper.make_empty_tensor_value_info(name) for name in feeds]
    output = onnx.helper.make_empty_tensor_value_info(node.outputs[0])
    graph = onnx.helper.make_graph([node.proto], "constant", value_infos, [output])
    try:
        with np.errstate(all="ignore"):
            model = onnx.helper.make_model(graph, opset_imports=list(opsets))
            results: Any = ReferenceEvaluator(model).run(None, dict(feeds))
        return np.asarray(results[0])
    except Exception as error:  # noqa: BLE001  malformed nodes raise anything there, and every one means the same
        return refuse(node, f"its constant inputs cannot be evaluated ({type(error).__name__}: {error})")


def shape_placeholder(shape: tuple[int, ...], batch: int = 0) -> Array:
    """Return an array that takes no memory, for Shape of one sample: the batch axis, at its place, counts as one."""
    return np.broadcast_to(np.float32(0), (*shape[:batch], 1, *shape[batch:]))


def _read_tensor(tensor: onnx.TensorProto, source: str) -> Array:
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (TypeError, ValueError, KeyError) as error:
        raise ModelFileError(
            f"{source}: tensor {tensor.name!r} does not hold the values that its shape"
            f" {tuple(tensor.dims)} asks for ({error}); export the model again"
        ) from error
    return np.asarray(values)


def _largest_result(node: Node, inputs: Sequence[Array | None]) -> int:
    arrays = [values for values in inputs if values is not None]
    if node.op_type == "ConstantOfShape":
        return math.prod(int(size) for size in arrays[0].ravel()[:32]) if arrays else 0
    if node.op_type == "Expand" and len(arrays) == 2:
        return arrays[0].size * math.prod(int(size) for size in arrays[1].ravel()[:32])
    if node.op_type == "Range" and len(arrays) == 3:
        start, limit, delta = (float(values.ravel()[0]) if values.size else 0.0 for values in arrays)
        return int(max(0.0, min((limit - start) / delta, 2.0 * MAX_FOLDED_VALUES))) if delta else 0
    if node.op_type in {"Cast", "Concat", "Slice"}:
        return sum(values.size for values in arrays)
    return math.prod(max(values.size, 1) for values in arrays)  # broadcasting and gathering give no more


def all_constant(node: Node, constants: Mapping[str, Array]) -> bool:
    """Whether a node reads nothing but constants."""
    return all(not name or name in constants for name in node.inputs)
