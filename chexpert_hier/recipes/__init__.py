"""Recipes: every number of every paper, with its source. Training code knows fields, never papers."""

from .papers import (
    CHEXNET,
    CHEXNET_PNEUMONIA,
    CHEXPERTNET,
    HBCE,
    PHAM2019,
    PHAM2019_TABLE_1,
    PHANTOM,
    RECIPES,
    SIX,
    named,
)
from .recipe import HEADS, Recipe, Stage, change, from_json

__all__ = ["CHEXNET", "CHEXNET_PNEUMONIA", "CHEXPERTNET", "HBCE", "HEADS", "PHAM2019", "PHAM2019_TABLE_1", "PHANTOM",
           "RECIPES", "SIX", "Recipe", "Stage", "change", "from_json", "named"]
