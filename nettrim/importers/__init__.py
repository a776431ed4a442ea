"""Model files to the Graph: PyTorch state dicts and ONNX; everything else is refused by name."""

from nettrim.importers.imported_model import ImportedModel, InputLayout
from nettrim.importers.load import load_model

__all__ = ["ImportedModel", "InputLayout", "load_model"]
