"""A run on one page."""

from ..faces import lazily

PUBLIC = {
    "judged": ("read_run",),
    "page": ("write",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
