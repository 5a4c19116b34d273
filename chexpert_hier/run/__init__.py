"""The main job: train through a recipe's stages, predict, evaluate, export, report."""

from ..faces import lazily

PUBLIC = {
    "__main__": ("main", "parser"),
    "facts": ("positives_seen",),
    "finishing": ("table",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
