"""Make calibration and test files for the MNIST models from an mnist.npz (x_train, x_test, y_test; 28 x 28 uint8).

    python examples/mnist/make_npz.py ../shared/data/mnist.npz FOLDER

writes FOLDER/lenet_300_100/{calib,test}.npz with x (n, 784) and FOLDER/lenet5/{calib,test}.npz with x (n, 1, 32, 32),
both float32 in 0..1: 10,000 unlabelled training images to calibrate, the 10,000 labelled test images to measure.
"""

import argparse
from pathlib import Path

import numpy as np

CALIBRATION_SAMPLES = 10_000
LENET5_PADDING = 2  # LeNet-5 takes 32 x 32


def main() -> None:
    """Write both pairs of files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="mnist.npz")
    parser.add_argument("folder", type=Path, help="where the files go")
    arguments = parser.parse_args()
    with np.load(arguments.source) as mnist:
        calibration = mnist["x_train"][:CALIBRATION_SAMPLES].astype(np.float32) / np.float32(255)
        test, labels = mnist["x_test"].astype(np.float32) / np.float32(255), mnist["y_test"]
    edge = (LENET5_PADDING, LENET5_PADDING)
    for name, arrange in (
        ("lenet_300_100", lambda x: x.reshape(len(x), 784)),
        ("lenet5", lambda x: np.pad(x, ((0, 0), edge, edge))[:, np.newaxis]),
    ):
        folder = arguments.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "calib.npz", x=arrange(calibration))
        np.savez_compressed(folder / "test.npz", x=arrange(test), y=labels)
        print(f"{folder}: calib.npz, test.npz")


if __name__ == "__main__":
    main()
