"""Keras files whose JSON holds another type than Keras writes: a model or a refusal of one line, never a traceback."""

import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nettrim.importers import load_model
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.test_import_keras import MODELS, entry, functional, write_h5

N_CHANGES = 40  # of each model
MISTYPED = (None, -1, 0, "x", [], {}, 1e30, 2**70, True, 3, [1, 2, 3], "same", [None], float("nan"))


def find_places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in entries:
        yield (*place, key)
        yield from find_places(part, (*place, key))


def change_one(text: str, rng: random.Random) -> str:
    content = json.loads(text)
    *outer, last = rng.choice(list(find_places(content)))
    node = content
    for key in outer:
        node = node[key]
    if isinstance(node, dict) and rng.random() < 0.2:
        del node[last]
    else:
        node[last] = rng.choice(MISTYPED)
    return json.dumps(content)


@pytest.mark.parametrize("stem", ["activations", "arithmetic", "branches", "nested", "stack"])
def test_one_entry_of_another_type_gives_a_model_or_a_clear_error(tmp_path: Path, stem: str) -> None:
    path, rng, refused = tmp_path / "m.keras", random.Random(0), 0
    with zipfile.ZipFile(MODELS / f"{stem}.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(N_CHANGES):
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, change_one(data.decode(), rng) if name == "config.json" else data)
        try:
            load_model(path)
        except (ModelFileError, UnsupportedOperatorError) as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017  not raising is right as well
            assert "\n" not in str(error)  # noqa: PT017
    assert refused


@pytest.mark.parametrize(
    "layer",
    [
        entry("Reshape", "x", "in"),
        entry("Reshape", "x", "in", target_shape=3),
        entry("LeakyReLU", "x", "in", alpha="much"),
        entry("ReLU", "x", "in", max_value=[]),
        entry("Rescaling", "x", "in", scale="x"),
        entry("Reshape", "x", "in", target_shape=[1e30]),
        {**entry("Activation", "x", "in"), "config": None},
    ],
)
def test_settings_of_another_type_are_refused_with_the_layer(tmp_path: Path, layer: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"\('x'\): its settings are not as Keras writes them"):
        load_model(write_h5(tmp_path / "m.h5", functional(layer)))


@pytest.mark.parametrize("size", [True, 2**70, 1.0, "4", 0])
def test_size_of_the_input_that_is_no_count_is_refused(tmp_path: Path, size: Any) -> None:
    config = functional(entry("Flatten", "f", "in"))
    config["config"]["layers"][0]["config"]["batch_input_shape"] = [None, size]
    with pytest.raises(ModelFileError, match="input shape"):
        load_model(write_h5(tmp_path / "m.h5", config))
