"""A table ready for a paper: LaTeX (booktabs), Markdown or CSV; one row per label, AUROCs with intervals.

The best of several systems is bold only where its difference from every other one is certain: beyond noise in their
comparison, after correction over all labels and pairs.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..paths import cell
from .comparison import certainly_better
from .findings import Findings
from .frames import rows

SIDE_BY_SIDE = 3  # systems; more have their intervals on a line of their own


class PaperTable(NamedTuple):
    """A table as text, and the file it is kept in."""

    file: str
    text: str


class Cell(NamedTuple):
    """One number with its interval; bold where it is certainly the best of its row."""

    value: float
    low: float
    high: float
    bold: bool = False


@dataclass(frozen=True)
class Layout:
    """What stands in the table, before any format.

    Attributes:
        head: names of the columns of numbers.
        rows: (label, positives, cells) each; the last one is the mean.
        caption: one sentence on what is shown.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[Cell, ...]], ...]
    caption: str


def paper_table(findings: Findings, kind: str) -> PaperTable:
    """The evaluation as a table in one of `FORMATS`.

    Args:
        findings: of one system (AUROC, average precision, sensitivity, specificity) or several (one measure each:
            AUROC, or Matthews' correlation where one of them holds decisions).
        kind: one of FORMATS.
    """
    layout = _several(findings) if len(findings.results) > 1 else _single(findings)
    return FORMATS[kind](layout)


def _single(findings: Findings) -> Layout:
    main = findings.main
    measures = {"sensitivity": "Sensitivity", "specificity": "Specificity", "f1": "F1", "mcc": "MCC"}
    if not main.cases.decisions:
        measures = {"auroc": "AUROC", "average_precision": "Average precision", "sensitivity": "Sensitivity",
                    "specificity": "Specificity"}
    return Layout(tuple(measures.values()),
                  tuple((str(row.label), int(row.positives), tuple(_cell(row, m) for m in measures))
                        for row in rows(main.table)), f"{main.name}: {main.cases.in_words}. {_intervals(findings)}")


def _several(findings: Findings) -> Layout:
    measure = "mcc" if any(r.cases.decisions for r in findings.results) else "auroc"
    tables = {r.name: {row.label: row for row in rows(r.table)} for r in findings.results}
    best = _certainly_best(findings)
    labels = [str(label) for label in findings.main.table["label"]]
    found = []
    for place, label in enumerate(labels):
        mean = place == len(labels) - 1
        cells = []
        for name, table in tables.items():
            row = list(table.values())[-1] if mean else table.get(label)
            cells.append(Cell(np.nan, np.nan, np.nan) if row is None else
                         _cell(row, measure, name in best.get(label, ())))
        found.append((label, int(tables[findings.main.name][label].positives), tuple(cells)))
    what = {"auroc": "AUROC", "mcc": "Matthews' correlation of decisions and of calls at the thresholds"}[measure]
    caption = (f"{what} on {findings.main.cases.in_words}. {_intervals(findings)} Bold: better than every other "
               "system, beyond noise (paired tests, Holm's correction over labels and systems).")
    return Layout(tuple(tables), tuple(found), caption)


def _intervals(findings: Findings) -> str:
    return ("In parentheses 95 % bootstrap intervals over patients "
            f"({findings.main.settings['replicates']:,} resamples).")


def _cell(row: Any, measure: str, bold: bool = False) -> Cell:
    value, low, high = (float(getattr(row, f"{measure}{ending}", np.nan)) for ending in ("", "_low", "_high"))
    return Cell(value, low, high, bold)


def _certainly_best(findings: Findings) -> dict[str, set[str]]:
    """Label -> the system that every other one was compared with and lost to, if there is one."""
    won: dict[str, dict[str, int]] = {}
    for table in findings.comparisons.values():
        for row in table.to_dict("records"):
            if winner := certainly_better(row):
                tally = won.setdefault(str(row["label"]), {})
                tally[winner] = tally.get(winner, 0) + 1
    others = len(findings.results) - 1
    return {label: {name for name, count in tally.items() if count == others} for label, tally in won.items()}


def number(value: float, digits: int = 3) -> str:
    """A number to three decimals, an en dash where there is none."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _latex(layout: Layout) -> PaperTable:
    columns, stacked = len(layout.head), len(layout.head) > SIDE_BY_SIDE
    lines = ["% needs \\usepackage{booktabs,graphicx}; a table wider than the line is made smaller", "\\begin{table}",
             "\\centering", f"\\caption{{{_tex(layout.caption)}}}", "\\label{tab:evaluation}",
             "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
             f"\\begin{{tabular}}{{l{'r' * (columns + 1)}}}", "\\toprule",
             " & ".join(["Label", "Positives", *map(_tex, layout.head)]) + " \\\\", "\\midrule"]
    for place, (label, positives, cells) in enumerate(layout.rows):
        if place == len(layout.rows) - 1:
            lines.append("\\midrule")
        values = [f"\\textbf{{{_tex_number(c.value)}}}" if c.bold else _tex_number(c.value) for c in cells]
        spans = ["" if np.isnan(c.low) else f"({_tex_number(c.low)}--{_tex_number(c.high)})" for c in cells]
        if not stacked:
            values = [f"{value} {span}".strip() for value, span in zip(values, spans)]
        lines.append(" & ".join([_tex(label), f"{positives}", *values]) + " \\\\")
        if stacked and any(spans):
            small = [f"{{\\scriptsize {span}}}" if span else "" for span in spans]
            lines.append(" & ".join(["", "", *small]) + " \\\\")
    return PaperTable("table.tex", "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table}", ""]))


def _tex_number(value: float) -> str:
    text = number(value)
    return "--" if text == "–" else f"${text}$" if value < 0 else text


_TEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
        ">": "\\textgreater{}", "|": "\\textbar{}", '"': "\\textquotedbl{}", "–": "--", "−": "$-$",
        **{c: f"\\{c}" for c in "&%$#_{}"}}


def _tex(text: str) -> str:
    """A name as LaTeX prints it, whatever it holds; control characters become spaces."""
    return "".join(_TEX.get(c, c if c.isprintable() else " ") for c in text)


def _markdown(layout: Layout) -> PaperTable:
    lines = [layout.caption, "", _line(["Label", "Positives", *layout.head]),
             "|---|" + "---:|" * (len(layout.head) + 1)]
    for label, positives, cells in layout.rows:
        shown = [f"**{number(c.value)}**" if c.bold else number(c.value) for c in cells]
        lines.append(_line([label, str(positives), *(
            value if np.isnan(c.low) else f"{value} ({number(c.low)} to {number(c.high)})"
            for value, c in zip(shown, cells))]))
    lines[0] = _md(lines[0])
    return PaperTable("table.md", "\n".join(lines) + "\n")


def _line(cells: Sequence[str]) -> str:
    """A row; numbers in bold are already Markdown."""
    return "| " + " | ".join(one if one.startswith("**") else _md(one) for one in cells) + " |"


def _md(text: str) -> str:
    """A name that neither ends a cell nor a line, nor is read as HTML or emphasis."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for mark in "\\|<>*_`[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _csv(layout: Layout) -> PaperTable:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "positives", *(f"{cell(name)}{ending}" for name in layout.head
                                             for ending in ("", " low", " high", " certainly best"))])
    for label, positives, cells in layout.rows:
        writer.writerow([cell(label), positives, *(part for c in cells for part in (
            *("" if np.isnan(value) else f"{value:.4f}" for value in c[:3]), "yes" if c.bold else ""))])
    return PaperTable("table.csv", text.getvalue())


FORMATS: dict[str, Callable[[Layout], PaperTable]] = {"latex": _latex, "markdown": _markdown, "csv": _csv}
