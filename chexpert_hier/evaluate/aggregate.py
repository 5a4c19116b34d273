"""From films to studies and patients: one score and one truth for all films of a unit."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..errors import InputError, one_of

# rule -> in words. "confident" is that of CheXpertNet's authors (deviations N8): per finding the film whose larger
# class probability, max(p, 1 - p), is largest; "max" is Stanford's over a study's views (D9).
RULES = {"max": "the highest score of the films",
         "mean": "the mean score of the films",
         "confident": "the score of the most confident film, the one with the largest max(p, 1 - p)"}
# Columns of our own beside the labels'; no label is named so, for brackets mark what is no label (names.label_columns).
KEY, JOINED = "[key]", "[joined]"


def check_rule(rule: str | Mapping[str, str]) -> None:
    """Refuse what is no rule, or a table {label: rule} that holds one.

    Raises:
        InputError: in one line that lists the rules.
    """
    for one in [rule] if isinstance(rule, str) else rule.values():
        one_of("--rule", one, tuple(RULES))


def aggregate(side: pd.DataFrame, unit: str, rule: str | Mapping[str, str], labels: Sequence[str],
              kind: str) -> pd.DataFrame:
    """One row per value of the column JOINED, in order of first appearance.

    Args:
        side: columns JOINED, KEY, the labels and others, of which the first film's value is kept.
        unit: "film" leaves the table as it is.
        rule: max, mean or confident, or {label: rule} with "*" for the labels that are not named (max where neither).
        labels: the columns that hold scores or truths.
        kind: "score", or "truth": a finding is present when any film has it, unknown when none has it and any is
            uncertain or blank.

    Raises:
        InputError: `confident` on scores outside [0, 1].
    """
    group = np.arange(len(side)) if unit == "film" else pd.factorize(side[JOINED])[0]
    out = side[~pd.Series(group).duplicated().to_numpy()].reset_index(drop=True)
    out.attrs = side.attrs
    if kind == "score":
        out[KEY] = out[JOINED]
    for label in labels:
        values = side[label].to_numpy(float)
        chosen = rule if isinstance(rule, str) else rule.get(label, rule.get("*", "max"))
        out[label] = _any_film(values, group) if kind == "truth" else combine(values, group, chosen)
    return out


def combine(values: np.ndarray, group: np.ndarray, rule: str) -> np.ndarray:
    """Scores of groups of films.

    Args:
        values: float (films,).
        group: int (films,), 0 to groups - 1, each at least once.
        rule: one of RULES.

    Returns:
        float (groups,). Among equally confident films the first counts.
    """
    one_of("--rule", rule, RULES)
    groups = int(group.max(initial=-1)) + 1
    if rule == "mean":
        return np.bincount(group, values, groups) / np.bincount(group, minlength=groups)
    if rule == "confident" and ((values < 0) | (values > 1)).any():
        raise InputError("--rule confident needs probabilities; these scores leave [0, 1]; use max or mean")
    weight = values if rule == "max" else np.maximum(values, 1 - values)
    order = np.lexsort((np.arange(len(values)), -weight, group))
    starts = np.r_[0, np.flatnonzero(np.diff(group[order])) + 1] if len(group) else np.empty(0, int)
    return values[order[starts]]


def _any_film(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """1 where any film has the finding, else NaN where any film is uncertain (-1) or blank, else 0."""
    worth = np.where(values == 1, 2, np.where(values == 0, 0, 1))     # present beats unknown beats absent
    best = np.zeros(int(group.max(initial=-1)) + 1, int)
    np.maximum.at(best, group, worth)
    return np.array([0.0, np.nan, 1.0])[best]
