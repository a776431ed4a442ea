"""Net-Trim's convex pruning and the way from a trained network to a deployment."""

from nettrim.blas_kernels import load_numpy

load_numpy()
