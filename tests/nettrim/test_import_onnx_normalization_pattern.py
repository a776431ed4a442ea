"""Layer normalisations that ONNX files spell out, against ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from nettrim.importers import ImportedModel, load_model
from nettrim_runtime.errors import ModelFileError, UnsupportedOperatorError
from tests.nettrim.onnx_models import (
    Array,
    assert_runs_as_in_onnx_runtime,
    node,
    op_names,
    random_floats,
    write_onnx,
)

CHAIN = ["Conv2d", "Sub", "Mul", "Conv2d", "UnaryFunction", "Mul", "Conv2d"]
WIDTH = 12
NUMBERS = {"eps": np.float32(1e-3), "one": np.float32(1), "two": np.float32(2), "half": np.float32(0.5)}
AXES = {"axes": [-1]}
CENTRED = [node("ReduceMean", "t", "m", **AXES), node("Sub", "t m", "c")]
SHIFTED = [node("ReduceMean", "q", "v", **AXES), node("Add", "v eps", "e")]
VARIANCE = [*CENTRED, node("Pow", "c two", "q"), *SHIFTED]
SCALED = [node("Mul", "n s", "a"), node("Add", "a b", "y")]
INVERSE = [*VARIANCE, node("Sqrt", "e", "r"), node("Reciprocal", "r", "i")]
FOLDED = [node("Mul", "i s", "g"), node("Mul", "t g", "f"), node("Mul", "m g", "h"), node("Sub", "b h", "o")]

FORMS = {
    "a quotient by the root": [*VARIANCE, node("Sqrt", "e", "r"), node("Div", "c r", "n"), *SCALED],
    "a difference for the square alone": [
        *VARIANCE,
        node("Sub", "t m", "d"),
        node("Sqrt", "e", "r"),
        node("Div", "d r", "n"),
        *SCALED,
    ],
    "a product with itself": [
        *CENTRED,
        node("Mul", "c c", "q"),
        *SHIFTED,
        node("Sqrt", "e", "r"),
        node("Div", "c r", "n"),
        *SCALED,
    ],
    "one half as the power": [*VARIANCE, node("Pow", "e half", "r"), node("Div", "c r", "n"), *SCALED],
    "minus one half as the power": [*VARIANCE, node("Pow", "e minus", "i"), node("Mul", "i c", "n"), *SCALED],
    "a reciprocal": [*INVERSE, node("Mul", "c i", "n"), *SCALED],
    "one by the root": [*VARIANCE, node("Sqrt", "e", "r"), node("Div", "one r", "i"), node("Mul", "c i", "n"), *SCALED],
    "the scale in the inverse": [*INVERSE, node("Mul", "s i", "g"), node("Mul", "g c", "a"), node("Add", "b a", "y")],
    "the mean in the offset": [*INVERSE, *FOLDED, node("Add", "f o", "y")],
    "the mean in the offset, first": [*INVERSE, *FOLDED, node("Add", "o f", "y")],
}


def constants(**others: Array) -> dict[str, Array]:
    numbers = {**NUMBERS, "minus": np.float32(-0.5), "w": random_floats(7, WIDTH)}
    return {**numbers, "s": random_floats(WIDTH), "b": random_floats(WIDTH), **others}


def without_reshapes(model: ImportedModel) -> list[str]:
    return [name for name in op_names(model) if name != "Reshape"]


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_a_normalisation_is_recognised_by_its_form(tmp_path: Path, form: list[onnx.NodeProto]) -> None:
    nodes = [node("MatMul", "x w", "t"), *form]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 7], constants(), opset=13)
    model = assert_runs_as_in_onnx_runtime(path)
    assert without_reshapes(model) == ["Dense", *CHAIN]
    assert "layer normalisations recognised by their form: 1" in model.notes


def test_axes_may_be_an_input(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "t")]
    nodes += [node("ReduceMean", "t ax", "m"), node("Sub", "t m", "c"), node("Pow", "c two", "q")]
    nodes += [node("ReduceMean", "q ax", "v"), node("Add", "v eps", "e"), node("Sqrt", "e", "r")]
    path = write_onnx(
        tmp_path / "m.onnx", [*nodes, node("Div", "c r", "y")], ["N", 7], constants(ax=np.array([1])), opset=18
    )
    assert without_reshapes(assert_runs_as_in_onnx_runtime(path)) == ["Dense", *CHAIN[:-1]]


@pytest.mark.parametrize(("name", "value"), [("ax", np.float32([np.nan])), ("eps", np.array([b"text"], object))])
def test_axes_and_numbers_of_another_type_are_refused(tmp_path: Path, name: str, value: Array) -> None:
    nodes = [node("ReduceMean", "x ax", "m"), node("Sub", "x m", "c"), node("Pow", "c two", "q")]
    nodes += [node("ReduceMean", "q ax", "v"), node("Add", "v eps", "e")]
    nodes += [node("Sqrt", "e", "r"), node("Div", "c r", "y")]
    parts = {"ax": np.array([1]), "eps": NUMBERS["eps"], "two": NUMBERS["two"]}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 7], parts, opset=18)
    model = onnx.load(path)
    (changed,) = (each for each in model.graph.initializer if each.name == name)
    changed.CopyFrom(onnx.numpy_helper.from_array(value, name))
    path.write_bytes(model.SerializeToString())
    with pytest.raises((UnsupportedOperatorError, ModelFileError)):
        load_model(path)


def test_channels_of_every_pixel_are_normalised(tmp_path: Path) -> None:
    axes = {"axes": [1]}
    nodes = [node("Conv", "x w", "t"), node("ReduceMean", "t", "m", **axes), node("Sub", "t m", "c")]
    nodes += [node("Pow", "c two", "q"), node("ReduceMean", "q", "v", **axes), node("Add", "v eps", "e")]
    nodes += [node("Sqrt", "e", "r"), node("Div", "c r", "n"), *SCALED]
    parts = {"w": random_floats(6, 3, 2, 2), "s": random_floats(6, 1, 1), "b": random_floats(6, 1, 1)}
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 3, 5, 4], constants(**parts), opset=13)
    assert without_reshapes(assert_runs_as_in_onnx_runtime(path)) == ["Conv2d", *CHAIN]


def test_what_else_reads_the_mean_still_has_it(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "t"), *VARIANCE, node("Sqrt", "e", "r"), node("Div", "c r", "n")]
    path = write_onnx(tmp_path / "m.onnx", [*nodes, node("Add", "n m", "y")], ["N", 7], constants(), opset=13)
    assert_runs_as_in_onnx_runtime(path)


@pytest.mark.parametrize(
    "form",
    [
        [*CENTRED, node("Pow", "t two", "q"), *SHIFTED, node("Sqrt", "e", "r"), node("Div", "c r", "y")],
        [*VARIANCE, node("Sqrt", "e", "r"), node("Div", "t r", "y")],
        [*VARIANCE, node("Sqrt", "v", "r"), node("Div", "c r", "y")],
        [*INVERSE, *FOLDED[:2], node("Mul", "v g", "h"), FOLDED[3], node("Add", "f o", "y")],
    ],
)
def test_what_only_looks_like_a_normalisation_is_refused(tmp_path: Path, form: list[onnx.NodeProto]) -> None:
    nodes = [node("MatMul", "x w", "t"), *form]
    path = write_onnx(tmp_path / "m.onnx", nodes, ["N", 7], constants(), opset=13)
    with pytest.raises(UnsupportedOperatorError, match="Sqrt"):
        load_model(path)


@pytest.mark.parametrize("part", ["s", "b"])
@pytest.mark.parametrize("width", [5, 13])
def test_factors_of_another_length_are_refused_even_when_they_change_nothing(
    tmp_path: Path, part: str, width: int
) -> None:
    plain = {"s": np.ones(WIDTH, np.float32), "b": np.zeros(WIDTH, np.float32)}
    parts = {**plain, part: np.full(width, plain[part][0])}
    path = write_onnx(tmp_path / "m.onnx", [node("LayerNormalization", "x s b", "y")], ["N", WIDTH], parts)
    with pytest.raises(UnsupportedOperatorError, match=rf"a scale or bias of shape \({width},\) for an input of shape"):
        load_model(path)
