"""How predictions are judged, and all that is found out about one file of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError, one_of
from ..hierarchy import Tree
from . import calibration, thresholds
from .intervals import Resampling
from .joining import Cases

MEANS = ("plain", "weighted")


@dataclass(frozen=True)
class Judging:
    """How joined predictions are judged.

    Attributes:
        replicates: bootstrap resamples of patients, the same ones for all labels and their mean.
        seed: of resamples and folds.
        stratified: resample within patients of the same pattern of truth (of the mean's labels).
        threshold: youden, f1, sensitivity=V, specificity=V, a number, or {label: number}.
        calibrate: platt, isotonic (from 200 positives on) or none.
        by: columns of the truth or meta file to split by, e.g. ("Sex", "Age", "AP/PA").
        tree: the hierarchy; None takes that of the data set the labels belong to (see `tree_for`).
        curves: also make ROC and PR curves with bands.
        mean: "weighted" sets the mean over all labels, plain and weighted by positives, beside the table's own.
        name: of the predictions.

    Raises:
        InputError: a rule, method or number that is none.
    """

    replicates: int = 1000
    seed: int = 0
    stratified: bool = False
    threshold: thresholds.Rule = "youden"
    calibrate: str = "platt"
    by: Sequence[str] = ()
    tree: Tree | None = None
    curves: bool = True
    mean: str = "plain"
    name: str = "predictions"

    def __post_init__(self) -> None:
        if self.replicates < 0:
            raise InputError(f"--replicates is {self.replicates}; expected 0 or more")
        one_of("--calibrate", self.calibrate, calibration.METHODS)
        one_of("--mean", self.mean, MEANS)
        object.__setattr__(self, "threshold", thresholds.parse_rule(self.threshold))

    @property
    def resampling(self) -> Resampling:
        """How patients are drawn."""
        return Resampling(self.replicates, self.seed, self.stratified)


@dataclass
class Result:
    """All that was found out about one file of predictions.

    Attributes:
        name: of the predictions.
        cases: what was judged.
        table: one row per label and one for the mean ("mean of five" when all five competition labels are there).
        replicates: float (replicates, labels), AUROC of every resample; NaN where one lacked a class.
        curves: label -> {"roc", "roc_low", "roc_high", "precision", ...} over `ranking.BAND`.
        reliability: label -> {"raw": table, "scaled": table}; empty where scores are no probabilities.
        scalings: label -> calibration.Scaling, fitted on all fitting films, for use on other files.
        calibrated: (cases, labels) calibrated scores that obey the tree, or None.
        subgroups: one row per group and label, or None.
        tree: hierarchy report, one row per edge, or None.
        comparisons: name -> table of `comparison.compare`, e.g. with the scores before the chain rule.
        calls: (cases, labels) 1, 0 or NaN: called present at the threshold (cross-fitted where there is one set).
        means: further means over all labels (`Judging.mean`), or None.
        notes: sentences for the reader; all assumptions, exclusions and warnings.
        settings: how it was done.
    """

    name: str
    cases: Cases
    table: pd.DataFrame
    replicates: np.ndarray
    calls: np.ndarray
    curves: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    reliability: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    scalings: dict[str, calibration.Scaling] = field(default_factory=dict)
    calibrated: np.ndarray | None = None
    subgroups: pd.DataFrame | None = None
    tree: pd.DataFrame | None = None
    comparisons: dict[str, pd.DataFrame] = field(default_factory=dict)
    means: pd.DataFrame | None = None
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def mean_name(self) -> str:
        """The name of the table's last row."""
        return str(self.table["label"].iloc[-1])
