"""The report for people: one HTML page that needs no network and no other file, from Jinja2 templates.

Autoescape is on: every name that came from a file is plain text on the page.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from .figures import KINDS, Pictures
from .findings import Findings
from .frames import rows
from .radiologists import Readers
from .result import Result
from .units import UNITS

TITLES = {"external": "Inside and outside", "results": "AUROC", "notes": "Read with this", "labels": "Label by label",
          "thresholds": "At a threshold", "calibration": "Calibration", "radiologists": "Radiologists",
          "comparison": "Comparison", "subgroups": "Subgroups", "tree": "The disease tree", "how": "How it was done"}


class Section(NamedTuple):
    """A part of a page: its anchor, its title in plain text, its HTML."""

    anchor: str
    title: str
    html: str


class Line(NamedTuple):
    """A row of a table: plain text, or HTML that is marked as such."""

    first: str
    cells: Sequence[str]
    mean: bool = False
    flag: str = ""


def html(findings: Findings, pictures: Pictures) -> str:
    """The whole page.

    Args:
        findings: what was found.
        pictures: of `figures.draw`.
    """
    parts = _macros()
    lead = parts.lead(findings) + parts.cards(findings)
    return document(f"Evaluation of {findings.main.name}", lead, sections(findings, pictures))


def sections(findings: Findings, pictures: Pictures) -> list[Section]:
    """The parts of the page that have content."""
    parts = _macros()
    titles = TITLES | ({"results": "Decisions"} if findings.main.cases.decisions else {})
    found = [Section(anchor, title, str(getattr(parts, anchor)(findings, pictures)))
             for anchor, title in titles.items()]
    return [section for section in found if section.html.strip()]


def document(title: str, lead: str, parts: Iterable[Sequence[str]], style: str = "") -> str:
    """One page that needs no other file, with a line of links to its sections.

    Args:
        title: plain text.
        lead: HTML below the title.
        parts: (anchor, title in plain text, HTML) of each section.
        style: further CSS.
    """
    made = [Section(anchor, name, Markup(content)) for anchor, name, content in parts]
    return environment().get_template("document.html").render(
        title=title, lead=Markup(lead), sections=made, style=Markup(style), version=__version__)


@cache
def environment() -> Environment:
    """The templates with their filters: digits, count, base64; autoescape on, a name that is not there is an error."""
    found = Environment(loader=PackageLoader("chexpert_hier.evaluate"), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"digits": in_digits, "count": in_count, "base64": _base64}
    found.tests["in_all"] = lambda note, results: all(note in result.notes for result in results)
    found.globals |= {"rows": rows, "line": line, "kinds": KINDS, "rate_rows": rate_rows, "f1_rows": _f1_rows,
                      "first_note": _first_note, "subgroup_tables": _subgroup_tables, "tree_words": _tree_words}
    return found


def _macros() -> Any:
    """The sections' macros, as functions that give HTML."""
    return environment().get_template("sections.html").module


def in_digits(value: Any, digits: int = 3) -> str:
    """A number to so many decimals; a dash where there is none."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return "inf" if value is not None and value > 0 else "–"
    return f"{value:.{digits}f}"


def in_count(value: Any) -> str:
    """A whole number with its thousands; a dash where there is none."""
    return "–" if value != value else f"{int(value):,}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def line(first: object, cells: Sequence[str], mean: bool = False, few: bool = False) -> Line:
    """A row of a table; `few` marks a label with few positives."""
    return Line(first if isinstance(first, Markup) else str(first), cells, mean, "few positives" if few else "")


def _parts() -> Any:
    return environment().get_template("macros.html").module


def with_interval(value: float, low: float, high: float) -> Markup:
    """A number and, softer, its interval."""
    return Markup(_parts().interval(value, low, high))


def rate_rows(result: Result, measures: Sequence[str], threshold: bool = False,
              counts: bool = False) -> Iterator[Line]:
    """Rows of rates with their intervals, after the threshold or before the counts where these are asked for."""
    last = len(result.table) - 1
    for place, row in enumerate(result.table.to_dict("records")):
        cells: list[str] = [in_digits(row["threshold"], 4)] if threshold else []
        cells += [_parts().interval(row[m], row[f"{m}_low"], row[f"{m}_high"]) for m in measures]
        cells += [in_count(row["positives"]), in_count(row["negatives"])] if counts else []
        yield line(row["label"], cells, place == last, row["few_positives"])


def _f1_rows(readers: Readers) -> Iterator[Line]:
    for row in readers.f1.to_dict("records"):
        cells: list[str] = [_parts().interval(row[k], row.get(f"{k}_low", np.nan), row.get(f"{k}_high", np.nan))
                            for k in ("model", "radiologists", "difference")]
        yield line(row["label"], [*cells, row["sentence"]])


def _first_note(result: Result, *starts: str, within: str = "") -> str:
    return next((note for note in result.notes if note.startswith(starts) and within in note), "")


def _subgroup_tables(result: Result) -> Iterator[tuple[str, list[str], list[Line]]]:
    """(column, head, rows) of each column that the cases are split by."""
    if result.subgroups is None:
        return
    parts = _macros()
    for column, table in result.subgroups.groupby("by", sort=False):
        head, cells = ["Label"], dict[str, list[str]]()
        for group, part in table.groupby("group", sort=False):
            head.append(parts.group_head(group, _units(result, int(part["cases"].iloc[0]))))
            for row in rows(part):
                cells.setdefault(row.label, []).append(parts.subgroup_cell(row))
        yield str(column), head, [line(label, found, label.startswith("mean of ")) for label, found in cells.items()]


def _units(result: Result, count: int) -> str:
    return f"{count:,} {result.cases.unit if count == 1 else UNITS[result.cases.unit]}"


def _tree_words(result: Result) -> str:
    table = result.tree
    if table is None:
        return ""
    given = "conditional" in result.settings
    later = ("no chain rule, for the scores are no probabilities" if table["above_after"].isna().all() else
             f"{int(table['above_after'].sum()):,} after it" if given else
             f"{int(table['above_after'].sum()):,} after the chain rule, if the scores are read as conditional")
    return (f"A finding is given a higher score than a finding it implies in {table['above_before'].sum():,} of "
            f"{table['films'].sum():,} checks{' before the chain rule' if given else ''}; {later}. The truth itself "
            f"breaks the tree in {table['truth_broken'].sum():,} of {table['truth_checked'].sum():,} checks.")
