"""All passes that shorten a graph, until none finds anything more."""

from nettrim.passes.fuse_activations import fuse_activations
from nettrim.passes.merge_reshapes import merge_reshapes
from nettrim.passes.remove_identity import remove_identity
from nettrim_runtime.graph import Graph

PASSES = (remove_identity, merge_reshapes, fuse_activations)


def simplify(graph: Graph) -> Graph:
    """Return a float graph that computes the same with as few operators as the passes find."""
    while True:
        shorter = graph
        for shorten in PASSES:
            shorter = shorten(shorter)
        if shorter is graph:
            return graph
        graph = shorter
