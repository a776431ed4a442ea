"""Runs under the emulator: the stock interpreter on a .tflite, each invocation between the counter's markers."""

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from nettrim_runtime.count import markers


def main(model: str, samples: str, output: str) -> None:
    """Invoke a model on every sample of an .npy file; the first invocation of all is not marked."""
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    x = np.load(samples)
    interpreter.set_tensor(entry, x[:1])
    interpreter.invoke()
    begin, end = markers()
    outputs = []
    for index in range(len(x)):
        interpreter.set_tensor(entry, x[index : index + 1])
        begin()
        interpreter.invoke()
        end()
        outputs.append(interpreter.get_tensor(result))
    np.save(Path(output), np.concatenate(outputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
