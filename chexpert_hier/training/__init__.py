"""Walks the recipe's stages: epochs, learning rates, checkpoints."""

from ..faces import lazily

PUBLIC = {
    "stages": ("outputs_of", "stage_targets", "train"),
    "callbacks": ("LearningRateDrop",),
    "checkpoint": ("save_model",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
