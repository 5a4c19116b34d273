"""How often predictions contradict the disease tree, before and after the chain rule, and how often the truth does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import hierarchy
from .joining import Cases


def tree_for(labels: Sequence[str]) -> hierarchy.Tree:
    """The first tree of `hierarchy.TREES` that knows all the labels; one without edges where none does."""
    return next((tree for tree in hierarchy.TREES.values() if set(labels) <= set(tree.labels)),
                hierarchy.flat(labels))


def tree_report(cases: Cases, tree: hierarchy.Tree, conditional: Cases | None = None) -> pd.DataFrame | None:
    """How often predictions break the tree before and after the chain rule, and how often the truth does, per edge.

    Args:
        cases: the predictions; taken as those after the chain rule when `conditional` is given, else as those before.
        tree: the hierarchy.
        conditional: the same cases before the chain rule.

    Returns:
        parent, child, films, above_before and above_after (p(child) > p(parent)), crossed_before and crossed_after
        (child above and parent below 0.5), truth_checked and truth_broken (child present, parent absent); "after" is
        NaN for scores that are no probabilities. None where no edge has both ends among the labels.
    """
    over = [label for label in tree.labels if label in cases.labels]
    small = tree.subset(over) if over else None
    if small is None or not len(small.edges):
        return None
    place = [cases.labels.index(label) for label in over]
    before, truth = (conditional or cases).scores[:, place], cases.truth[:, place]
    inside = bool(((before >= 0) & (before <= 1)).all())
    after = cases.scores[:, place] if conditional else hierarchy.chain_rule(before, small) if inside else None
    then = hierarchy.contradictions(before, small)
    now = hierarchy.contradictions(after, small) if after is not None else None
    parent, child = truth[:, small.edges[:, 0]], truth[:, small.edges[:, 1]]
    return pd.DataFrame({"parent": [edge[0] for edge in then.edges], "child": [edge[1] for edge in then.edges],
                         "films": then.films, "above_before": then.above, "crossed_before": then.crossed,
                         "above_after": now.above if now else np.nan, "crossed_after": now.crossed if now else np.nan,
                         "truth_checked": (~np.isnan(parent) & ~np.isnan(child)).sum(0),
                         "truth_broken": ((child == 1) & (parent == 0)).sum(0)})


class Totals(NamedTuple):
    """Contradictions of all edges together, as the predictions are (after the chain rule where both are given).

    Attributes:
        checks: cases x edges.
        above: p(child) > p(parent).
        crossed: child above and parent below 0.5.
    """

    checks: int
    above: int
    crossed: int

    @property
    def in_words(self) -> str:
        """One sentence with both kinds."""
        share = 100 / max(self.checks, 1)
        return (f"Contradictions of the tree: a finding scored above one that it implies in {self.above:,} of "
                f"{self.checks:,} checks ({self.above * share:.2f} %), on both sides of 0.5 in {self.crossed:,} "
                f"({self.crossed * share:.2f} %).")


def totals(report: pd.DataFrame, conditional: bool = False) -> Totals:
    """Add up a report of `tree_report`; `conditional`: the predictions are those after the chain rule."""
    ending = "after" if conditional else "before"
    return Totals(int(report["films"].sum()), int(report[f"above_{ending}"].sum()),
                  int(report[f"crossed_{ending}"].sum()))
