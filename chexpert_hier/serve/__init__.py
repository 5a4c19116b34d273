"""The model over HTTP, and the page on which a person reads films: one process, one port.

    python -m chexpert_hier.serve --model runs/mine

Films live in memory until they are answered; nothing is stored, nothing leaves the machine. Needs FastAPI and Uvicorn:
pip install "chexpert_hier[serve]".
"""

from .engine import Engine

__all__ = ["Engine"]
