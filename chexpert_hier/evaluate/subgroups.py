"""The same measures for parts of the cases: by sex, age, projection, or any other column of the truth or meta file."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import InputError, did_you_mean
from .intervals import Resampling, rank_table, with_mean
from .joining import Cases
from .names import NOT_LABELS, plain

# Years; our choice: near-equal thirds of CheXpert's patients.
AGE_BANDS = ((0, 50, "under 50"), (50, 70, "50 to 69"), (70, 999, "70 and over"))
MOST_GROUPS = 50
_KEPT = ["label", "auroc", "auroc_low", "auroc_high", "positives", "negatives", "few_positives", "labels_counted",
         "dropped_replicates"]


def require_columns(cases: Cases, by: Sequence[str]) -> None:
    """Refuse columns to split by that the cases do not have, or that have too many values.

    Raises:
        InputError: naming the columns there are (labels left out).
    """
    for column in by:
        groups(cases, column)


def subgroups(cases: Cases, by: Sequence[str], resampling: Resampling) -> pd.DataFrame:
    """AUROC per value of each column, every group with its own resamples of its own patients.

    Raises:
        InputError: there is no such column, or it has too many values.
    """
    parts = []
    for column in by:
        for group, rows in groups(cases, column).items():
            part = cases.subset(rows)
            ranked = rank_table(part, resampling)
            kept = with_mean(ranked.table, {"auroc": ranked.replicates}).table
            kept = kept.assign(by=column, group=group, cases=len(part.keys), patients=part.total_patients)
            parts.append(kept[["by", "group", "cases", "patients", *_KEPT]])
    return pd.concat(parts, ignore_index=True)


def groups(cases: Cases, column: str) -> dict[str, np.ndarray]:
    """Value of a column -> bool (cases,); ages in bands of `AGE_BANDS`, what is blank as "unknown".

    Raises:
        InputError: the column is not there, or has more than 50 values.
    """
    if column not in cases.about:
        listed = [str(c) for c in cases.about.columns
                  if not pd.api.types.is_numeric_dtype(cases.about[c]) or plain(c) in NOT_LABELS]
        raise InputError(f"--by: neither the truth nor a --meta file has a column {column!r}; there are: "
                         f"{', '.join(listed) or 'no others'}{did_you_mean(column, listed)}")
    values = cases.about[column].reset_index(drop=True)
    if plain(column) in ("age", "patient age"):
        ages = pd.to_numeric(values, errors="coerce").to_numpy(float)
        found = {name: (ages >= low) & (ages < high) for low, high, name in AGE_BANDS}
        found["unknown"] = ~np.logical_or.reduce(list(found.values()))
    else:
        text = values.astype(object).where(values.notna(), "").astype(str).str.strip().replace("", "unknown")
        found = {value: (text == value).to_numpy() for value in sorted(set(text))}
    if len(found) > MOST_GROUPS:
        raise InputError(f"--by {column}: {len(found)} different values; choose a column with at most {MOST_GROUPS}")
    return {name: rows for name, rows in found.items() if rows.any()}
