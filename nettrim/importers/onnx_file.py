"""Bytes to a checked ONNX model, with the weights that lie in a file beside it."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx.inliner import inline_local_functions

from nettrim.importers.onnx_external_data import load_external_data
from nettrim_runtime.errors import ModelFileError

OLDEST_OPSET = 7  # the first without the `broadcast` and `is_test` attributes
DEFAULT_DOMAINS = ("", "ai.onnx")


def parse_onnx(data: bytes, source: str, folder: Path | None = None) -> onnx.ModelProto:
    """Return the model in ONNX bytes, its local functions inlined.

    Parameters
    ----------
    source : str
        The file, for error messages.
    folder : Path, optional
        Where the file lies, and others with its weights may.

    Raises
    ------
    ModelFileError
        When the bytes are not an ONNX model, keep weights outside their folder, or are older than opset 7.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelFileError(
            f"{source}: this is not an ONNX model, or it is damaged or cut short; export or copy it again"
        ) from error
    if not model.graph.node or not model.graph.output:
        raise ModelFileError(f"{source}: the file holds no network, expected an ONNX model with nodes and outputs")
    load_external_data(model, source, folder)
    opset = opset_version(model)
    if opset < OLDEST_OPSET:
        raise ModelFileError(
            f"{source}: the model has opset {opset}, expected {OLDEST_OPSET} or newer; export it again,"
            " or convert it with onnx.version_converter"
        )
    return inline_local_functions(model) if model.functions else model


def has_branches(data: bytes) -> bool:
    """Whether a network in ONNX bytes decides while it runs what to compute."""
    return any(node.op_type == "If" for node in onnx.load_from_string(data).graph.node)


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses; 1 when it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), default=1)


def check_onnx(model: onnx.ModelProto, source: str) -> None:
    """Check nodes, attributes and types against ONNX's own schemas.

    Raises
    ------
    ModelFileError
        When the model breaks one.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelFileError(f"{source}: the model breaks the ONNX rules ({reason}); export it again") from error
