"""The model to serve: SavedModel and ONNX with metadata and model card."""

from ..faces import lazily

PUBLIC = {
    "contract": ("metadata",),
    "saved_model": ("check", "export"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
