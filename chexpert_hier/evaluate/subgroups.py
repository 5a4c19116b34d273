"""The same measures for parts of the cases: by sex, age, projection, or any other column of the truth file."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import InputError
from .intervals import rank_table, with_mean
from .joining import Cases

# Years; our choice: near-equal thirds of CheXpert's patients.
AGE_BANDS = ((0, 50, "under 50"), (50, 70, "50 to 69"), (70, 999, "70 and over"))


def subgroups(cases: Cases, by: Sequence[str], replicates: int, seed: int,
              stratified: bool = False) -> pd.DataFrame:
    """AUROC per value of each column, every group with its own resamples of its own patients.

    Raises:
        InputError: the truth file has no such column.
    """
    parts = []
    for column in by:
        for group, rows in _groups(cases, column):
            part = cases.subset(rows)
            table, replicated, _, _ = rank_table(part, replicates, seed, stratified)
            table, _ = with_mean(table, replicated)
            kept = table[["label", "auroc", "auroc_low", "auroc_high", "positives", "negatives",
                                "few_positives", "labels_counted", "dropped_replicates"]].copy()
            kept.insert(0, "by", column)
            kept.insert(1, "group", group)
            kept.insert(2, "cases", len(part.keys))
            kept.insert(3, "patients", part.total_patients)
            parts.append(kept)
    return pd.concat(parts, ignore_index=True)


def _groups(cases: Cases, column: str) -> list[tuple[str, np.ndarray]]:
    if column not in cases.about:
        raise InputError(f"--by: the truth file has no column {column!r}; it has: "
                         f"{', '.join(map(str, cases.about.columns)) or 'no others'}")
    values = cases.about[column].reset_index(drop=True)
    if column.strip().lower() in ("age", "patient age"):
        ages = pd.to_numeric(values, errors="coerce").to_numpy(float)
        groups = [(name, (ages >= low) & (ages < high)) for low, high, name in AGE_BANDS]
        groups.append(("unknown", np.isnan(ages)))
    else:
        text = values.fillna("").astype(str).str.strip().replace("", "unknown").to_numpy(object)
        groups = [(value, text == value) for value in sorted(set(text))]
    if len(groups) > 50:
        raise InputError(f"--by {column}: {len(groups)} different values; choose a column with at most 50")
    return [(name, rows) for name, rows in groups if rows.any()]
