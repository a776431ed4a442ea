"""safetensors: plain chains, weights for one's own module, and damaged headers."""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nettrim.importers import load_model
from nettrim.importers.safetensors_file import read_safetensors
from nettrim_runtime.errors import ModelFileError
from tests.nettrim.torch_models import assert_runs_as_in_torch, make_cnn


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], dtype: str = "F32") -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        values = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else tensor.numpy().tobytes()
        kind = dtype if tensor.is_floating_point() else "I64"
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_chain_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    path = write_safetensors(tmp_path / "m.safetensors", {"fc.weight": weight, "fc.bias": torch.ones(2)})
    monkeypatch.setitem(sys.modules, "torch", None)
    model = load_model(path)
    assert (model.format, model.source_shape) == ("safetensors", (3,))
    np.testing.assert_array_equal(model.graph.tensors["fc.weight"].values(), weight.numpy())


@pytest.mark.slow
def test_weights_of_ones_own_module_run_as_in_torch(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.nettrim.torch_models import make_cnn\n")
    module = make_cnn()
    path = write_safetensors(tmp_path / "m.safetensors", module.state_dict())
    model = load_model(path, arch=f"{tmp_path / 'net.py'}:make_cnn", input_shape=(2, 8, 6))
    assert_runs_as_in_torch(model, module)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F16", torch.float16), ("BF16", torch.bfloat16), ("F32", torch.float32), ("F64", torch.float64)],
)
def test_every_float_is_read_as_torch_has_it(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    values = read_safetensors(write_safetensors(tmp_path / "m", {"weight": weight}, kind))["weight"]
    np.testing.assert_array_equal(values.astype(np.float64), weight.double().numpy())


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 20]}, "damaged or cut short"),
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [4, 20]}, "damaged or cut short"),
        ({"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 16]}, "damaged or cut short"),
        ({"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}, "expected integers from 0"),
        ({"dtype": "F32", "shape": [2.0, 2], "data_offsets": [0, 16]}, "expected integers from 0"),
        ({"dtype": "F32", "shape": "22", "data_offsets": [0, 16]}, "expected integers from 0"),
        ({"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 16]}, "is F8_E4M3"),
        ({"dtype": "I32", "shape": [2, 2], "data_offsets": [0, 16]}, "expected trained weights"),
        ({"dtype": "F32", "shape": [2, 2]}, "no dtype, shape and data_offsets"),
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0]}, "no dtype, shape and data_offsets"),
        ([], "no dtype, shape and data_offsets"),
    ],
)
def test_header_that_does_not_fit_is_refused(tmp_path: Path, entry: Any, expected: str) -> None:
    text = json.dumps({"weight": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(ModelFileError, match=expected):
        load_model(path)


def test_tensors_that_lie_over_one_another_count_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nettrim.importers.memory_limit.MAX_FILE_BYTES", 1 << 20)
    n_bytes = 1 << 18
    entry = {"dtype": "F32", "shape": [n_bytes // 4], "data_offsets": [0, n_bytes]}
    text = json.dumps(dict.fromkeys(map(str, range(5)), entry)).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(n_bytes))
    with pytest.raises(ModelFileError, match=r"with tensor '4' .* more than a model may hold"):
        read_safetensors(path)


def test_huge_header_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    length = (16 << 20) + 1
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{".ljust(length))
    with pytest.raises(ModelFileError, match="the header of the safetensors file has 16777217 bytes"):
        load_model(path)
