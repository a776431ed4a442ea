"""Net-Trim's convex pruning and the way from a trained network to a deployment."""
