"""Chest X-ray classification that exploits hierarchical disease dependencies and uncertainty labels.

The system of Pham et al. 2019 in Keras 3, with the recipes of three companion papers beside it.
Import the rooms you need, e.g. ``from chexpert_hier import hierarchy``; nothing happens at import.
"""

__version__ = "0.1.0"
