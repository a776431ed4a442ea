"""Graph to Graph: each pass keeps the outputs as they are."""

from nettrim.passes.fuse_activations import fuse_activations
from nettrim.passes.merge_reshapes import merge_reshapes
from nettrim.passes.remove_identity import remove_identity
from nettrim.passes.simplify import simplify
from nettrim.passes.sink_transposes import sink_transposes

__all__ = ["fuse_activations", "merge_reshapes", "remove_identity", "simplify", "sink_transposes"]
