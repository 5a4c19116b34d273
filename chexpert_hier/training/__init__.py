"""Walks the recipe's stages: epochs, learning rates, checkpoints."""

from ..faces import lazily

PUBLIC = {
    "stages": ("Training", "outputs_of", "train"),
    "targets": ("stage_targets",),
    "callbacks": ("LearningRateDrop",),
    "checkpoint": ("save_model",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
