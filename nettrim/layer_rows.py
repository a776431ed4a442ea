"""What a layer sees and answers on the calibration samples, as the columns of its convex problem.

A convolution is a dense layer on patches; a few patches an image are drawn, never all are kept.
"""

import numpy as np

from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.linear import padded_buffer, windows
from nettrim_runtime.ops import Conv2d, Layer, MaxPool2d, Size2d

IMAGES_PER_BLOCK = 64  # bounds the padded copies that patches are cut from


def draw_positions(
    graph: Graph,
    layer: Layer,
    n_samples: int,
    max_rows: int,
    rng: np.random.Generator,
    *,
    pool: MaxPool2d | None = None,
) -> Array:
    """Choose which output positions of each sample become columns.

    Parameters
    ----------
    pool : MaxPool2d or None
        Draw whole windows of this pooling of the layer's output, which must not overlap or be padded.

    Returns
    -------
    Array
        (n_used_samples, n_positions) numbers of output pixels, all 0 for a dense layer; at most
        about ``max_rows`` entries, without repetition within a sample. The pixels of a pooling window
        stand side by side, row by row.
    """
    units = _units(graph, layer, pool)
    n_used = max(1, min(n_samples, max_rows // units.shape[1]))
    each = min(len(units), max(1, max_rows // (n_used * units.shape[1])))
    if len(units) == 1:
        return np.repeat(units, n_used, axis=0)
    drawn = np.stack([rng.permutation(len(units))[:each] for _ in range(n_used)])
    return units[drawn].reshape(n_used, -1)


def layer_inputs(graph: Graph, layer: Layer, values: Array, positions: Array) -> Array:
    """Return X (n_groups, n_inputs, n_columns): the inputs of each group of a layer at the drawn positions.

    Parameters
    ----------
    values : Array
        (n_samples, *shape) float32, the layer's input tensor; the first ``len(positions)`` samples are used.
    """
    groups, size = layer_groups(graph, layer)
    X = np.empty((groups, size, positions.size), np.float32)
    for start in range(0, len(positions), IMAGES_PER_BLOCK):
        chosen = positions[start : start + IMAGES_PER_BLOCK]
        columns = _columns(graph, layer, values[start : start + len(chosen)], chosen)
        first = start * positions.shape[1]
        X[:, :, first : first + chosen.size] = columns.transpose(1, 2, 0)
    return X


def layer_responses(values: Array, positions: Array) -> Array:
    """Return Y (n_outputs, n_columns): a tensor of the shape of a layer's output at the drawn positions."""
    by_position = values[: len(positions)].reshape(len(positions), -1, values.shape[-1])
    drawn = by_position[np.arange(len(positions))[:, np.newaxis], positions]
    return np.ascontiguousarray(drawn.reshape(positions.size, -1).T)


def layer_groups(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Return (groups of a layer, inputs of each): 1 for a dense layer, as many as channels for a depthwise one."""
    weight = graph.tensors[layer.weight]
    return layer.groups if isinstance(layer, Conv2d) else 1, weight.size // weight.shape[0]


def _units(graph: Graph, layer: Layer, pool: MaxPool2d | None) -> Array:
    """Return (n_units, n_positions of a unit): single output pixels, or all pooling windows."""
    shape = graph.tensors[layer.output].shape
    if pool is None:
        return np.arange(int(np.prod(shape[:-1])))[:, np.newaxis]
    numbers = np.arange(shape[0] * shape[1]).reshape(1, shape[0], shape[1], 1)
    view = windows(numbers, pool.kernel_size, pool.stride, Size2d(1, 1))
    return view.reshape(-1, pool.kernel_size.height * pool.kernel_size.width)


def _columns(graph: Graph, layer: Layer, values: Array, chosen: Array) -> Array:
    """Return (n_columns, n_groups, n_inputs) for one block of samples."""
    groups, size = layer_groups(graph, layer)
    if not isinstance(layer, Conv2d):
        return values.reshape(len(values), 1, size)
    padded, inside = padded_buffer(len(values), values.shape[1:], layer.padding, np.float32, 0)
    inside[:] = values
    view = windows(padded, Size2d(*graph.tensors[layer.weight].shape[1:3]), layer.stride, layer.dilation)
    row, column = np.divmod(chosen, view.shape[2])
    patches = view[np.arange(len(values))[:, np.newaxis], row, column]
    by_group = patches.reshape(chosen.size, -1, groups, values.shape[-1] // groups)
    return by_group.transpose(0, 2, 1, 3).reshape(chosen.size, groups, size)
