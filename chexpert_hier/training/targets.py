"""What a stage learns: which films in which order, and which of their cells count.

A function of the recipe, the labels, seed, stage and epoch alone: a resumed run learns what it would have learned.
"""

from typing import NamedTuple

import numpy as np

from .. import hierarchy, labels
from ..errors import InputError
from ..prepare.sources import Films
from ..recipes import Recipe, Stage


class StageTargets(NamedTuple):
    """What a stage learns from, and what it learns of them.

    Attributes:
        rows: int (m,), ascending indices of films.
        targets: float32 (m, labels), or (m, labels, 3) for u-multiclass; NaN where a cell does not count.
    """

    rows: np.ndarray
    targets: np.ndarray


def epoch_order(count: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """The order of `count` films in an epoch: a permutation that depends on nothing but its arguments."""
    return np.random.default_rng([seed, stage, epoch]).permutation(count)


def stage_targets(recipe: Recipe, tree: hierarchy.Tree, films: Films, stage: Stage, epoch: int = 0,
                  selftrained: np.ndarray | None = None) -> StageTargets:
    """Which films a stage learns from, and what it learns of them.

    Args:
        recipe: policy, smoothing, blanks, closure and reading of conditional training.
        tree: the hierarchy of `films.labels`.
        films: the training films.
        stage: its `rows`, `cells` and `labels` decide.
        epoch: changes the smoothed targets where the recipe draws them afresh per epoch.
        selftrained: float (n, labels), a finished run's probabilities, for the policy u-selftrained.

    Raises:
        InputError: no film is left.

    Source: Pham et al. 2019, sections 3.2 and 3.3.
    """
    raw = hierarchy.close_upward(films.raw, tree) if recipe.closure else films.raw
    targets = labels.targets(raw, films.keys, films.labels, recipe.labelling, epoch=epoch, selftrained=selftrained)
    hard = labels.hard_targets(raw, recipe.policy, blank=recipe.blank)
    opened, cells = _opened(recipe, tree, hard, stage)
    if recipe.drop_uncertain_rows:
        opened = opened & ~(raw == -1).any(axis=1)
    counts = ~np.isnan(targets).reshape(*raw.shape, -1).any(axis=2)  # u-multiclass has three numbers a cell
    rows = np.flatnonzero(opened & (cells & counts).any(axis=1))
    if not len(rows):
        raise InputError(f"{stage.name}: no film to learn from; expected at least one whose parents are present "
                         f"(--ct-rows {recipe.ct_rows}, policy {recipe.policy})")
    targets = np.where(cells if targets.ndim == 2 else cells[..., None], targets, np.float32(np.nan))
    return StageTargets(rows, targets[rows])


def _opened(recipe: Recipe, tree: hierarchy.Tree, hard: np.ndarray, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
    """The films (n,) and the cells (n, labels), both bool, that a stage's `rows`, `cells` and `labels` leave open."""
    conditional, learned = hierarchy.stage_one(hard, tree, recipe.ct_rows)
    opened = np.ones(len(hard), bool) if stage.rows == "all" else conditional
    cells = learned if stage.rows == "conditional" else np.ones_like(learned)
    if stage.rows == "random":  # a control: as many films, none of the conditions
        chosen = np.random.default_rng([recipe.seed, 7]).permutation(len(hard))[:int(conditional.sum())]
        opened = np.isin(np.arange(len(hard)), chosen)
    if stage.cells == "conditional":
        cells = cells & hierarchy.conditional_cells(hard, tree)
    if stage.labels == "parents":
        cells = cells & ~learned.any(axis=0)
    return opened, cells
