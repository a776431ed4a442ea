"""Who may import whom: the arrows of ARCHITECTURE.md, kept true by reading the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "nettrim_boards": ROOT / "boards" / "nettrim_boards",
    "nettrim_runtime": ROOT / "runtime" / "nettrim_runtime",
    "nettrim_exporters": ROOT / "exporters" / "nettrim_exporters",
    "nettrim": ROOT / "nettrim",
}
ALLOWED_ROOMS = {
    "nettrim_boards": set(),
    "nettrim_runtime": set(),
    "nettrim_exporters": {"nettrim_runtime"},
    "nettrim": {"nettrim_boards", "nettrim_exporters", "nettrim_runtime"},
}
ALLOWED_LIBRARIES = {
    "nettrim_boards": set(),
    "nettrim_runtime": {"numpy"},
    "nettrim_exporters": {"numpy", "flatbuffers", "jinja2"},
    "nettrim": {"numpy", "array_api_compat", "scipy", "onnx", "google", "jinja2", "typer", "rich", "threadpoolctl"},
}
OPTIONAL_LIBRARIES = {
    "torch",
    "onnxscript",
    "ai_edge_litert",
    "cvxpy",
    "h5py",
}  # extras: imported inside the one function that needs them
MODULES = [(room, path) for room, folder in ROOMS.items() for path in sorted(folder.rglob("*.py"))]
PIPELINE = {
    *(
        "board_limits.py",
        "cli.py",
        "deploy.py",
        "deployment_inputs.py",
        "deployment_files.py",
        "deployment_warnings.py",
        "sparse_tflite.py",
    ),
    "operator_table.py",
}
IDS = [path.relative_to(ROOT).as_posix() for _, path in MODULES]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(("room", "path"), MODULES, ids=IDS)
def test_a_module_imports_only_what_its_room_may(room: str, path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = imported(tree) - set(sys.stdlib_module_names) - {room}
    assert foreign <= ALLOWED_ROOMS[room] | ALLOWED_LIBRARIES[room] | (
        OPTIONAL_LIBRARIES if room == "nettrim" else set()
    )
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not imported(top) & OPTIONAL_LIBRARIES, "an extra is imported inside the function that needs it"


@pytest.mark.parametrize(("room", "path"), MODULES, ids=IDS)
def test_a_module_stays_short_and_says_what_it_is_for(room: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400, room
    assert ast.get_docstring(ast.parse(text))


def test_only_pipeline_and_command_line_import_exporters() -> None:
    users = {
        path.name
        for path in sorted(ROOMS["nettrim"].rglob("*.py"))
        if "nettrim_exporters" in imported(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert users <= PIPELINE


def test_only_one_module_calls_other_programs() -> None:
    users = {
        path.name
        for _, path in MODULES
        if "subprocess" in imported(ast.parse(path.read_text(encoding="utf-8"))) and "nettrim_runtime" not in path.parts
    }
    assert users <= {"toolchain.py"}


def test_the_runtime_needs_numpy_alone() -> None:
    for room, path in MODULES:
        if room == "nettrim_runtime":
            assert imported(ast.parse(path.read_text(encoding="utf-8"))) - set(sys.stdlib_module_names) <= {
                "numpy",
                "nettrim_runtime",
            }
