"""Small torch modules for the importers' tests, the comparison with torch, and what hostile files try."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nettrim.importers import ImportedModel, script_process
from nettrim_runtime.engine import run_graph
from tests.nettrim.onnx_models import arrange_samples


@pytest.fixture
def scripts_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export TorchScript without a process for each file, which would take seconds."""

    def run_here(_: str, args: Sequence[str | Path], _timeout_s: float) -> CompletedProcess[str]:
        return CompletedProcess([], script_process.main([*map(str, args)]))

    monkeypatch.setattr(script_process, "run_module", run_here)
    monkeypatch.setattr(script_process, "limit_memory", lambda _: None)


class Marker:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def make_cnn() -> nn.Sequential:
    """Return a module of standard layers for samples (2, 8, 6), with batch statistics that are not trivial."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Sequential(nn.Linear(48, 8), nn.ReLU6()),
        nn.Linear(8, 3),
        nn.Softmax(dim=1),
    )
    nn.init.uniform_(module[1].running_mean, -0.5, 0.5)
    nn.init.uniform_(module[1].running_var, 0.5, 2.0)
    return module.eval()


def assert_runs_as_in_torch(model: ImportedModel, module: Any) -> None:
    samples = np.random.default_rng(0).normal(size=(5, *model.source_shape)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(samples)).numpy()
    outputs = run_graph(model.graph, arrange_samples(model, samples))
    if any("(height, width, channels)" in note for note in model.notes):
        outputs = outputs.transpose(0, 3, 1, 2)
    assert outputs.shape == expected.shape
    np.testing.assert_allclose(outputs, expected, atol=1e-5)  # float32 sums of at most 48 terms


def rewrite(path: Path, entries: dict[str, bytes]) -> None:
    """Replace or add entries of a zip archive, named without its folder."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(content)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, **{f"{folder}/{name}": data for name, data in entries.items()}}.items():
            archive.writestr(name, data)
