"""The whole way on real data: LeNet-300-100 and LeNet-5 on all of MNIST's test digits, every program's bits."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nettrim.bundle import read_manifest, verify_bundle
from nettrim.toolchain import compile_bench, run_binary
from nettrim_boards.board import load_board
from nettrim_runtime.engine import run_graph
from nettrim_runtime.model_file import load_model
from tests.boards.need_tools import need_tools
from tests.shared_data import shared_data

pytestmark = pytest.mark.slow

Array = npt.NDArray[Any]
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A model of the shared data, its files by examples/mnist, and what it may lose (points of 100)."""

    model: str
    files: str
    accuracy: float
    largest_drop: float


CASES = {
    "lenet_300_100": Case("models/lenet_300_100_mnist.pt", "lenet_300_100", 0.9828, 0.003),
    "lenet5": Case("models/lenet5_mnist.onnx", "lenet5", 0.9861, 0.005),
}


@dataclass(frozen=True)
class Deployed:
    """A finished deployment, and the int8 test digits with the reference's answers."""

    case: Case
    folder: Path
    report: dict[str, Any]
    inputs: Array
    outputs: Array


@pytest.fixture(scope="module", params=CASES)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    case = CASES[request.param]
    model, mnist = shared_data(case.model), shared_data("mnist.npz")
    folder = tmp_path_factory.mktemp(case.files)
    script = REPOSITORY / "examples" / "mnist" / "make_npz.py"
    subprocess.run([sys.executable, script, mnist, folder], check=True)
    files, output = folder / case.files, folder / "out"
    options = [
        "--data",
        files / "calib.npz",
        "--test-data",
        files / "test.npz",
        "--sparsity",
        "0.70",
        "--output",
        output,
    ]
    command = [sys.executable, "-c", "from nettrim.cli import deploy_main; deploy_main()", "--target", "rpi4", model]
    subprocess.run([*map(str, command), *map(str, options)], check=True)
    graph = load_model(output / "model.npz")
    with np.load(files / "test.npz") as data:
        x = data["x"].reshape(
            -1, *graph.tensors[graph.inputs[0]].shape
        )  # one channel: NCHW and NHWC are the same bytes
    inputs = graph.quantization(graph.inputs[0]).quantize(x)
    report = json.loads((output / "report.json").read_text())
    return Deployed(case, output, report, inputs, run_graph(graph, inputs))


def test_the_deployment_is_whole(deployed: Deployed) -> None:
    names = {"manifest.json", "report.json", "certificate.json", "model.npz", "model.tflite", "model.h"}
    assert names <= {path.name for path in deployed.folder.iterdir()}
    assert verify_bundle(deployed.folder) > len(names)


def test_seventy_per_cent_of_the_weights_go_and_the_accuracy_stays(deployed: Deployed) -> None:
    accuracy = deployed.report["accuracy"]
    assert accuracy["samples"] == 10_000
    assert abs(accuracy["original"] - deployed.case.accuracy) < 1e-9
    assert accuracy["original"] - accuracy["deployed"] <= deployed.case.largest_drop
    assert deployed.report["totals"]["sparsity"] >= 0.7
    assert deployed.report["totals"]["stored_bytes"] < deployed.report["totals"]["dense_bytes"]


def test_the_reference_kernels_give_the_same_bits_on_all_digits(deployed: Deployed) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(deployed.folder / "model.tflite"), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], deployed.inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], deployed.inputs)
    interpreter.invoke()
    np.testing.assert_array_equal(interpreter.get_tensor(output["index"]), deployed.outputs)


def run_on(board_name: str, program: Path, inputs: Array, shape: tuple[int, ...]) -> Array:
    (program.parent / "in").write_bytes(inputs.tobytes())
    finished = run_binary(load_board(board_name), program, ["run", program.parent / "in", program.parent / "out"])
    assert finished.returncode == 0, finished.stderr
    return np.frombuffer((program.parent / "out").read_bytes(), np.int8).reshape(shape)


def test_native_c_gives_the_same_bits_on_all_digits(deployed: Deployed, tmp_path: Path) -> None:
    need_tools("cc")
    name = read_manifest(deployed.folder)["model"]["name"]
    program = compile_bench(load_board("host"), deployed.folder, name, tmp_path / "program")
    outputs = run_on("host", program, deployed.inputs, deployed.outputs.shape)
    np.testing.assert_array_equal(outputs, deployed.outputs)


def test_the_boards_own_program_gives_the_same_bits_in_emulation(deployed: Deployed, tmp_path: Path) -> None:
    need_tools("aarch64-linux-gnu-gcc", "qemu-aarch64")
    program = tmp_path / "program"
    program.write_bytes((deployed.folder / "bench" / "bench-rpi4").read_bytes())
    program.chmod(0o755)
    outputs = run_on("rpi4", program, deployed.inputs[:2000], deployed.outputs[:2000].shape)
    np.testing.assert_array_equal(outputs, deployed.outputs[:2000])
