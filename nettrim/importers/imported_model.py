"""What a model file becomes: a float Graph, and how users' arrays are laid out for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nettrim_runtime.graph import Graph, Quantization

InputLayout = Literal["NHWC", "NCHW", "flat"]


@dataclass(frozen=True, eq=False)
class InputIntegers:
    """The type of a file's integer input, int8 or uint8, and what its integers stand for."""

    dtype: str
    quantization: Quantization


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A network read from a file.

    Attributes
    ----------
    graph : Graph
        float32, one input, one output, simplified.
    input_layout : {"NHWC", "NCHW", "flat"}
        The layout that the file's own network wants; the graph's images are always NHWC.
        "flat" says that the values keep their order, whatever the shape.
    source_shape : tuple of int
        The shape of one sample as the file's network takes it, without the batch axis.
    notes : tuple of str
        Sentences on what was recognised and rewritten.
    format : str
        The kind of file: "ONNX", "PyTorch state dict", "TensorFlow Lite".
    quantized : Graph or None
        The same network in the integers of a quantised file, bit for bit what the file computes.
    input_integers : InputIntegers or None
        What a file's input takes, if that is integers.
    """

    graph: Graph
    input_layout: InputLayout
    source_shape: tuple[int, ...]
    notes: tuple[str, ...]
    format: str
    quantized: Graph | None = None
    input_integers: InputIntegers | None = None


def transpose_note(names: Sequence[str]) -> str:
    """Return the note that names the transposes no constant could take in."""
    return f"transposes left: {len(names)}" + (f" ({', '.join(names)})" if names else "")
