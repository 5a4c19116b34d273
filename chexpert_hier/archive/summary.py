"""What an archive holds: counts, rate, flags, errors by kind, each finding's distribution, and its drift.

Reads the results file by file; nothing grows with the number of films.
"""

import collections
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BINS = 1000  # of the histogram from which quantiles are read: they are right to 0.001
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_KINDS = 50  # of errors and flags that are counted by name; the rest is "other"
GROUPS = 10  # of the population stability index: deciles of the validation films
LEAST_SHARE = 1e-4  # of a group, so that an empty one does not make the index infinite
# Siddiqi, Credit Risk Scorecards, 2006: below 0.1 no change to speak of, above 0.25 a shift.
SHIFT = 0.25


@dataclass(frozen=True)
class Reference:
    """What the models answered for their validation films.

    Attributes:
        values: label -> float (films,), sorted.
    """

    values: dict[str, np.ndarray]


def reference(models: Sequence[str], labels: Sequence[str]) -> Reference | None:
    """The validation films' probabilities of one run, or of several as an ensemble (their mean).

    Returns:
        None where a model brings no predictions.csv with these labels, or the runs had different validation films.
    """
    tables = []
    for model in models:
        folder = Path(model).parent if Path(model).suffix == ".keras" else Path(model)
        try:
            tables.append(pd.read_csv(folder / "predictions.csv").set_index("Path")[list(labels)])
        except (OSError, KeyError, ValueError):
            return None
    first = tables[0].index
    if any(set(table.index) != set(first) for table in tables[1:]):
        return None
    mean = np.mean([table.loc[first].to_numpy() for table in tables], axis=0)
    return Reference({label: np.sort(mean[:, k]) for k, label in enumerate(labels)})


class Tally:
    """Gathers a summary, table by table.

    Attributes:
        labels: the findings.
    """

    def __init__(self, labels: Sequence[str], against: Reference | None):
        self.labels, self.against = tuple(labels), against
        self.films = self.failed = self.skipped = self.flagged = 0
        self.worker_seconds = 0.0
        self.errors, self.flags, self.skips = (collections.Counter() for _ in range(3))
        self.findings = {label: _Finding(None if against is None else against.values[label]) for label in labels}

    def add(self, table: Any) -> None:
        """Count the rows of a result file (a pyarrow table with the columns of `worker.Worker.score`)."""
        self.films += len(table)
        self.worker_seconds += float(np.nansum(table["seconds"].to_numpy()))
        self.failed += _count(self.errors, table["error"].to_pylist())
        self.flagged += _count(self.flags, table["[flag]"].to_pylist())
        if "skipped" in table.column_names:
            self.skipped += _count(self.skips, table["skipped"].to_pylist())
        for label, finding in self.findings.items():
            called = f"{label} [call]"
            finding.add(table[label].to_numpy(), table[called].to_numpy() if called in table.column_names else None)

    def as_json(self) -> dict:
        """The summary as plain JSON values."""
        return {"films": self.films, "answered": self.films - self.failed - self.skipped, "errors": self.failed,
                "skipped": self.skipped, "flagged": self.flagged, "worker_seconds": round(self.worker_seconds, 1),
                "errors_by_kind": dict(self.errors.most_common()), "skipped_by_kind": dict(self.skips.most_common()),
                "flags_by_kind": dict(self.flags.most_common()),
                "findings": {label: finding.as_json() for label, finding in self.findings.items()},
                "drift": {"measure": f"population stability index over {GROUPS} groups of the validation films; "
                                     f"below 0.1 no change to speak of, above {SHIFT} a shift (Siddiqi 2006); "
                                     "by_chance: 95 % of indices stay below it where nothing changed (Yurdakul 2018)",
                          "known": self.against is not None}}


class _Finding:
    """One finding's distribution, and its distance from the validation films'."""

    def __init__(self, against: np.ndarray | None):
        self.against = None if against is None else np.sort(against.astype(np.float32))
        self.counts, self.sum, self.squares, self.called, self.judged = np.zeros(BINS, np.int64), 0.0, 0.0, 0, 0
        self.places = None if against is None else np.zeros(len(against) + 1, np.int64)

    def add(self, values: np.ndarray, called: np.ndarray | None) -> None:
        values = values[~np.isnan(values)]
        if self.places is not None:  # how many lie at or below each of the validation films
            self.places += np.bincount(np.searchsorted(self.against, values, "left"), minlength=len(self.places))
        values = values.astype(float)
        self.counts += np.histogram(values, BINS, (0, 1))[0]
        self.sum, self.squares = self.sum + values.sum(), self.squares + (values ** 2).sum()
        if called is not None:
            self.called += int(np.nansum(called))
            self.judged += int((~np.isnan(called)).sum())

    def as_json(self) -> dict:
        count = int(self.counts.sum())
        if not count:
            return {"films": 0}
        mean = self.sum / count
        below = np.cumsum(self.counts) / count
        found = {"films": count, "mean": mean, "sd": max(self.squares / count - mean ** 2, 0.0) ** 0.5,
                 "quantiles": {f"{q:g}": float((np.searchsorted(below, q) + 0.5) / BINS) for q in QUANTILES},
                 "called_present": self.called / self.judged if self.judged else None}
        return found | ({} if self.places is None else {"drift": self._drift(count)})

    def _drift(self, count: int) -> dict:
        from scipy.stats import chi2

        films = len(self.against)
        here = np.cumsum(self.places)[:-1] / count  # share at or below each validation film
        there = np.searchsorted(self.against, self.against, "right") / films
        edges = np.unique(np.quantile(self.against, np.linspace(0, 1, GROUPS + 1)[1:-1], method="lower"))
        at = np.searchsorted(self.against, edges, "right") - 1
        expected, found = (np.maximum(np.diff(np.r_[0, shares[at], 1]), LEAST_SHARE) for shares in (there, here))
        chance = chi2.ppf(0.95, max(len(edges), 1)) * (1 / films + 1 / count)
        return {"psi": float(((found - expected) * np.log(found / expected)).sum()), "by_chance": float(chance),
                "largest_difference_of_shares": float(abs(here - there).max()),
                "validation_films": films}


def _count(counter: collections.Counter, texts: Iterable[str | None]) -> int:
    """Count texts by kind; gives how many there were."""
    texts = [text for text in texts if text]
    for text in texts:
        kind = _kind(text)
        counter[kind if kind in counter or len(counter) < MOST_KINDS else "other"] += 1
    return len(texts)


def _kind(text: str) -> str:
    """What texts of one kind have in common: numbers, quoted parts and advice go."""
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'...'", text.split(";")[0])).strip()


def text(found: dict) -> str:
    """The summary as a person reads it."""
    lines = [f"{found['films']:,} films: {found['answered']:,} answered, {found['errors']:,} with an error, "
             f"{found['skipped']:,} skipped, {found['flagged']:,} flagged as odd"]
    for name, what in (("errors_by_kind", "error"), ("skipped_by_kind", "skipped"), ("flags_by_kind", "flag")):
        lines += [f"  {what}: {count:,} x {kind}" for kind, count in found[name].items()]
    lines.append(f"{'finding':<28}{'mean':>7}{'5 %':>7}{'50 %':>7}{'95 %':>7}{'present':>9}{'drift':>8}")
    for label, one in found["findings"].items():
        if one["films"]:
            lines.append(_row(label, one))
    lines.append("drift: population stability index against the validation films; * above 0.25 and above "
                 "chance" if found["drift"]["known"] else
                 "drift: not known; the model brings no predictions of validation films")
    return "\n".join(lines)


def _row(label: str, one: dict) -> str:
    present, drift = one["called_present"], one.get("drift")
    numbers = [one["mean"], *(one["quantiles"][q] for q in ("0.05", "0.5", "0.95"))]
    shifted = drift and drift["psi"] > max(SHIFT, drift["by_chance"])
    share = "-" if present is None else f"{100 * present:.1f} %"
    index = "-" if not drift else f"{drift['psi']:.2f}" + "*" * bool(shifted)
    return f"{label:<28}" + "".join(f"{number:>7.3f}" for number in numbers) + f"{share:>9}{index:>8}"
