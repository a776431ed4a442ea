"""ONNX GRU and LSTM, step by step: a convolution for all inputs, dense layers that share a weight for the states.

A step's gates are W x + R h + b: W over all steps at once is a 1x1 convolution of the sequence, pruned like any.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nettrim.importers.onnx_conversion import Conversion, Value
from nettrim.importers.onnx_node import Node, refuse
from nettrim_runtime.ops import Add, Concat, Conv2d, Dense, Function, Mul, Op, Slice, Sub, UnaryFunction

Array = npt.NDArray[Any]

LARGEST_SEQUENCE = 512  # steps: each is a dozen operators
GATES = {"GRU": 3, "LSTM": 4}
ACTIVATIONS = {"GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
INITIAL_STATES = {"GRU": (5,), "LSTM": (5, 6)}
PEEPHOLES = 7
N_INPUTS: dict[Callable[..., Op], tuple[str, int]] = {  # what the operators are called, and what they read
    Dense: ("state", 3),
    Add: ("sum", 2),
    Sub: ("difference", 2),
    Mul: ("product", 2),
    Slice: ("part", 1),
    UnaryFunction: ("function", 1),
}
OUTPUTS = ("Y", "Y_h", "Y_c")


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One direction of a node.

    Attributes
    ----------
    title : str
        What its operators' names begin with.
    inputs : str
        The tensor (n_steps, 1, n_gates * hidden) of W x + b.
    recurrent, bias : Array
        R (n_gates * hidden, hidden), and those of its biases (n_gates * hidden,) that are not part of ``inputs``.
    """

    title: str
    inputs: str
    recurrent: Array
    bias: Array

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.recurrent.shape[1])


def convert_recurrent(node: Node, conversion: Conversion) -> None:
    """GRU and LSTM of one or both directions, from a state of zeros."""
    value = conversion.value_of_any_order(node)
    is_batch_first = bool(node.integer("layout", 0))
    if len(value.shape) != 2 or value.batch != (0 if is_batch_first else 1):
        refuse(node, f"an input of {value.shape} with the batch at axis {value.batch}, expected steps and features")
    _check(node, conversion, value)
    n_directions = 2 if node.text("direction", "forward") == "bidirectional" else 1
    _check_weights(node, conversion, n_directions, value.shape[1])
    tensor = conversion.arrange(node, value, (0, 1))
    sequences = [_run(node, conversion, tensor, direction) for direction in range(n_directions)]
    _put_outputs(node, conversion, sequences, is_batch_first=is_batch_first)


class _Steps:
    """Appends the operators of one direction, step by step."""

    def __init__(self, conversion: Conversion, recurrence: Recurrence) -> None:
        self.builder, self.recurrence = conversion.builder, recurrence
        self.title = recurrence.title
        self._constants: dict[str, tuple[str, str]] = {}

    def inputs(self, step: int, begin: int, end: int) -> str:
        """Return W x + b of a step, from one unit to another: (end - begin,)."""
        place = ((step, 0, begin), (step + 1, 1, end), (1, 1, 1))
        return self.builder.reshape(self._add(Slice, self.recurrence.inputs, *place), (end - begin,))

    def part(self, tensor: str, begin: int, end: int) -> str:
        """Return some units of a vector."""
        return self._add(Slice, tensor, (begin,), (end,), (1,))

    def dense(self, what: str, tensor: str, begin: int, end: int) -> str:
        """Return R h + b of some units; all steps read one weight."""
        if what not in self._constants:
            rows = slice(begin, end)
            weight = self.builder.add_constant(f"{self.title}.{what}.weight", self.recurrence.recurrent[rows])
            bias = self.builder.add_constant(f"{self.title}.{what}.bias", self.recurrence.bias[rows])
            self._constants[what] = (weight, bias)
        return self._add(Dense, tensor, *self._constants[what])

    def pair(self, operator: type[Add | Sub | Mul], first: str, second: str) -> str:
        """Return two vectors combined value by value."""
        return self._add(operator, first, second)

    def function(self, function: Function, tensor: str) -> str:
        """Return a function of every value."""
        return self._add(UnaryFunction, tensor, function)

    def scaled(self, tensor: str, factors: Array) -> str:
        """Return a vector times constants, by a depthwise convolution."""
        n_units = factors.size
        image = self.builder.reshape(tensor, (1, 1, n_units))
        weight = self.builder.add_constant(f"{self.title}.first.weight", factors.reshape(n_units, 1, 1, 1))
        bias = self.builder.add_constant(f"{self.title}.first.bias", np.zeros(n_units))
        name, output = self.builder.op_name(f"{self.title}.first"), self.builder.tensor_name(f"{self.title}.first")
        scaled = self.builder.add(Conv2d(name, image, weight, bias, output, groups=n_units))
        return self.builder.reshape(scaled, (n_units,))

    def _add(self, operator: Callable[..., Op], *operands: Any) -> str:
        """Append an operator: its inputs, its output, then what else it has."""
        what, n_inputs = N_INPUTS[operator]
        name = f"{self.title}.{what}"
        output = self.builder.tensor_name(name)
        return self.builder.add(
            operator(self.builder.op_name(name), *operands[:n_inputs], output, *operands[n_inputs:])
        )


def _gru_states(steps: _Steps, order: range, *, resets_products: bool) -> list[str]:
    """Return the state after each step, in the order they are run.

    h' = h~ + z (h - h~) with h~ = tanh(Wx + r (R h + b)), or tanh(Wx + R (r h) + b) unless ``resets_products``.
    """
    n, bias = steps.recurrence.hidden, steps.recurrence.bias[2 * steps.recurrence.hidden :]
    states: list[str] = []
    for step in order:
        gates, candidate = steps.inputs(step, 0, 2 * n), steps.inputs(step, 2 * n, 3 * n)
        if states:
            gates = steps.pair(Add, gates, steps.dense("gates", states[-1], 0, 2 * n))
        gates = steps.function(Function.SIGMOID, gates)
        update, reset = steps.part(gates, 0, n), steps.part(gates, n, 2 * n)
        if states and resets_products:
            product = steps.pair(Mul, reset, steps.dense("candidate", states[-1], 2 * n, 3 * n))
            candidate = steps.pair(Add, candidate, product)
        elif states:
            product = steps.pair(Mul, reset, states[-1])
            candidate = steps.pair(Add, candidate, steps.dense("candidate", product, 2 * n, 3 * n))
        elif bias.any():
            candidate = steps.pair(Add, candidate, steps.scaled(reset, bias))
        candidate = steps.function(Function.TANH, candidate)
        if states:
            change = steps.pair(Mul, update, steps.pair(Sub, states[-1], candidate))
            states.append(steps.pair(Add, candidate, change))
        else:
            states.append(steps.pair(Sub, candidate, steps.pair(Mul, update, candidate)))
    return states


def _lstm_states(steps: _Steps, order: range) -> tuple[list[str], str]:
    """Return the state after each step, in the order they are run, and the last cell.

    c' = f c + i tanh(...), h' = o tanh(c').
    """
    n = steps.recurrence.hidden
    states: list[str] = []
    cell = ""
    for step in order:
        gates = steps.inputs(step, 0, 4 * n)
        if states:
            gates = steps.pair(Add, gates, steps.dense("gates", states[-1], 0, 4 * n))
        opened = steps.function(Function.SIGMOID, steps.part(gates, 0, 3 * n))
        fresh = steps.function(Function.TANH, steps.part(gates, 3 * n, 4 * n))
        added = steps.pair(Mul, steps.part(opened, 0, n), fresh)
        cell = steps.pair(Add, steps.pair(Mul, steps.part(opened, 2 * n, 3 * n), cell), added) if states else added
        states.append(steps.pair(Mul, steps.part(opened, n, 2 * n), steps.function(Function.TANH, cell)))
    return states, cell


def _run(node: Node, conversion: Conversion, tensor: str, direction: int) -> tuple[list[str], str]:
    """Return the states of one direction in the order of time, and the last state, or of an LSTM the last cell."""
    n_steps = conversion.builder.tensors[tensor].shape[0]
    is_reversed = direction == 1 or node.text("direction", "forward") == "reverse"
    order = range(n_steps - 1, -1, -1) if is_reversed else range(n_steps)
    resets_products = bool(node.integer("linear_before_reset", 0))
    steps = _Steps(conversion, _recurrence(node, conversion, tensor, direction))
    if node.op_type == "GRU":
        states = _gru_states(steps, order, resets_products=resets_products)
        return states[:: order.step], ""
    states, cell = _lstm_states(steps, order)
    return states[:: order.step], cell


def _recurrence(node: Node, conversion: Conversion, tensor: str, direction: int) -> Recurrence:
    """Append the convolution that computes all steps' W x + b."""
    weight, recurrent = (conversion.constant(node, index, what)[direction] for index, what in ((1, "W"), (2, "R")))
    n_rows, n_features = weight.shape
    biases = conversion.optional_constant(node, 3, "B")
    own, of_state = np.zeros((2, n_rows)) if biases is None else biases[direction].reshape(2, n_rows)
    late = np.zeros(n_rows)
    if node.op_type == "GRU" and node.integer("linear_before_reset", 0):
        late[2 * n_rows // 3 :] = of_state[2 * n_rows // 3 :]
    title = f"{node.name}.{direction}" if node.text("direction", "forward") == "bidirectional" else node.name
    builder, n_steps = conversion.builder, conversion.builder.tensors[tensor].shape[0]
    op = Conv2d(
        builder.op_name(f"{title}.inputs"),
        builder.reshape(tensor, (n_steps, 1, n_features)),
        builder.add_constant(f"{title}.inputs.weight", weight.reshape(n_rows, 1, 1, n_features)),
        builder.add_constant(f"{title}.inputs.bias", own + of_state - late),
        builder.tensor_name(f"{title}.inputs"),
    )
    return Recurrence(title, builder.add(op), recurrent, late)


def _put_outputs(
    node: Node,
    conversion: Conversion,
    runs: list[tuple[list[str], str]],
    *,
    is_batch_first: bool,
) -> None:
    """Keep the outputs that are read: all states, the last ones, the last cells."""
    n_steps, is_reversed = len(runs[0][0]), node.text("direction", "forward") == "reverse"
    ends = [0 if is_reversed or direction else n_steps - 1 for direction in range(len(runs))]
    found = {
        "Y": [states[step] for step in range(n_steps) for states, _ in runs],
        "Y_h": [states[end] for (states, _), end in zip(runs, ends, strict=True)],
        "Y_c": [cell for _, cell in runs],
    }
    for which, name in zip(OUTPUTS, node.outputs, strict=False):
        if not name or not conversion.is_read(name):
            continue
        parts = found[which]
        size = conversion.builder.tensors[parts[0]].size
        places = np.arange(len(parts) * size).reshape(*([n_steps] if which == "Y" else []), len(runs), size)
        tensor = parts[0]
        if len(parts) > 1:
            title = f"{node.name}.{which}"
            op = Concat(conversion.builder.op_name(title), tuple(parts), conversion.builder.tensor_name(name))
            tensor = conversion.builder.add(op)
            conversion.parts[tensor] = tuple(parts)
        batch = 0 if is_batch_first else places.ndim - 1
        conversion.put(replace(node, outputs=(name,)), tensor, places, batch)


def _check(node: Node, conversion: Conversion, value: Value) -> None:
    """Refuse what is not the plain form, from a state of zeros over all steps."""
    names = [text.decode() if isinstance(text, bytes) else text for text in node.attributes.get("activations", ())]
    expected = ACTIVATIONS[node.op_type]
    if any(name != expected[place % len(expected)] for place, name in enumerate(names)):
        refuse(node, f"activations {names}, expected {list(expected)}")
    if "clip" in node.attributes or node.integer("input_forget", 0):
        refuse(node, "clip or input_forget, expected neither")
    if len(node.inputs) > PEEPHOLES and node.inputs[PEEPHOLES]:
        refuse(node, "peepholes, expected none")
    lengths = conversion.optional_constant(node, 4, "sequence_lens")
    if lengths is not None and (lengths != value.shape[0]).any():
        refuse(node, f"sequence_lens {lengths.tolist()}, expected all {value.shape[0]} steps")
    for index in INITIAL_STATES[node.op_type]:
        state = conversion.optional_constant(node, index, "initial state")
        if state is not None and state.any():
            refuse(node, "an initial state other than zeros")
    if value.shape[0] > LARGEST_SEQUENCE:
        refuse(node, f"{value.shape[0]} steps, expected at most {LARGEST_SEQUENCE}: each is a dozen operators")


def _check_weights(node: Node, conversion: Conversion, n_directions: int, n_features: int) -> None:
    weight, recurrent = (conversion.constant(node, index, what) for index, what in ((1, "W"), (2, "R")))
    biases = conversion.optional_constant(node, 3, "B")
    hidden = recurrent.shape[-1] if recurrent.ndim else 0
    n_rows = GATES[node.op_type] * hidden
    expected = [(n_directions, n_rows, n_features), (n_directions, n_rows, hidden), (n_directions, 2 * n_rows)]
    found = [weight.shape, recurrent.shape, expected[2] if biases is None else biases.shape]
    if hidden == 0 or found != expected:
        refuse(node, f"weights and biases {found} for {n_features} features, expected {expected}")
