"""Where samples of a shape stop fitting a module: run on sizes alone, without values and without memory."""

import importlib
from typing import Any

from nettrim.importers.torch_library import first_line


def find_misfit(torch: Any, module: Any, example: Any) -> str | None:
    """Return which layer of a module cannot take what reaches it and why, None where all of them can.

    Parameters
    ----------
    module : torch.nn.Module
        Not a script.
    example : torch.Tensor
        A batch of samples.
    """
    entered: list[tuple[str, Any, tuple[Any, ...]]] = []  # the parts that are running, the innermost last
    hooks = []
    for name, part in module.named_modules():
        if not isinstance(part, torch.jit.ScriptModule):
            hooks.append(part.register_forward_pre_hook(_entering(name, entered)))
            hooks.append(part.register_forward_hook(_leaving(entered)))
    fake_tensor = importlib.import_module("torch._subclasses.fake_tensor")
    try:
        with fake_tensor.FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            module(mode.from_tensor(example))
    except Exception as error:  # noqa: BLE001  a network may raise anything
        return _describe(entered, error)
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _entering(name: str, entered: list[tuple[str, Any, tuple[Any, ...]]]) -> Any:
    return lambda part, inputs: entered.append((name, part, inputs))


def _leaving(entered: list[tuple[str, Any, tuple[Any, ...]]]) -> Any:
    def leave(*_: Any) -> None:
        entered.pop()

    return leave


def _describe(entered: list[tuple[str, Any, tuple[Any, ...]]], error: Exception) -> str | None:
    if not entered or type(error).__module__.startswith("torch."):  # the network goes by its samples' values
        return None
    name, part, inputs = entered[-1]
    if not type(part).__module__.startswith("torch.nn."):  # between layers: the error alone tells more
        return None
    title = str(part).splitlines()[0].removesuffix("(")
    shapes = " and ".join(str(tuple(value.shape[1:])) for value in inputs if hasattr(value, "shape"))
    return f"{f'layer {name!r}, ' if name else ''}{title}, gets {shapes or 'no tensor'} ({first_line(error)})"
