"""A small trained model and three films with their answers, asked again through every engine that is installed."""

from ..faces import lazily

PUBLIC = {
    "checking": ("Result", "check"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
