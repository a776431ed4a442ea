"""The files of a deployment, written into a fresh folder and each checked against the reference before it counts."""

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

import nettrim_runtime
from nettrim.bundle import write_json, write_manifest
from nettrim.certificate import build_certificate
from nettrim.deploy import Deployment, golden_vectors
from nettrim.deployment_inputs import DeployOptions
from nettrim.errors import VerificationError
from nettrim.importers.tflite_import import import_tflite
from nettrim.report import build_report, number_text, percent_text, size_text
from nettrim.silent_streams import silent_streams
from nettrim.toolchain import (
    MissingToolError,
    ToolchainError,
    compile_bench,
    compiler_version,
    find_tool,
    link_firmware,
    run_binary,
    runs_natively,
)
from nettrim_boards.board import FIRMWARE_FOLDER, Board, load_board
from nettrim_exporters.c_header import render_c_header, render_c_kernels
from nettrim_exporters.tflite import render_tflite
from nettrim_exporters.tflite_metadata import LABELS_FILE, Preparation, render_labels
from nettrim_exporters.tflite_micro import micro_gaps
from nettrim_runtime.compare import count_differing, output_tolerance
from nettrim_runtime.engine import run_graph
from nettrim_runtime.errors import UnsupportedOperatorError
from nettrim_runtime.graph import Array, Graph
from nettrim_runtime.model_file import load_model, render_model

DEPENDENCIES = ("numpy", "scipy", "onnx", "flatbuffers", "jinja2")
FIRMWARE_NOTE = "bench/firmware.elf was linked, not run: it checks itself on the board and reports on the serial port"
SPARSE_FILE = "model.sparse.tflite"
USUAL_KERNELS = "LiteRT"
Golden = tuple[Array, Array]


def write_deployment(
    folder: Path, deployment: Deployment, options: DeployOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write every file of a deployment into an empty folder and return the report.

    Raises
    ------
    VerificationError
        When a written file does not give the reference's bits.
    ToolchainError
        When a compiler is there but fails.
    """
    golden = golden_vectors(deployment)
    (folder / "model.npz").write_bytes(render_model(deployment.shipped))
    preparation = _preparation(deployment)
    content = render_tflite(deployment.shipped, deployment.name, preparation=preparation)
    (folder / "model.tflite").write_bytes(content)
    if preparation.labels:
        (folder / LABELS_FILE).write_text(render_labels(preparation.labels), encoding="utf-8")
    if deployment.sparse_tflite is not None:
        content = render_tflite(deployment.shipped, deployment.name, deployment.sparse_tflite.layers, preparation)
        (folder / SPARSE_FILE).write_bytes(content)
    if deployment.c_form is not None:
        header = render_c_header(deployment.c_form.graph, deployment.name, (golden[0][:1], golden[1][:1]))
        (folder / "model.h").write_text(header, encoding="utf-8")
        (folder / "nettrim_kernels.h").write_text(render_c_kernels(), encoding="utf-8")
    np.savez(folder / "golden.npz", x=golden[0], y=golden[1])
    _copy_runtime(folder / "runtime")
    say("building and verifying")
    program, notes, facts = _build_program(folder, deployment) if deployment.c_form else _no_program(deployment)
    report = build_report(deployment)
    report["verification"] = verify_written(folder, deployment, golden, program)
    report["build"] = {**facts, "program": program, "notes": notes}
    write_json(folder / "report.json", report)
    (folder / "report.html").write_text(_render_html(report), encoding="utf-8")
    write_json(folder / "certificate.json", build_certificate(deployment))
    (folder / "README.md").write_text(_render_readme(deployment, program, len(golden[0])), encoding="utf-8")
    write_manifest(folder, _manifest_facts(deployment, options, facts))
    return report


def verify_written(
    folder: Path, deployment: Deployment, golden: Golden, program: str | None = None
) -> list[dict[str, Any]]:
    """Run what was written on the golden inputs and compare with the reference: bits, or floats to their rounding.

    Returns
    -------
    list of dict
        One an artefact that could be run here: artifact, by, samples, differing (always 0) and tolerance, a share of
        the largest output (0 of bits).

    Raises
    ------
    VerificationError
        When an output differs.
    """
    board, inputs, expected = deployment.inputs.board, *golden
    checks = [("model.npz", "NumPy runtime", run_graph(load_model(folder / "model.npz"), inputs), expected)]
    files = [("model.tflite", deployment.shipped)]
    if deployment.sparse_tflite is not None:
        files.append((SPARSE_FILE, deployment.sparse_tflite.reference))
    for name, reference in files:
        content = (folder / name).read_bytes()
        if (read := _read_back(content, name, deployment.shipped)) is not None:
            checks.append((name, "nettrim, read back", run_graph(read, inputs), expected))
        expected_of_file = run_graph(reference, inputs)
        checks += [(name, by, outputs, expected_of_file) for by, outputs in _run_tflite(content, inputs, reference)]
    if deployment.c_form is not None and find_tool("cc"):
        checks.append(("model.h", "C compiled on the host", _run_host_c(folder, deployment.name, inputs), expected))
    if program is not None and board.os == "linux" and board.toolchain != "native" and _can_run(board):
        by = f"{board.emulator} {' '.join(board.emulator_options)}".strip()
        checks.append((program, by, _run_program(board, folder / program, inputs, expected.shape), expected))
    tolerances = {is_other: output_tolerance(deployment.shipped, is_other_grid=is_other) for is_other in (False, True)}
    return [_check(*check, tolerances[check[1] == USUAL_KERNELS]) for check in checks]


def _check(artifact: str, by: str, outputs: Array, expected: Array, tolerance: float) -> dict[str, Any]:
    differing = count_differing(outputs, expected, tolerance)
    if differing:
        raise VerificationError(
            f"{artifact} run by {by} differs from the reference on {differing} of {len(expected)} golden inputs; "
            "nothing was written: please report this with the model"
        )
    return {"artifact": artifact, "by": by, "samples": len(expected), "differing": differing, "tolerance": tolerance}


def _no_program(deployment: Deployment) -> tuple[None, list[str], dict[str, Any]]:
    precision = deployment.inputs.precision
    return None, [f"there is no model.h: C is written for int8, not for {precision}"], {"compiler": None}


def _build_program(folder: Path, deployment: Deployment) -> tuple[str | None, list[str], dict[str, Any]]:
    """Build the board's program where its compiler is installed: (path in the folder, notes, facts)."""
    board = deployment.inputs.board
    bench = folder / "bench"
    bench.mkdir()
    for source in FIRMWARE_FOLDER.iterdir():
        if source.suffix in {".c", ".h"}:
            shutil.copyfile(source, bench / source.name)
    if board.os == "none":
        shutil.copytree(FIRMWARE_FOLDER / board.name, bench / board.name)
    try:
        facts: dict[str, Any] = {"compiler": compiler_version(board)}
        if board.os == "none":
            size = link_firmware(board, folder, deployment.name, bench / "firmware.elf")
            return "bench/firmware.elf", [FIRMWARE_NOTE], {**facts, "firmware": dataclasses.asdict(size)}
        program = compile_bench(board, folder, deployment.name, bench / f"bench-{board.name}")
        program.chmod(0o755)
        return program.relative_to(folder).as_posix(), [], facts
    except MissingToolError as error:
        return None, [f"no program was built for {board.name}: {error}"], {"compiler": None}


def _read_back(content: bytes, name: str, shipped: Graph) -> Graph | None:
    """Return the network in a .tflite as the importer sees it; None for what it does not read as it is."""
    is_float = all(tensor.dtype == "float32" for tensor in shipped.tensors.values())
    try:
        found = import_tflite(content, name, name)
    except UnsupportedOperatorError:
        return None
    return found.graph if is_float else found.quantized


def _run_tflite(content: bytes, inputs: Array, reference: Graph) -> list[tuple[str, Array]]:
    """Run a .tflite with LiteRT's reference kernels, floats with its usual ones too; nothing where it is not installed.

    Its usual kernels for int8 give other bits.
    """
    try:
        from ai_edge_litert.interpreter import OpResolverType  # noqa: PLC0415
    except ImportError:
        return []
    runs = [("LiteRT reference kernels", _invoke(content, inputs, OpResolverType.BUILTIN_REF))]
    return runs if reference.is_quantized else [*runs, (USUAL_KERNELS, _invoke(content, inputs, OpResolverType.AUTO))]


def _invoke(content: bytes, inputs: Array, resolver: Any) -> Array:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    with silent_streams():  # it names its kernels there
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
        entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(entry["index"], inputs.shape)
        interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], inputs)
    interpreter.invoke()
    outputs: Array = interpreter.get_tensor(output["index"])
    return outputs


def _run_host_c(folder: Path, name: str, inputs: Array) -> Array:
    host = load_board("host")
    scratch = folder / "bench" / "host-check"
    program = compile_bench(host, folder, name, scratch)
    graph = load_model(folder / "model.npz")
    shape = (len(inputs), *graph.tensors[graph.outputs[0]].shape)
    try:
        return _run_program(host, program, inputs, shape)
    finally:
        scratch.unlink()


def _run_program(board: Board, program: Path, inputs: Array, shape: tuple[int, ...]) -> Array:
    entry, result = program.with_suffix(".input"), program.with_suffix(".output")
    try:
        entry.write_bytes(inputs.tobytes())
        finished = run_binary(board, program, ["run", entry, result])
        if finished.returncode != 0:
            raise ToolchainError(f"{program.name} ended with status {finished.returncode}: {finished.stderr.strip()}")
        outputs: Array = np.frombuffer(result.read_bytes(), np.int8).reshape(shape)
        return outputs
    finally:
        entry.unlink(missing_ok=True)
        result.unlink(missing_ok=True)


def _can_run(board: Board) -> bool:
    return runs_natively(board) or (board.emulator is not None and find_tool(board.emulator) is not None)


def _copy_runtime(folder: Path) -> None:
    source = Path(nettrim_runtime.__file__).parent
    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "tflite_schema.py"))


def _manifest_facts(deployment: Deployment, options: DeployOptions, build: dict[str, Any]) -> dict[str, Any]:
    graph, spec = deployment.shipped, deployment.inputs.spec
    settings = dataclasses.asdict(deployment.inputs.prune)
    return {
        "tool": {"name": "nettrim", "version": importlib.metadata.version("nettrim")},
        "dependencies": {name: importlib.metadata.version(name) for name in DEPENDENCIES},
        "compiler": build["compiler"],
        "board": deployment.inputs.board.name,
        "model": {"name": deployment.name, "file": options.model.name, "trust_pickle": options.trust_pickle},
        "input": {
            **_port(deployment, graph.inputs[0]),
            "source_shape": spec.source_shape,
            "source_layout": spec.source_layout,
            **dataclasses.asdict(spec.options),
        },
        "output": _port(deployment, graph.outputs[0]),
        "options": {"precision": options.precision, **settings, "mode": settings["mode"].value, "seed": options.seed},
    }


def _port(deployment: Deployment, name: str) -> dict[str, Any]:
    tensor = deployment.shipped.tensors[name]
    port = {"shape": tensor.shape, "dtype": tensor.dtype}
    if tensor.quantization is None:
        return port
    return {**port, "scale": float(tensor.quantization.scale[0]), "zero_point": tensor.quantization.zero_point}


def _render_readme(deployment: Deployment, program: str | None, golden_samples: int) -> str:
    graph = deployment.shipped
    entry, output = _port(deployment, graph.inputs[0]), _port(deployment, graph.outputs[0])
    return _template("README.md.j2").render(
        name=deployment.name,
        board=deployment.inputs.board,
        version=importlib.metadata.version("nettrim"),
        program=program,
        precision=deployment.inputs.precision,
        sparse_tflite=deployment.sparse_tflite,
        labels=deployment.inputs.class_names,
        micro_gaps=micro_gaps(graph),
        has_classes=deployment.agreement.deployed is not None,
        golden_samples=golden_samples,
        preprocessing=_preprocessing(deployment),
        input_shape=entry["shape"],
        input_scale=f"{entry.get('scale', 1):.9g}",
        input_zero_point=entry.get("zero_point", 0),
        output_shape=output["shape"],
        output_scale=f"{output.get('scale', 1):.9g}",
        output_zero_point=output.get("zero_point", 0),
    )


def _render_html(report: dict[str, Any]) -> str:
    return _template("report.html.j2").render(report=report, percent=percent_text, size=size_text, number=number_text)


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=name.endswith(".html.j2"),  # the others are Markdown
    )
    return environment.from_string((resources.files("nettrim") / "templates" / name).read_text("utf-8"))


def _preparation(deployment: Deployment) -> Preparation:
    """Return (x * scale - mean) / std as the (x - mean) / std of TFLite's metadata."""
    options = deployment.inputs.spec.options
    mean, std = options.mean or (0.0,), options.std or (1.0,)
    return Preparation(
        mean=tuple(value / options.input_scale for value in mean),
        std=tuple(value / options.input_scale for value in std),
        labels=deployment.inputs.class_names,
    )


def _preprocessing(deployment: Deployment) -> str:
    options = deployment.inputs.spec.options
    steps = []
    if options.input_scale != 1.0:
        steps.append(f"times {options.input_scale:.9g}")
    if options.mean:
        steps.append(f"minus {list(options.mean)}")
    if options.std:
        steps.append(f"over {list(options.std)}")
    return f"; x is the raw value {', '.join(steps)}" if steps else ""
