"""A run on one page."""

from ..faces import lazily

PUBLIC = {
    "page": ("read_run", "write"),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
