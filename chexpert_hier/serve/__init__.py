"""The model over HTTP, and the page on which a person reads films: one process, one port.

    python -m chexpert_hier.serve --model runs/mine

Films live in memory until they are answered; nothing is stored, nothing leaves the machine. Needs FastAPI and Uvicorn:
pip install "chexpert_hier[serve]".
"""

from ..faces import lazily

PUBLIC = {
    "app": ("make_app",),
    "batching": ("Limits",),
    "model": ("ServedModel",),
    "service": ("Service",),
}
__getattr__, __dir__ = lazily(__name__, PUBLIC)
