"""The generated C, compiled and run: the bits of the NumPy engine under every compiler and level."""

import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nettrim_exporters.c_header import c_model_facts, render_c_header, render_c_kernels
from nettrim_exporters.c_values import c_float
from nettrim_runtime.csr import csr_from_dense
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph
from nettrim_runtime.ops import Function, NearestRule, Padding, Size2d
from tests.c_model import C99, CXX, compile_c, require_tool, run_c, write_sources
from tests.graphs import (
    EVERYWHERE,
    NONE,
    OTHER_SCALES,
    RELU,
    RELU6,
    GraphBuilder,
    quantized,
    random_branches,
    random_cnn,
    random_functions,
    random_inputs,
    random_mlp,
    random_moves,
    rescaled,
    widened,
)

Array = npt.NDArray[Any]
Build = Callable[[GraphBuilder], object]

IMAGE = (9, 7, 4)
AROUND = Padding(1, 1, 1, 1)
TWO = Size2d(2, 2)
RANDOM_SAMPLES = 300

# name: (input shape, what is added, density of the weights)
BUILDERS: dict[str, tuple[tuple[int, ...], Build, float]] = {
    "dense": ((37,), lambda b: b.dense(19, RELU), 1.0),
    "dense_pruned": ((37,), lambda b: b.dense(19, RELU, 0.2), 0.2),
    "dense_uint16_columns": ((300,), lambda b: b.dense(40, NONE, 0.1), 0.1),
    "dense_empty": ((20,), lambda b: b.dense(6, NONE, 0.0), 0.0),
    "conv": (IMAGE, lambda b: b.conv(5, (3, 2)), 1.0),
    "conv_padded": (IMAGE, lambda b: b.conv(5, (3, 3), RELU, 0.4, padding=AROUND), 0.4),
    "conv_padded_unevenly": (IMAGE, lambda b: b.conv(3, (4, 3), NONE, 0.5, padding=Padding(2, 0, 0, 1)), 0.5),
    "conv_strided": (IMAGE, lambda b: b.conv(6, (3, 3), RELU6, stride=TWO, padding=Padding(0, 1, 0, 1)), 1.0),
    "conv_far_padding": (IMAGE, lambda b: b.conv(3, (2, 2), stride=Size2d(4, 4), padding=Padding(3, 2, 3, 3)), 1.0),
    "conv_dilated": (IMAGE, lambda b: b.conv(4, (3, 2), NONE, 0.6, dilation=TWO, padding=AROUND), 0.6),
    "conv_tall_dilation": (IMAGE, lambda b: b.conv(4, (3, 2), dilation=Size2d(3, 1)), 1.0),
    "conv_grouped": (IMAGE, lambda b: b.conv(6, (3, 3), RELU, 0.5, groups=2, padding=AROUND), 0.5),
    "conv_two_a_channel": (IMAGE, lambda b: b.conv(8, (3, 3), NONE, 0.5, groups=4), 0.5),
    "conv_depthwise": (IMAGE, lambda b: b.conv(4, (3, 3), RELU6, 0.7, groups=4, padding=AROUND), 0.7),
    "conv_wide_depthwise": ((5, 4, 37), lambda b: b.conv(37, (2, 3), NONE, 0.5, groups=37, dilation=Size2d(2, 1)), 0.5),
    "conv_pointwise": (IMAGE, lambda b: b.conv(7, (1, 1)), 0.5),
    "conv_empty": (IMAGE, lambda b: b.conv(3, (3, 3), NONE, 0.0, padding=AROUND), 0.0),
    "max_pool": (IMAGE, lambda b: b.max_pool(3, 2, AROUND), 1.0),
    "average_pool": ((5, 6, 35), lambda b: b.average_pool((3, 3), 2, AROUND), 1.0),
    "global_pool": (IMAGE, lambda b: b.average_pool((9, 7)), 1.0),
    "add": (IMAGE, lambda b: (b.conv(4, (1, 1)), b.add("input", RELU)), 1.0),
    "add_to_itself": (IMAGE, lambda b: b.add("input"), 1.0),
    "sub": (IMAGE, lambda b: (b.conv(4, (1, 1)), b.sub("input", RELU6)), 1.0),
    "mul": (IMAGE, lambda b: (b.conv(4, (1, 1)), b.mul("input", RELU)), 1.0),
    "mul_channels": (IMAGE, lambda b: (b.average_pool((9, 7)), b.function(Function.SIGMOID), b.mul("input")), 1.0),
    "mul_pixels": (IMAGE, lambda b: (b.flatten(), b.dense(63), b.reshape(9, 7, 1), b.mul("input")), 1.0),
    "add_columns": (IMAGE, lambda b: (b.average_pool((9, 1)), b.add("input", RELU)), 1.0),
    "sub_rows": (IMAGE, lambda b: (b.flatten(), b.dense(9), b.reshape(9, 1, 1), b.sub("input")), 1.0),
    "mul_outer": ((6, 1, 4), lambda b: (b.reshape(1, 6, 4), b.mul("input")), 1.0),
    "concat": (IMAGE, lambda b: (b.conv(5, (1, 1), RELU), b.concat("input")), 1.0),
    "concat_of_three": ((37,), lambda b: (b.dense(3), b.concat("input", "input"), b.dense(6)), 1.0),
    "concat_of_one_twice": (IMAGE, lambda b: (b.concat("input"), b.max_pool()), 1.0),
    "activation": (IMAGE, lambda b: b.activation(RELU6), 1.0),
    "functions": (IMAGE, lambda b: (*map(b.function, EVERYWHERE), b.conv(3, (1, 1))), 1.0),
    "leaky_relu": (IMAGE, lambda b: b.function(Function.LEAKY_RELU, 0.1), 1.0),
    "sigmoid": (IMAGE, lambda b: b.function(Function.SIGMOID), 1.0),
    "prelu": (IMAGE, lambda b: b.prelu(), 1.0),
    "reshape": (IMAGE, lambda b: b.flatten(), 1.0),
    "reshape_inside": (IMAGE, lambda b: (b.flatten(), b.dense(12), b.reshape(2, 3, 2), b.max_pool(1, 1)), 1.0),
    "log_softmax": ((11,), lambda b: b.log_softmax(), 1.0),
    "log_softmax_of_many": ((900,), lambda b: b.log_softmax(), 1.0),
    "log_softmax_of_rows": ((6, 5, 9), lambda b: b.log_softmax(), 1.0),
    "pad": (IMAGE, lambda b: b.pad((1, 0, 2), (0, 2, 1)), 1.0),
    "pad_rows": (IMAGE, lambda b: b.pad((1, 0, 0), (0, 0, 0)), 1.0),
    "slice": (IMAGE, lambda b: b.slice((2, 0, 1), (8, 7, 3), (1, 3, 1)), 1.0),
    "slice_of_a_vector": ((37,), lambda b: b.slice((3,), (28,), (4,)), 1.0),
    "transpose": (IMAGE, lambda b: b.transpose(2, 0, 1), 1.0),
    "transpose_of_rows": (IMAGE, lambda b: b.transpose(1, 0, 2), 1.0),
    "transpose_of_five": ((3, 4, 2, 3, 2), lambda b: b.transpose(3, 1, 4, 0, 2), 1.0),
    "resize": (IMAGE, lambda b: b.resize(18, 5, NearestRule.HALF_PIXEL_CENTERS), 1.0),
    "mean_of_channels": (IMAGE, lambda b: b.mean(2), 1.0),
    "mean_of_rows_and_channels": (IMAGE, lambda b: b.mean(0, 2, keep_dims=False), 1.0),
    "mean_of_four": ((3, 4, 2, 3), lambda b: b.mean(1, 3), 1.0),
    "mean_of_all": (IMAGE, lambda b: b.mean(0, 1, 2), 1.0),
    "softmax": ((11,), lambda b: b.softmax(), 1.0),
    "softmax_of_many": ((511,), lambda b: b.softmax(), 1.0),
    "softmax_of_four": ((4,), lambda b: b.softmax(), 1.0),
    "softmax_of_rows": ((6, 5, 9), lambda b: b.softmax(), 1.0),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A quantised graph, its header with a golden vector, and what the engine answers."""

    graph: Graph
    header: str
    samples: Array
    expected: Array


def sparse(graph: Graph) -> Graph:
    """Return the graph with every weight in CSR."""
    tensors = [graph.tensors[layer.weight] for layer in graph.layers]
    return graph.with_tensors(replace(t, data=csr_from_dense(t.values().reshape(t.shape[0], -1))) for t in tensors)


def extreme_inputs(graph: Graph) -> Array:
    shape = graph.tensors[graph.inputs[0]].shape
    zero_point = graph.quantization(graph.inputs[0]).zero_point
    constants = [np.full(shape, value, np.int8) for value in (-128, 127, zero_point, -1, 0)]
    return np.stack([*constants, np.resize(np.array([-128, 127], np.int8), shape)])


def case(name: str, graph: Graph, rng: np.random.Generator) -> Case:
    samples = np.concatenate([extreme_inputs(graph), random_inputs(graph, rng, RANDOM_SAMPLES)])
    expected = run_graph(graph, samples)
    return Case(graph, render_c_header(graph, name, (samples[-1], expected[-1])), samples, expected)


def surrounded(shape: tuple[int, ...], build: Build, rng: np.random.Generator) -> Graph:
    """Return a graph that can be int16 where operators are built: others read its input and write its output."""
    if len(shape) == 3:
        builder = GraphBuilder(rng, shape)
        builder.conv(shape[2], (1, 1))
    else:
        builder = GraphBuilder(rng, (math.prod(shape),))
        builder.dense(math.prod(shape))
        builder.reshape(*shape)
    build(builder)
    builder.flatten()
    builder.dense(9)
    return builder.build()


def all_cases() -> dict[str, Case]:
    rng = np.random.default_rng(0)
    graphs = {}
    for name, (shape, build, density) in BUILDERS.items():
        builder = GraphBuilder(rng, shape)
        build(builder)
        graphs[name] = quantized(builder.build(name), rng)
        if density < 1:
            graphs[f"{name}_csr"] = sparse(graphs[name])
        graphs |= {f"{name}_int16": (wide := widened(surrounded(shape, build, rng), rng))}
        if density < 1:
            graphs[f"{name}_int16_csr"] = sparse(wide)
    for i in range(3):
        graphs[f"mlp_{i}"] = quantized(random_mlp(rng), rng)
        graphs[f"mlp_{i}_csr"] = sparse(quantized(random_mlp(rng, 0.3), rng))
        graphs[f"cnn_{i}"] = quantized(random_cnn(rng), rng)
        graphs[f"cnn_{i}_csr"] = sparse(quantized(random_cnn(rng, 0.3), rng))
        graphs[f"mixed_{i}"] = widened(random_cnn(rng), rng, share=0.5)
    graphs["function_network"] = quantized(random_functions(rng), rng)
    graphs["function_network_mixed"] = widened(random_functions(rng), rng, share=0.6)
    graphs["branches"] = quantized(random_branches(rng), rng)
    graphs["branches_csr"] = sparse(quantized(random_branches(rng, 0.3), rng))
    graphs["branches_mixed"] = widened(random_branches(rng), rng, share=0.6)
    graphs["branches_int16"] = widened(random_branches(rng), rng)
    graphs |= {f"rescaled_{i}": rescaled(*scale) for i, scale in enumerate(OTHER_SCALES)}
    graphs["moves"] = quantized(random_moves(rng), rng)
    graphs["moves_csr"] = sparse(quantized(random_moves(rng, 0.3), rng))
    graphs["moves_mixed"] = widened(random_moves(rng), rng, share=0.5)
    return {name: case(name, graph, rng) for name, graph in graphs.items()}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return all_cases()


def small_mlp() -> Graph:
    return quantized(random_mlp(np.random.default_rng(1)), np.random.default_rng(1))


def assert_same_bits(binary: Path, cases: dict[str, Case], emulator: str | None = None) -> None:
    for index, (name, one) in enumerate(cases.items()):
        found = run_c(binary, index, one.samples, one.expected[0].size, emulator)
        differing = np.count_nonzero(found != one.expected.reshape(found.shape))
        assert differing == 0, f"{name}: {differing} of {found.size} outputs differ"


def build_all(cases: dict[str, Case], folder: Path, compiler: str, *flags: str) -> Path:
    source = write_sources({name: one.header for name, one in cases.items()}, folder)
    return compile_c(source, folder / "cases", compiler, flags)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        (*C99, "-Wvla", "-O0"),
        (*C99, "-Os"),
        (*C99, "-O3", "-march=native"),
        (*C99, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    ],
    ids=["O0", "Os", "O3-native", "sanitizers"],
)
def test_gcc_gives_the_bits_of_the_engine(cases: dict[str, Case], tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert_same_bits(build_all(cases, tmp_path, "gcc", *flags), cases)


@pytest.mark.slow
def test_a_cpp_compiler_gives_the_bits_of_the_engine(cases: dict[str, Case], tmp_path: Path) -> None:
    assert_same_bits(build_all(cases, tmp_path, "g++", "-x", "c++", *CXX, "-O2"), cases)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
def test_aarch64_gives_the_bits_of_the_engine(cases: dict[str, Case], tmp_path: Path, cpu: str) -> None:
    flags = (*C99, "-O3", f"-mcpu={cpu}", "-static")
    binary = build_all(cases, tmp_path, "aarch64-linux-gnu-gcc", *flags)
    assert_same_bits(binary, cases, "qemu-aarch64")


CORTEX_M = {
    "cortex-m0plus": ("-mcpu=cortex-m0plus",),
    "cortex-m4": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
}
FIRMWARE = """#include "cnn.h"
int run(const int8_t *in, int8_t *out, void *arena);
int selftest(void *arena);
int run(const int8_t *in, int8_t *out, void *arena) { return nt_cnn_run(in, out, arena); }
int selftest(void *arena) { return nt_cnn_selftest(arena); }
"""


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CORTEX_M)
def test_cortex_m_needs_nothing_but_memory_and_integer_functions(tmp_path: Path, cpu: str) -> None:
    rng = np.random.default_rng(2)
    write_sources({"cnn": case("cnn", sparse(quantized(random_cnn(rng, 0.5), rng)), rng).header}, tmp_path)
    source = tmp_path / "firmware.c"
    source.write_text(FIRMWARE)
    flags = (*C99, *CORTEX_M[cpu], "-mthumb", "-Os", "-c")
    compiled = compile_c(source, tmp_path / "firmware.o", "arm-none-eabi-gcc", flags)
    undefined = undefined_symbols("arm-none-eabi-nm", compiled)

    assert {name for name in undefined if not name.startswith(("__aeabi_", "__gnu_thumb1_"))} <= {
        "memcpy",
        "memset",
        "memcmp",
    }
    assert not {name for name in undefined if name.startswith(("__aeabi_d", "__aeabi_f", "__aeabi_i2f"))}


def undefined_symbols(nm: str, compiled: Path) -> set[str]:
    listing = subprocess.run([require_tool(nm), "-u", str(compiled)], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listing.splitlines() if line.strip()}


@pytest.mark.slow
def test_flash_bytes_are_those_of_the_compiled_constants(cases: dict[str, Case], tmp_path: Path) -> None:
    binary = build_all(cases, tmp_path, "gcc", *C99, "-O0")  # -O1 writes arrays of one value into the code
    command = [require_tool("nm"), "-S", "--defined-only", str(binary)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name, one in cases.items():
        found = re.findall(rf"^(\S+) (\S+) r nt_{name}_\d+_(?:[a-z]+)$", listing, re.MULTILINE)
        assert all(int(address, 16) % 16 == 0 for address, _ in found)
        assert sum(-(-int(size, 16) // 16) * 16 for _, size in found) == c_model_facts(one.graph).flash_bytes, name


def test_a_small_network_compiles_and_gives_the_bits_of_the_engine(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    mlp = {"mlp": case("mlp", small_mlp(), rng)}

    assert_same_bits(build_all(mlp, tmp_path, "gcc", *C99, "-O0"), mlp)


@pytest.mark.slow
def test_more_than_65535_weights_and_columns_need_wider_indices(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    wide, tall = GraphBuilder(rng, (70_000,)), GraphBuilder(rng, (260,))
    wide.dense(2, NONE, 0.001)
    tall.dense(260)
    graphs = {"wide": sparse(quantized(wide.build(), rng)), "tall": sparse(quantized(tall.build(), rng))}
    both = {name: case(name, graph, rng) for name, graph in graphs.items()}

    assert "uint32_t nt_wide_0_indices" in both["wide"].header
    assert "uint32_t nt_tall_0_indptr" in both["tall"].header
    assert_same_bits(build_all(both, tmp_path, "gcc", *C99, "-O1"), both)


ERRORS_MAIN = """#include "mlp.h"
int main(void)
{
    static NT_ALIGN16 int8_t arena[NT_MLP_ARENA_BYTES + 16];
    int8_t in[NT_MLP_INPUT_SIZE] = {0}, out[NT_MLP_OUTPUT_SIZE];
    return !(nt_mlp_run(NULL, out, arena) == NT_ERROR_NULL && nt_mlp_run(in, NULL, arena) == NT_ERROR_NULL &&
             nt_mlp_run(in, out, NULL) == NT_ERROR_NULL && nt_mlp_run(in, out, arena + 1) == NT_ERROR_MISALIGNED &&
             nt_mlp_selftest(NULL) == NT_ERROR_NULL && nt_mlp_selftest(arena) == NT_ERROR_SELFTEST &&
             nt_mlp_run(in, out, arena) == NT_OK);
}
"""


def test_a_misuse_or_a_wrong_golden_vector_gives_its_error_code(tmp_path: Path) -> None:
    graph = small_mlp()
    sample = np.zeros(20, np.int8)
    wrong = run_graph(graph, sample[None])[0] ^ 1
    write_sources({"mlp": render_c_header(graph, "mlp", (sample, wrong))}, tmp_path)
    source = tmp_path / "errors.c"
    source.write_text(ERRORS_MAIN)
    binary = compile_c(source, tmp_path / "errors", "gcc", (*C99, "-O0"))

    assert subprocess.run([str(binary)], check=False, timeout=60).returncode == 0


def test_the_same_graph_gives_the_same_text() -> None:
    assert render_c_header(small_mlp(), "net") == render_c_header(small_mlp(), "net")


def test_the_header_states_its_facts_and_its_ports() -> None:
    graph = small_mlp()
    facts, text = c_model_facts(graph), render_c_header(graph, "My Net-1.2")
    quantization = graph.quantization("input")

    assert facts.macs == 20 * 16 + 16 * 12 + 12 * 5
    assert facts.nnz == sum(graph.tensors[layer.weight].nnz for layer in graph.layers)
    assert facts.arena_bytes == 16 + 12
    assert facts.flash_bytes == sum(facts.op_flash_bytes.values())
    assert facts.op_flash_bytes["softmax3"] == 256 * 4
    for line in (
        f"ARENA_BYTES {facts.arena_bytes}",
        f"FLASH_BYTES {facts.flash_bytes} ",
        f"NNZ {facts.nnz}",
        f"MACS {facts.macs}",
        "INPUT_SIZE 20 ",
        f"INPUT_SCALE {c_float(float(quantization.scale[0]))}",
        f"INPUT_ZERO_POINT ({quantization.zero_point})",
        "OUTPUT_ZERO_POINT (-128)",
        "HAS_SELFTEST 0",
    ):
        assert f"#define NT_MY_NET_1_2_{line}" in text
    assert "static inline int nt_my_net_1_2_run(const int8_t *in, int8_t *out, void *arena)" in text


def test_names_cannot_break_out_of_comments_or_identifiers() -> None:
    graph = small_mlp()
    hostile = replace(graph, ops=(replace(graph.ops[0], name='*/ system("x"); /*\\\n#error'), *graph.ops[1:]))
    text = render_c_header(hostile, '*/ "\n#error')

    assert "system(" not in text
    assert "\n#error\n" not in text
    assert "nt_error_run(" in text


def test_the_kernels_call_nothing_but_memory_functions() -> None:
    code = re.sub(r"/\*.*?\*/", "", render_c_kernels(), flags=re.DOTALL)
    called = set(re.findall(r"\b([a-z_][a-z0-9_]*)\(", code))
    own = set(re.findall(r"^(?:static inline|NT_LOOP) \S+ (nt_\w+)\(", code, re.MULTILINE))

    assert {name for name in called - own if not name.startswith("__")} <= {
        *("if", "for", "while", "switch", "defined", "aligned", "align", "sizeof", "memcpy", "memset")
    }
