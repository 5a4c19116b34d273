"""What the command prints: one table, the notes once, a line per comparison."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..commands import printable
from .external import External
from .findings import Findings
from .frames import rows
from .result import Result
from .tables import number
from .tree import totals


def report(findings: Findings) -> list[str]:
    """The evaluation as lines of text; control characters in foreign names are written as escapes."""
    several = len(findings.results) > 1
    lines = [*(_systems(findings.results) if several else _system(findings.main)), *_means(findings.results)]
    for note in dict.fromkeys(note for result in findings.results for note in result.notes):  # each once
        told = [result.name for result in findings.results if note in result.notes]
        lines.append(f"  - {note}" if len(told) == len(findings.results) else f"  - {', '.join(told)}: {note}")
    lines += _contradictions(findings.results)
    for name, readers in findings.readers.items():
        below = readers.below.iloc[-1]
        lines.append(f"  - {name + ': ' if several else ''}Radiologists below the ROC curve: {below.below_roc:.1f} on "
                     f"average (strictly: {below.strictly_below_roc:.1f}).")
    lines += [_compared(name, table) for name, table in findings.compared.items()]
    lines += [] if findings.external is None else list(_external(findings.external))
    return [printable(line).replace("\n", "\\n") for line in lines]


def _system(result: Result) -> Iterator[str]:
    yield f"{result.name}: {result.cases.in_words}"
    width = max(map(len, result.table["label"]))
    for row in rows(result.table):
        shown = (", ".join(f"{name} {_span(row, measure)}" for name, measure in (
            ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("F1", "f1"), ("MCC", "mcc")))
                 if result.cases.decisions else f"AUROC {row.auroc:.4f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})")
        yield (f"  {row.label:<{width}}  {shown}  {row.positives:,} positives, {row.negatives:,} negatives"
               f"{'  FEW POSITIVES' if row.few_positives else ''}")


def _span(row: Any, measure: str) -> str:
    low, high = getattr(row, f"{measure}_low"), getattr(row, f"{measure}_high")
    return f"{number(getattr(row, measure))} ({number(low)} to {number(high)})"


def _systems(results: Sequence[Result]) -> Iterator[str]:
    """A column per system: AUROC, or Matthews' correlation of a system of decisions."""
    main = results[0]
    mixed = any(result.cases.decisions for result in results)
    yield f"{main.cases.in_words}; AUROC{', for decisions Matthews correlation (MCC)' if mixed else ''}"
    labels = [str(label) for label in main.table["label"]]
    width, columns = max(map(len, [*labels, "positives"])), []
    for result in results:
        measure = "mcc" if result.cases.decisions else "auroc"
        values = dict(zip(result.table["label"][:-1], result.table[measure][:-1]))
        values[labels[-1]] = result.table[measure].iloc[-1] if result.mean_name == labels[-1] else np.nan
        head = result.name if measure == "auroc" else f"{result.name} (MCC)"
        cells = [number(values.get(label, np.nan)) for label in labels]
        size = max(len(head), 5)
        columns.append([f"{text:>{size}}" for text in (head, *cells)])
    positives = ["positives", *(f"{count:,}" for count in main.table["positives"])]
    for place, label in enumerate(["", *labels]):
        yield f"  {label:<{width}}  {positives[place]:>9}  " + "  ".join(column[place] for column in columns)


def _means(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        for row in rows(result.means) if result.means is not None else ():
            yield (f"  {result.name + ': ' if len(results) > 1 else ''}{row.label}: AUROC {row.auroc:.4f} "
                   f"({row.auroc_low:.3f} to {row.auroc_high:.3f})")


def _contradictions(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.tree is not None:
            words = totals(result.tree, "conditional" in result.settings).in_words
            yield f"  - {result.name + ': ' if len(results) > 1 else ''}{words}"


def _compared(name: str, table: pd.DataFrame) -> str:
    row = table.iloc[-1]
    p = f"p {_p(row.p_bootstrap if np.isnan(row.p_delong) else row.p_delong)}, corrected {_p(row.p_holm)}"
    labels = [label for label, verdict in zip(table["label"][:-1], table["verdict"][:-1]) if "is better" in verdict]
    beyond = f"; beyond noise in {', '.join(map(str, labels))}" if labels else ""
    return (f"{name}: {row.label} {row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f}), "
            f"{p}: {row.verdict}{beyond}")


def _p(value: float) -> str:
    return "–" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _external(found: External) -> Iterator[str]:
    yield from found.notes[:1]
    width = max(map(len, found.table["label"]))
    for row in found.table.to_dict("records"):
        kept = f"sensitivity {number(row['sensitivity_inside'], 2)} to {number(row['sensitivity_outside'], 2)}, " \
               f"specificity {number(row['specificity_inside'], 2)} to {number(row['specificity_outside'], 2)}"
        gap = "" if np.isnan(row["difference"]) else (
            f"{row['difference']:+.3f}, {row['difference_low']:+.3f} to {row['difference_high']:+.3f}: ")
        yield (f"  {row['label']:<{width}}  AUROC {number(row['auroc_inside'])} inside, {number(row['auroc_outside'])} "
               f"outside ({gap}{row['verdict']}); at the carried threshold {kept}; calibration slope "
               f"{number(row['slope_inside'], 2)} to {number(row['slope_outside'], 2)}")
