"""A torch.nn.Module to ONNX bytes, by torch's own exporter, kept silent."""

import contextlib
import importlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from nettrim.importers.graph_builder import MAX_ACTIVATION_VALUES
from nettrim.importers.torch_library import first_line, import_torch, root_cause
from nettrim.importers.torch_shapes import find_misfit
from nettrim.silent_streams import silent_streams
from nettrim_runtime.errors import ModelFileError

Array = npt.NDArray[Any]

EXAMPLE_BATCH = 2  # one would be taken as a fixed size
INTEGERS_WANTED = "argument #1 'indices' to have one of the following scalar types: Long, Int"  # torch's words
ONNX_ADVICE = "export it yourself with torch.onnx.export(model, (x,), 'model.onnx', dynamo=True, external_data=False)"
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
    with _reported(path, input_shape, lambda: find_misfit(torch, module, example)):
        program = torch.onnx.export(
            module, (example,), dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes
        )
        program.save(buffer)
    return buffer.getvalue()


def export_script(path: Path, module: Any, input_shape: tuple[int, ...], *, has_open_batch: bool = True) -> bytes:
    """Return ONNX bytes of a TorchScript module, which only torch's older exporter takes.

    Parameters
    ----------
    path : Path
        The file that the module comes from, for error messages.
    module : torch.jit.ScriptModule
        In evaluation mode.
    input_shape : tuple of int
        The shape of one sample, without the batch axis.
    has_open_batch : bool
        Whether the network takes batches of any size; with one sample at a time all shapes are known.

    Raises
    ------
    ModelFileError
        When torch cannot export the module.
    """
    torch = import_torch(path)
    example = _example(torch, path, input_shape, EXAMPLE_BATCH if has_open_batch else 1)
    buffer = io.BytesIO()
    with _reported(path, input_shape):
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=False,
            opset_version=TORCHSCRIPT_OPSET,
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}} if has_open_batch else None,
        )
    return buffer.getvalue()


def run_module_on(path: Path, module: Any, samples: Array) -> Array:
    """Return the outputs of a module for a batch of samples.

    Raises
    ------
    ModelFileError
        When it fails.
    """
    torch = import_torch(path)
    with _reported(path, samples.shape[1:]), torch.no_grad():
        outputs = module(torch.from_numpy(samples))
    if not isinstance(outputs, torch.Tensor) or outputs.ndim == 0 or outputs.shape[0] != len(samples):
        shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ModelFileError(
            f"{path}: for {len(samples)} samples the network returns {shape}, expected one tensor with as many rows;"
            " return one output"
        )
    if outputs.numel() > len(samples) * MAX_ACTIVATION_VALUES:  # strides of zero take no memory before they are copied
        raise ModelFileError(
            f"{path}: for one sample the network returns a tensor of shape {tuple(outputs.shape[1:])}, expected at most"
            f" {MAX_ACTIVATION_VALUES} values"
        )
    values: Array = outputs.detach().float().numpy()
    return values


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
def _reported(
    path: Path, input_shape: tuple[int, ...], find_reason: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Run a module or an exporter: silently, and whatever it raises turned into one line.

    Parameters
    ----------
    find_reason : callable
        Tells where the samples do not fit the module; None where they do.
    """
    try:
        with _quiet():
            yield
    except Exception as error:
        if INTEGERS_WANTED in str(root_cause(error)):
            raise ModelFileError(
                f"{path}: the network begins with an Embedding, which looks up whole numbers, expected one that takes"
                " floats; save the layers behind it alone and give what it looks up as samples"
            ) from error
        with _quiet():
            reason = find_reason()
        if reason:
            raise ModelFileError(
                f"{path}: samples of shape {input_shape} do not fit the network: {reason}; check --input-shape"
            ) from error
        raise ModelFileError(
            f"{path}: torch cannot export the module for samples of shape {input_shape}"
            f" ({first_line(root_cause(error))}); check --input-shape, or {ONNX_ADVICE}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own remarks, which concern its developers, off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            silent_streams(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
