"""Every Keras layer that the README's table names is in a model that loads: those of this folder, or one of its own."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nettrim.importers import load_model
from nettrim.operator_table import COMPOSED, SOURCES, WITHOUT_OPERATOR
from tests.nettrim.test_import_keras import MODELS, entry, functional, run, write_h5

Array = npt.NDArray[Any]

SAMPLES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["in", 0, 0]}}
TWO = np.full(4, 2, np.float32)
TRAINING_ONLY = (
    *("ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Identity", "RandomContrast"),
    *("RandomTranslation", "RandomZoom"),
)
OWN_MODELS: dict[str, tuple[dict[str, Any], Array]] = {  # with what Keras documents as the layer's output
    **{kind: (entry(kind, "x", "in"), SAMPLES) for kind in TRAINING_ONLY},
    "BatchNormalizationV1": (entry("BatchNormalizationV1", "x", "in", epsilon=2.0), SAMPLES),
    "Divide": ({**entry("Divide", "x"), "inbound_nodes": [{"args": [TENSOR, 4.0], "kwargs": {}}]}, SAMPLES / 4),
    "Relu": (entry("Relu", "x", "in"), np.maximum(SAMPLES, 0)),
    "Sigmoid": (entry("Sigmoid", "x", "in"), 1 / (1 + np.exp(-SAMPLES))),
    "TFOpLambda": (entry("TFOpLambda", "x", "in", function="nn.tanh"), np.tanh(SAMPLES)),
}


def kinds(node: Any) -> set[str]:
    """Return the names of all classes in a model's JSON."""
    if isinstance(node, list):
        return set().union(*map(kinds, node))
    if not isinstance(node, dict):
        return set()
    return {str(node.get("class_name")), *kinds(list(node.values()))}


def test_every_keras_layer_of_the_table_is_in_a_model_that_loads() -> None:
    loaded = set(OWN_MODELS)
    for path in MODELS.glob("*.keras"):  # test_import_keras.py runs them
        with zipfile.ZipFile(path) as archive:
            loaded |= kinds(json.loads(archive.read("config.json")))
    named = {name for sources in (*SOURCES.values(), COMPOSED, WITHOUT_OPERATOR) for name in sources.keras}
    assert named <= loaded


@pytest.mark.parametrize("kind", sorted(OWN_MODELS))
def test_layer_loads_and_gives_its_output(tmp_path: Path, kind: str) -> None:
    layer, expected = OWN_MODELS[kind]
    weights = {"x": {"gamma": TWO, "beta": TWO, "mean": TWO, "variance": TWO}}  # 2 (x - 2) / sqrt(2 + 2) + 2
    owned = weights if kind == "BatchNormalizationV1" else {}
    second = entry("LeakyReLU", "end", "x", alpha=0.5)
    model = load_model(write_h5(tmp_path / "m.h5", functional(layer, second), owned))
    outputs = run(model, SAMPLES)
    np.testing.assert_allclose(outputs, np.maximum(expected, 0.5 * expected), atol=1e-6)  # float32
