"""Model files to the Graph; what cannot be read, or not without running it, is refused by name."""

from nettrim.importers.imported_model import ImportedModel, InputLayout
from nettrim.importers.load import load_model

__all__ = ["ImportedModel", "InputLayout", "load_model"]
