"""Finished models, ready to answer, and the films they are asked about."""

from ..faces import lazily

PUBLIC = {
    "members": ("Member", "Saved", "Views", "open_model", "open_onnx", "open_run", "open_saved", "same_labels"),
    "asked": ("Film", "find_films"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
