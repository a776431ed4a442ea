"""Train a small network on scikit-learn's 1,797 handwritten digits and save what nettrim-deploy takes.

    python examples/digits/make_digits.py FOLDER

writes FOLDER/model.pt (a state dict), FOLDER/calibration.npz (x: the training images, no labels) and
FOLDER/test.npz (x and y: images that neither training nor pruning sees). Takes a few seconds.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

TEST_SHARE = 0.25
PIXEL_RANGE = 16.0
EPOCHS, BATCH_SIZE, LEARNING_RATE = 60, 64, 2e-3


def train(x: torch.Tensor, y: torch.Tensor) -> torch.nn.Sequential:
    """Return a 64-128-64-10 network trained by Adam.

    Parameters
    ----------
    x, y : torch.Tensor
        (n_samples, 64) float32 in 0..1 and (n_samples,) class numbers.
    """
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(64, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH_SIZE):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    return network


def main() -> None:
    """Train, save, and say how good the network is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    x = (digits.data / PIXEL_RANGE).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    n_test = int(TEST_SHARE * len(x))
    test, rest = order[:n_test], order[n_test:]
    network = train(torch.from_numpy(x[rest]), torch.from_numpy(digits.target[rest]))
    torch.save(network.state_dict(), folder / "model.pt")
    np.savez(folder / "calibration.npz", x=x[rest])
    np.savez(folder / "test.npz", x=x[test], y=digits.target[test])
    with torch.no_grad():
        classes = network(torch.from_numpy(x[test])).argmax(dim=1).numpy()
    print(f"{folder}/model.pt: {np.mean(classes == digits.target[test]):.2%} of {n_test} test digits right")


if __name__ == "__main__":
    main()
