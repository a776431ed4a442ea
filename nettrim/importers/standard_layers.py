"""The torch.nn layers that a pickled module may hold: unpickling and running them executes nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nettrim_runtime.errors import ModelFileError

# Each is unpickled by Module.__setstate__, which fills the attributes, or by one that only adds missing ones; none
# evaluates text, imports modules or opens files when it runs: read in torch 2.13's torch/nn/modules. That of GRU and
# LSTM collects attributes by the names of the weights.
STANDARD_LAYERS = (
    *("Sequential", "Identity", "Flatten", "Unflatten", "Linear"),
    *("Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"),
    *("BatchNorm1d", "BatchNorm2d", "LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d"),
    *("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "ZeroPad1d", "ZeroPad2d", "ConstantPad1d", "ConstantPad2d"),
    *("MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d"),
    *("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d"),
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Softplus", "Softsign"),
    *("Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Hardswish", "Hardshrink", "Softshrink", "Tanhshrink", "Threshold"),
    *(
        "LogSigmoid",
        "Softmax",
        "Softmax2d",
        "LogSoftmax",
        "Softmin",
        "Upsample",
        "UpsamplingNearest2d",
        "PixelShuffle",
        "ChannelShuffle",
    ),
    *("GRU", "LSTM", "Embedding"),
)
RECURRENT = ("GRU", "LSTM")
RECURRENT_NOTE = "the last states of its GRU or LSTM are left out, its outputs at all steps are kept"
PASSING = ("Identity", "Flatten", "Dropout")  # what may stand before the first layer
MAX_PARTS, MAX_LEVELS = 10_000, 64  # ResNet-152 has 500 parts in 5 levels
HOOKS = "_hooks"  # how the attributes end that hold functions which run with the module


def standard_layers(torch: Any) -> list[Any]:
    """Return the classes of layers that the restricted unpickler may make."""
    return [getattr(torch.nn, name) for name in STANDARD_LAYERS if hasattr(torch.nn, name)]


def check_layers(path: Path, torch: Any, module: Any) -> None:
    """Check that a module is made of standard layers as torch wrote them.

    Raises
    ------
    ModelFileError
        When a part is of another class, carries hooks or hides a method behind an attribute, or there is no end of
        parts.
    """
    allowed = standard_layers(torch)
    for names, part in _parts(path, module, allowed):
        name = ".".join(map(str, names))
        finding = next(_findings(part, allowed), None)
        if finding:
            raise ModelFileError(f"{path}: part {name!r} {finding}; expected layers of torch.nn alone")
        if isinstance(part, torch.nn.Embedding):
            raise ModelFileError(
                f"{path}: part {name!r} is an Embedding, which looks up whole numbers, expected a network that takes"
                " floats; save the layers behind it alone and give what it looks up as samples"
            )
        if isinstance(part, _recurrent(torch)) and vars(part).get("batch_first") is not True:
            raise ModelFileError(
                f"{path}: part {name!r} is a {type(part).__name__} that takes its steps before the batch, expected"
                " batch_first=True"
            )


def keep_outputs(torch: Any, module: Any) -> tuple[str, ...]:
    """Let GRU and LSTM layers, checked, return their outputs without their last states; return a note."""
    found = [part for part in module.modules() if isinstance(part, _recurrent(torch))]
    for part in found:
        part.register_forward_hook(lambda _part, _inputs, output: output[0])
    return (RECURRENT_NOTE,) if found else ()


def first_features(torch: Any, module: Any) -> tuple[int, ...] | None:
    """Return the shape of one sample when the first layer that computes is a Linear, else None."""
    passing = tuple(getattr(torch.nn, name) for name in PASSING)
    leaves = (part for part in module.modules() if not isinstance(part, torch.nn.Sequential))
    first = next((part for part in leaves if not isinstance(part, passing)), None)
    return (int(first.weight.shape[1]),) if isinstance(first, torch.nn.Linear) else None


def _recurrent(torch: Any) -> tuple[Any, ...]:
    return tuple(getattr(torch.nn, name) for name in RECURRENT)


def _parts(path: Path, module: Any, allowed: list[Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every part with its names, as often as torch would come to it; without recursion.

    A file can hold a module within itself, or one that stands twice in one that stands twice, and so on: torch's own
    walks would not end.
    """
    waiting: list[tuple[tuple[Any, ...], Any]] = [(("module",), module)]
    n_parts = 1
    while waiting:
        names, part = waiting.pop()
        yield names, part
        children = vars(part).get("_modules") if type(part) in allowed else None
        children = children if isinstance(children, dict) else {}
        n_parts += len(children)
        if n_parts > MAX_PARTS or (children and len(names) == MAX_LEVELS):
            raise ModelFileError(
                f"{path}: the module holds itself, more than {MAX_PARTS} parts or more than {MAX_LEVELS} levels of"
                " modules within modules, expected a network; save it again, or export it to ONNX"
            )
        waiting += [((*names, child), value) for child, value in children.items()]


def _findings(part: Any, allowed: list[Any]) -> Iterator[str]:
    if type(part) not in allowed:
        yield f"is a {type(part).__name__}"
        return
    if not isinstance(vars(part).get("_modules", {}), dict):
        yield f"keeps its parts in a {type(vars(part)['_modules']).__name__}"
    for attribute, value in vars(part).items():
        if attribute.endswith(HOOKS) and value:
            yield f"has {attribute}, functions that run with it: take them off before saving"
        if callable(getattr(type(part), attribute, None)):
            yield f"replaces its method {attribute!r}"
