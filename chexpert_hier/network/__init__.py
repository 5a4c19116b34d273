"""Backbones, heads, losses and weights, in Keras on any backend."""

from ..faces import lazily

PUBLIC = {
    "backbones": ("BACKBONES",),
    "weights": ("find_weights",),
    "model": ("build_model", "feature_model", "load_model"),
    "losses": ("LOSSES", "build"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
