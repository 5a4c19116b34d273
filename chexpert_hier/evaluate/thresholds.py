"""Thresholds and what follows from them: sensitivity, specificity, PPV, NPV, F1, on films that did not choose them.

A finding is called present when score >= threshold. Where there is one set of films only, each patient's films are
judged at a threshold chosen on the other patients (cross-fitting).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import InputError

Learned = TypeVar("Learned")

FOLDS = 5
MEASURES = ("sensitivity", "specificity", "ppv", "npv", "f1", "mcc")
Rule = str | float | Mapping[str, float]


def parse_rule(text: Rule) -> Rule:
    """Read a threshold rule: youden, f1, sensitivity=0.9, specificity=0.9, a number, or a JSON file.

    The file is {label: number}, or the evaluation.json of other films, whose thresholds are then taken.

    Raises:
        InputError: anything else.
    """
    if not isinstance(text, str):
        return dict(text) if isinstance(text, Mapping) else float(text)
    if text in ("youden", "f1"):
        return text
    name, equals, value = text.partition("=")
    try:
        if equals and name in ("sensitivity", "specificity") and 0 < float(value) <= 1:
            return text
        if Path(text).suffix == ".json":
            given = json.loads(Path(text).read_text(encoding="utf-8"))
            if "labels" in given:                                     # an evaluation.json
                given = {label: row["threshold"] for label, row in given["labels"].items()}
            return {str(label): float(number) for label, number in given.items() if number is not None}
        if not equals and np.isfinite(float(text)):
            return float(text)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
        pass
    raise InputError(f"--threshold is {text!r}; expected youden, f1, sensitivity=0.9, specificity=0.9, a number, or a "
                     "readable JSON file {label: number}")


def rule_in_words(rule: Rule) -> str:
    """A rule of `parse_rule` as part of a sentence."""
    if isinstance(rule, Mapping):
        return "given per label"
    if not isinstance(rule, str):
        return f"given ({rule:g})"
    name, _, value = rule.partition("=")
    return {"youden": "the largest sensitivity + specificity (Youden)", "f1": "the largest F1"}.get(
        name, f"a {name} of at least {value}")


def choose(scores: np.ndarray, truth: np.ndarray, rule: str) -> float:
    """The threshold that a rule chooses on these films.

    Args:
        scores, truth: (films,); truth 1, 0, NaN = does not count.
        rule: youden, f1, sensitivity=V (the highest threshold that reaches it) or specificity=V (the lowest).
            Equally good thresholds: the highest.

    Returns:
        one of the scores, or inf (nothing is called); NaN where a class is missing.
    """
    counts = np.isfinite(truth)
    scores, present = scores[counts], truth[counts] == 1
    if present.all() or not present.any():
        return np.nan
    order = np.argsort(-scores, kind="stable")
    scores, present = scores[order], present[order]
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]
    true = np.r_[0, np.cumsum(present)[last]]
    false = np.r_[0, last + 1] - true
    thresholds = np.r_[np.inf, scores[last]]
    sensitivity, specificity = true / present.sum(), 1 - false / (~present).sum()
    name, _, value = rule.partition("=")
    if name == "sensitivity":
        return float(thresholds[np.argmax(sensitivity >= float(value) - 1e-12)])
    if name == "specificity":
        return float(thresholds[np.flatnonzero(specificity >= float(value) - 1e-12)[-1]])
    worth = sensitivity + specificity if name == "youden" else 2 * true / (true + false + present.sum())
    return float(thresholds[np.argmax(np.round(worth, 12))])


def folds_of(truth: np.ndarray, patients: np.ndarray, seed: int = 0, folds: int = FOLDS) -> np.ndarray:
    """Deal patients into folds, first those with the finding and then the others, each in random order.

    Args:
        truth: (films,), 1, 0 or NaN.
        patients: int (films,), 0 to patients - 1.

    Returns:
        int (films,), the fold of each film's patient.
    """
    total = int(patients.max(initial=-1)) + 1
    positive = np.zeros(total, bool)
    positive[patients[truth == 1]] = True
    shuffled = np.random.default_rng(seed).permutation(total)
    dealt = np.empty(total, int)
    dealt[np.r_[shuffled[positive[shuffled]], shuffled[~positive[shuffled]]]] = np.arange(total) % folds
    fold: np.ndarray = dealt[patients]
    return fold


def cross_fitted(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray,
                 fit: Callable[[np.ndarray, np.ndarray], Learned], apply: Callable[[Learned, np.ndarray], np.ndarray],
                 seed: int = 0) -> np.ndarray:
    """Fit on the other patients' films, apply to each patient's: no film is judged by what it helped to choose.

    Args:
        scores, truth: (films,).
        patients: int (films,).
        fit: (scores, truth) -> what was learned.
        apply: (learned, scores) -> float (films,).

    Returns:
        float (films,).
    """
    fold = folds_of(truth, patients, seed)
    out = np.full(len(scores), np.nan)
    for k in np.unique(fold):
        held = fold == k
        out[held] = apply(fit(scores[~held], truth[~held]), scores[held])
    return out


def call(threshold: float, scores: np.ndarray) -> np.ndarray:
    """1.0 where score >= threshold, else 0.0; NaN everywhere when there is no threshold."""
    return np.where(np.isnan(threshold), np.nan, (scores >= threshold).astype(float))


def confusion(calls: np.ndarray, truth: np.ndarray, patients: np.ndarray | None = None,
              total: int | None = None) -> np.ndarray:
    """Count true positives, false negatives, true negatives, false positives per patient.

    Args:
        calls: (films,), 1, 0, NaN = does not count.
        truth: (films,), 1, 0, NaN = does not count.
        patients: int (films,); None puts all films into one row.

    Returns:
        float (patients, 4).
    """
    patients = np.zeros(len(calls), int) if patients is None else patients
    total = int(patients.max(initial=0)) + 1 if total is None else total
    cells = [(calls == 1) & (truth == 1), (calls == 0) & (truth == 1), (calls == 0) & (truth == 0),
             (calls == 1) & (truth == 0)]
    return np.stack([np.bincount(patients, cell, total) for cell in cells], 1)


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Sensitivity, specificity, PPV, NPV, F1 and Matthews' correlation from counts (..., 4) of `confusion`.

    NaN where undefined: a rate without any film it is a share of, the correlation where truth or calls do not vary.

    Source: Matthews 1975, BBA Protein Structure 405.
    """
    tp, fn, tn, fp = np.moveaxis(np.asarray(counts, float), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mcc = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "ppv": tp / (tp + fp),
                "npv": tn / (tn + fn), "f1": 2 * tp / (2 * tp + fp + fn), "mcc": mcc}
