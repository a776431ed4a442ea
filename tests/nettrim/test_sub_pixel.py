"""The convolution that computes a quantised transposed one: the bits of LiteRT's TRANSPOSE_CONV."""

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from nettrim.importers.sub_pixel import sub_pixel_convolution
from nettrim_runtime.engine import run_graph
from nettrim_runtime.graph import Graph, Quantization, Tensor
from nettrim_runtime.ops import Conv2d, Op, Reshape, Size2d, Slice, Transpose
from nettrim_runtime.shapes import infer_shape

Array = npt.NDArray[Any]

INPUT, OUTPUT = Quantization(np.float32([0.05]), 7), Quantization(np.float32([0.11]), -3)
SIZE, N_CHANNELS, N_OUTPUTS = Size2d(5, 4), 3, 6


def litert(model: Any, samples: Array) -> Array:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    interpreter = Interpreter(
        model_content=bytes(builder.Output()), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    results = []
    for sample in samples:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(results)


def file_with(weight: Array, bias: Array, scale: Array, stride: Size2d, padding: int, size: Size2d) -> Any:
    """Return a model of one TRANSPOSE_CONV, as the published schema's objects."""
    model, subgraph, operator = published.ModelT(), published.SubGraphT(), published.OperatorT()
    model.version, model.buffers, subgraph.tensors = 3, [published.BufferT()], []
    types = {"int8": published.TensorType.INT8, "int32": published.TensorType.INT32}

    def add(shape: Any, dtype: str, data: Array | None, quantization: Quantization | None) -> int:
        tensor, buffer = published.TensorT(), published.BufferT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), types[dtype], len(model.buffers)
        buffer.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
        if quantization is not None:
            tensor.quantization = published.QuantizationParametersT()
            tensor.quantization.scale = quantization.scale
            tensor.quantization.zeroPoint = [quantization.zero_point] * quantization.scale.size
        model.buffers.append(buffer)
        subgraph.tensors.append(tensor)
        return len(subgraph.tensors) - 1

    new_shape = np.int32([1, *size, N_OUTPUTS])
    operator.inputs = [
        add((4,), "int32", new_shape, None),
        add(weight.shape, "int8", weight, Quantization(scale)),
        add((1, *SIZE, N_CHANNELS), "int8", None, INPUT),
        add((N_OUTPUTS,), "int32", bias, Quantization(scale * INPUT.scale)),
    ]
    operator.outputs = [add(new_shape, "int8", None, OUTPUT)]
    operator.builtinOptionsType = published.BuiltinOptions.TransposeConvOptions
    operator.builtinOptions = published.TransposeConvOptionsT()
    operator.builtinOptions.padding, operator.builtinOptions.strideH = padding, stride.height
    operator.builtinOptions.strideW = stride.width
    code = published.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = published.BuiltinOperator.TRANSPOSE_CONV
    code.version = 3
    model.operatorCodes, model.subgraphs, subgraph.operators = [code], [subgraph], [operator]
    subgraph.inputs, subgraph.outputs = operator.inputs[2:3], operator.outputs
    return model


def graph_of(weight: Array, bias: Array, scale: Array, stride: Size2d, before: tuple[int, int], size: Size2d) -> Graph:
    """Return the same as a convolution and moves."""
    found = sub_pixel_convolution(weight, stride, before, (SIZE, size))
    each = stride.height * stride.width
    tensors = {
        "x": Tensor("x", (*SIZE, N_CHANNELS), "int8", INPUT),
        "w": Tensor("w", found.weight.shape, "int8", Quantization(np.tile(scale, each), axis=0), found.weight),
        "b": Tensor("b", (each * N_OUTPUTS,), "int32", Quantization(np.tile(scale, each), axis=0), np.tile(bias, each)),
    }
    conv = Conv2d("conv", "x", "w", "b", "phases", padding=found.padding)
    height, width, _ = infer_shape(conv, tensors)
    tall, wide = height * stride.height, width * stride.width
    shapes = {"grid": (height, width, stride.height, stride.width * N_OUTPUTS), "pixels": (tall, wide, N_OUTPUTS)}
    end = tuple(first + length for first, length in zip(found.begin, size, strict=True))
    ops: list[Op] = [
        conv,
        Reshape("split", "phases", "grid"),
        Transpose("turn", "grid", "turned", (0, 2, 1, 3)),
        Reshape("join", "turned", "pixels"),
        Slice("part", "pixels", "y", (*found.begin, 0), (*end, N_OUTPUTS), (1, 1, 1)),
    ]
    for op in ops:
        tensors[op.output] = Tensor(op.output, shapes.get(op.output, ()), "int8", OUTPUT)
        tensors[op.output] = Tensor(op.output, infer_shape(op, tensors), "int8", OUTPUT)
    return Graph("sub_pixel", ("x",), ("y",), tuple(ops), tensors)


@pytest.mark.parametrize("kernel", [(3, 3), (4, 2), (1, 5)])
@pytest.mark.parametrize("stride", [Size2d(2, 2), Size2d(1, 3)])
@pytest.mark.parametrize("padding", [published.Padding.SAME, published.Padding.VALID])
def test_a_quantised_transposed_convolution_has_the_bits_of_litert(
    kernel: tuple[int, int], stride: Size2d, padding: int, rng: np.random.Generator
) -> None:
    weight = rng.integers(-127, 128, (N_OUTPUTS, *kernel, N_CHANNELS), dtype=np.int8)
    bias = rng.integers(-3000, 3000, N_OUTPUTS, dtype=np.int32)
    scale = rng.uniform(0.001, 0.02, N_OUTPUTS).astype(np.float32)
    full = [step * (size - 1) + length for size, length, step in zip(SIZE, kernel, stride, strict=True)]
    same = padding == published.Padding.SAME
    size = Size2d(
        *(
            [a * b for a, b in zip(SIZE, stride, strict=True)]
            if same
            else [max(pair) for pair in zip(full, stride, strict=True)]
        )
    )
    cut = [max(0, a - b) // 2 for a, b in zip(full, size, strict=True)]
    samples = rng.integers(-128, 128, (20, *SIZE, N_CHANNELS), dtype=np.int8)
    expected = litert(file_with(weight, bias, scale, stride, padding, size), samples)
    graph = graph_of(weight, bias, scale, stride, (cut[0], cut[1]), size)
    np.testing.assert_array_equal(run_graph(graph, samples), expected)
