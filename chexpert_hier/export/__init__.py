"""The model to serve: SavedModel and ONNX with metadata and model card."""

from ..faces import lazily

PUBLIC = {
    "saved_model": ("check", "export", "metadata"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
