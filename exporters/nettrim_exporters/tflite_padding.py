"""Paddings that TFLite has words for: VALID and SAME."""

from nettrim_runtime import tflite_schema as schema
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import NO_PADDING, UNIT, AveragePool2d, Conv2d, MaxPool2d, Padding, Size2d, same_padding

Window = Conv2d | MaxPool2d | AveragePool2d


def tflite_padding(graph: Graph, op: Window) -> schema.Padding | None:
    """Return TFLite's name for the padding of a window, or None if it has none."""
    if op.padding == NO_PADDING:
        return schema.Padding.VALID
    return schema.Padding.SAME if op.padding == same_window_padding(graph, op) else None


def same_window_padding(graph: Graph, op: Window) -> Padding:
    """Return what SAME adds around the image of a window."""
    height, width, _ = graph.tensors[op.input].shape
    kernel, dilation = _window(graph, op)
    rows = same_padding(height, kernel.height, op.stride.height, dilation.height)
    columns = same_padding(width, kernel.width, op.stride.width, dilation.width)
    return Padding(*rows, *columns)


def _window(graph: Graph, op: Window) -> tuple[Size2d, Size2d]:
    if isinstance(op, Conv2d):
        return Size2d(*graph.tensors[op.weight].shape[1:3]), op.dilation
    return op.kernel_size, UNIT
