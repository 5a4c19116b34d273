"""Chest X-ray classification that exploits hierarchical disease dependencies and uncertainty labels.

The system of Pham et al. 2019 in Keras 3, with the recipes of three companion papers beside it.
Import the areas you need, e.g. ``from chexpert_hier import hierarchy``; nothing happens at import.
"""

import sys

from .faces import moved as __getattr__  # noqa: F401

__version__ = "0.2.0"

if sys.argv[:1] == ["-m"]:  # `python -m chexpert_hier.run` is still looking for its module; imported otherwise, no more
    from . import commands

    commands.answer_early_interrupts()
