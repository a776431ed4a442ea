"""Small .tflite files made with the schema's own Python classes, and LiteRT to run files with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as published
from ai_edge_litert.interpreter import Interpreter, OpResolverType

Array = npt.NDArray[Any]

REFERENCE, DEFAULT = OpResolverType.BUILTIN_REF, OpResolverType.AUTO
TYPES = {
    "float32": published.TensorType.FLOAT32,
    "float16": published.TensorType.FLOAT16,
    "int8": published.TensorType.INT8,
    "uint8": published.TensorType.UINT8,
    "int16": published.TensorType.INT16,
    "int32": published.TensorType.INT32,
    "int64": published.TensorType.INT64,
}
CARRIERS = {1, 17, 22}  # schema.fbs, enum BuiltinOperator: AVERAGE_POOL_2D, MAX_POOL_2D, RESHAPE
LAYERS, SOFTMAX = {3, 4, 9}, 25  # CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED
NONE, RELU = published.ActivationFunctionType.NONE, published.ActivationFunctionType.RELU


@dataclass
class FileWriter:
    """Collects tensors and operators; `content` is the file."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [published.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[tuple[int, int]] = field(default_factory=list)

    def activation(self, shape: tuple[int, ...], dtype: str = "float32", **quantization: Any) -> int:
        return self._tensor(shape, dtype, 0, quantization)

    def constant(self, data: Array, **quantization: Any) -> int:
        buffer = published.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(data.shape, data.dtype.name, len(self.buffers) - 1, quantization)

    def add(
        self, code: str, inputs: tuple[int, ...], output: int, options: Any = None, version: int = 1, **values: Any
    ) -> int:
        """Append an operator with options of a class of the schema, such as published.AddOptionsT."""
        operator = published.OperatorT()
        key = (getattr(published.BuiltinOperator, code), version)
        if key not in self.codes:
            self.codes.append(key)
        operator.opcodeIndex = self.codes.index(key)
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptions = options()
            operator.builtinOptionsType = getattr(published.BuiltinOptions, options.__name__.removesuffix("T"))
            for name, value in values.items():
                setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        return output

    def content(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> bytes:
        model, subgraph = published.ModelT(), published.SubGraphT()
        model.version = 3
        model.operatorCodes = [self._code(*key) for key in self.codes]
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs, subgraph.name = list(inputs), list(outputs), b"main"
        model.subgraphs, model.buffers, model.description = [subgraph], self.buffers, b"a test"
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, code: int, version: int) -> Any:
        entry = published.OperatorCodeT()
        entry.builtinCode, entry.version, entry.deprecatedBuiltinCode = code, version, min(code, 127)
        return entry

    def _tensor(self, shape: tuple[int, ...], dtype: str, buffer: int, quantization: dict[str, Any]) -> int:
        tensor = published.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{len(self.tensors)}".encode(), list(shape), TYPES[dtype]
        tensor.buffer, tensor.hasRank = buffer, True
        if quantization:
            tensor.quantization = published.QuantizationParametersT()
            scale = np.atleast_1d(np.asarray(quantization["scale"], np.float32))
            tensor.quantization.scale = scale
            tensor.quantization.zeroPoint = np.broadcast_to(np.int64(quantization.get("zero", 0)), scale.shape)
            tensor.quantization.quantizedDimension = quantization.get("axis", 0)
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def run_litert(content: bytes, samples: Array, resolver: OpResolverType = REFERENCE) -> Array:
    """Return a file's outputs, one sample after the other: some operators fix the batch size."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    results = []
    for sample in samples:
        interpreter.set_tensor(entry, sample[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(output)[0].copy())
    return np.stack(results)


def rescaled_file(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with other scales and zero points that still fit together."""
    model = published.ModelT.InitFromPackedBuf(content, 0)
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    family, fixed = {index: index for index in range(len(tensors))}, set()
    for operator in operators:
        if codes[operator.opcodeIndex] in CARRIERS:
            family[operator.outputs[0]] = family[operator.inputs[0]]
        if codes[operator.opcodeIndex] == SOFTMAX:
            fixed.add(operator.outputs[0])
    chosen: dict[int, tuple[Array, Array]] = {}
    for index, tensor in enumerate(tensors):
        if (
            tensor.type == published.TensorType.INT8
            and model.buffers[tensor.buffer].data is None
            and index not in fixed
        ):
            scale = (tensor.quantization.scale * rng.uniform(0.3, 2.5)).astype(np.float32)
            found = chosen.setdefault(family[index], (scale, rng.integers(-128, 128, 1)))
            tensor.quantization.scale, tensor.quantization.zeroPoint = found
    for operator in operators:
        if codes[operator.opcodeIndex] in LAYERS:
            entry, weight, bias = (tensors[index].quantization for index in operator.inputs)
            weight.scale = (weight.scale * rng.uniform(0.5, 2.0, weight.scale.shape)).astype(np.float32)
            bias.scale = entry.scale * weight.scale
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_file(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path
