"""Write down what was found: tables and evaluation.json for machines, evaluation.html and figures/ for people."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import __version__
from ..errors import InputError
from ..files import write_text, written_whole
from ..paths import cell
from .findings import Findings
from .result import Result
from .tables import paper_table
from .tree import totals


def write(result: Result | Findings, out: str | Path, *, page: bool = True, tables: Iterable[str] = ()) -> Path:
    """Write evaluation.csv, .json, .html and figures/evaluation_*.png|svg, each whole or not at all.

    comparisons.csv, subgroups.csv and external.csv come where there is something to say; calibrated.csv where the
    calibration was fitted on other films.

    Args:
        result: of `evaluate`, or several as Findings.
        out: the folder; made if needed, older evaluations in it are replaced.
        page: also draw the figures and the page (needs matplotlib).
        tables: formats of `tables.FORMATS` in which a table for a paper is written.

    Returns:
        the folder.
    """
    findings = Findings([result]) if isinstance(result, Result) else result
    out = Path(out)
    for name, table in _csv_tables(findings).items():
        write_text(out / name, _without_formulas(table).to_csv(index=False, lineterminator="\n"))
    write_text(out / "evaluation.json", json.dumps(as_json(findings), indent=1, allow_nan=False) + "\n")
    for kind in tables:
        found = paper_table(findings, kind)
        write_text(out / found.file, found.text)
    if page:
        from . import figures
        from . import page as pages
        pictures = figures.draw(findings)
        for name, content in pictures.files.items():
            with written_whole(out / "figures" / name) as beside:
                beside.write_bytes(content)
        write_text(out / "evaluation.html", pages.html(findings, pictures))
    return out


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with labels, groups and names of files as `paths.cell` writes them."""
    def written(column: pd.Series) -> pd.Series:
        if pd.api.types.is_numeric_dtype(column):
            return column
        return column.map(lambda value: cell(value) if isinstance(value, str) else value)

    return table.apply(written).rename(columns=cell)


def _csv_tables(findings: Findings) -> dict[str, pd.DataFrame]:
    several, main = len(findings.results) > 1, findings.main
    whole = [pd.concat([r.table, r.means]) if r.means is not None else r.table for r in findings.results]
    named = [table.assign(predictions=r.name) if several else table for table, r in zip(whole, findings.results)]
    out = {"evaluation.csv": pd.concat(named)}
    if findings.compared:
        out["comparisons.csv"] = pd.concat([table.assign(comparison=name) for name, table in findings.compared.items()])
    parts = [(r.name, r.subgroups) for r in findings.results if r.subgroups is not None]
    if parts:
        out["subgroups.csv"] = pd.concat([table.assign(predictions=name) if several else table
                                          for name, table in parts])
    if main.calibrated is not None and main.settings["fitted_on"] == "other films":
        table = pd.DataFrame(main.calibrated, columns=list(main.cases.labels))
        table.insert(0, "Path" if main.cases.unit == "film" else main.cases.unit.capitalize(), main.cases.keys)
        out["calibrated.csv"] = table
    if findings.external is not None:
        out["external.csv"] = findings.external.table
        if findings.external.subgroups is not None:
            out["external_subgroups.csv"] = findings.external.subgroups
    return out


def asked(files: Mapping[str, Iterable[str | Path]], settings: Mapping[str, object]) -> dict[str, object]:
    """What an evaluation was asked for: contents of its files and its settings, so that it is known again.

    Args:
        files: argument -> files; their contents count, not where they lie.
        settings: everything else that changes the result.
    """
    return {"files": {what: [{"name": Path(path).name, "sha256": _sha256(Path(path))} for path in paths]
                      for what, paths in files.items()}, "settings": _plain(dict(settings))}


def _sha256(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None  # its reader says what is wrong with it


def refuse_another(out: str | Path, wanted: Mapping[str, object]) -> None:
    """Refuse a folder that holds another evaluation than the one asked for; the same one may be made anew.

    Raises:
        InputError: there is another evaluation, or one that cannot be told to be the same.
    """
    file = Path(out) / "evaluation.json"
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("asked")
    except (OSError, ValueError, AttributeError, RecursionError):
        found = None
    if found != wanted:
        raise InputError(f"{out}: holds another evaluation (evaluation.json); choose another --out, or remove that one")


def as_json(findings: Findings) -> dict[str, Any]:
    """The findings as plain numbers, lists and dicts; what is not a number is null."""
    found = {"package": f"chexpert_hier {__version__}", "asked": findings.asked, **_one(findings.main),
             "others": [_one(result) for result in findings.results[1:]],
             "comparisons": {name: _rows(table) for name, table in findings.compared.items()},
             "radiologists": {name: {"points": _rows(r.points), "below": _rows(r.below), "f1": _rows(r.f1),
                                     "agreement": _rows(r.agreement), "notes": r.notes}
                              for name, r in findings.readers.items()}}
    if findings.external is not None:
        other = findings.external
        found["external"] = {"data": other.name, "labels": _rows(other.table), "subgroups": _rows(other.subgroups),
                             "notes": other.notes}
    plain: dict[str, Any] = _plain(found)
    return plain


def _one(result: Result) -> dict[str, Any]:
    labels, given = _rows(result.table), "conditional" in result.settings
    return {"predictions": result.name, "settings": result.settings, "notes": result.notes,
            "labels": {row["label"]: row for row in labels[:-1]}, "mean": labels[-1], "means": _rows(result.means),
            "curves": {label: {kind: np.round(values, 5) for kind, values in curve.items()}
                       for label, curve in result.curves.items()},
            "reliability": {label: {kind: _rows(table) for kind, table in tables.items()}
                            for label, tables in result.reliability.items()},
            "calibration": {label: scaling.as_dict() for label, scaling in result.scalings.items()},
            "subgroups": _rows(result.subgroups), "tree": _rows(result.tree),
            "contradictions": None if result.tree is None else totals(result.tree, given)._asdict()}


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return None if value is None else str(value)
