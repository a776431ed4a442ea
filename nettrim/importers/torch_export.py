"""A torch.nn.Module to ONNX bytes, by torch's own exporter, kept silent."""

import contextlib
import importlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nettrim.importers.graph_builder import MAX_ACTIVATION_VALUES
from nettrim.importers.torch_library import import_torch
from nettrim_runtime.errors import ModelFileError

EXAMPLE_BATCH = 2  # one would be taken as a fixed size
TORCHSCRIPT_OPSET = 17  # the newest that torch's TorchScript exporter writes by default


def export_module(path: Path, module: Any, input_shape: tuple[int, ...], *, has_open_batch: bool = True) -> bytes:
    """Return ONNX bytes of a module that takes one batch of samples.

    Parameters
    ----------
    path : Path
        The file that the module comes from, for error messages.
    module : torch.nn.Module
        In evaluation mode.
    input_shape : tuple of int
        The shape of one sample, without the batch axis.
    has_open_batch : bool
        Whether the module takes batches of any size; else one sample at a time.

    Raises
    ------
    ModelFileError
        When onnxscript is missing or torch cannot export the module.
    """
    _require_onnxscript(path)
    torch = import_torch(path)
    shapes = ({0: torch.export.Dim("batch")},) if has_open_batch else None
    example = _example(torch, path, input_shape, EXAMPLE_BATCH if has_open_batch else 1)
    buffer = io.BytesIO()
    with reported(path, input_shape), quiet():
        program = torch.onnx.export(
            module, (example,), dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes
        )
        program.save(buffer)
    return buffer.getvalue()


def export_script(path: Path, module: Any, input_shape: tuple[int, ...]) -> bytes:
    """Return ONNX bytes of a TorchScript module, which only torch's older exporter takes.

    Parameters
    ----------
    path : Path
        The file that the module comes from, for error messages.
    module : torch.jit.ScriptModule
        In evaluation mode.
    input_shape : tuple of int
        The shape of one sample, without the batch axis.

    Raises
    ------
    ModelFileError
        When torch cannot export the module.
    """
    torch = import_torch(path)
    example = _example(torch, path, input_shape, EXAMPLE_BATCH)
    buffer = io.BytesIO()
    with reported(path, input_shape), quiet():
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=False,
            opset_version=TORCHSCRIPT_OPSET,
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}},
        )
    return buffer.getvalue()


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _require_onnxscript(path: Path) -> None:
    try:
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise ModelFileError(
            f"{path}: torch's ONNX export needs onnxscript, which is not installed: pip install nettrim[torch]"
        ) from error


def _example(torch: Any, path: Path, input_shape: tuple[int, ...], batch: int) -> Any:
    if math.prod(input_shape) > MAX_ACTIVATION_VALUES:
        raise ModelFileError(f"{path}: samples of shape {input_shape} have more than {MAX_ACTIVATION_VALUES} values")
    return torch.zeros(batch, *input_shape)


@contextlib.contextmanager
def reported(path: Path, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Turn whatever the exporter raises into one line."""
    try:
        yield
    except Exception as error:
        raise ModelFileError(
            f"{path}: torch cannot export the module for samples of shape {input_shape}"
            f" ({first_line(error)}); check --input-shape, or export to ONNX yourself"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own remarks, which concern torch's developers, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
