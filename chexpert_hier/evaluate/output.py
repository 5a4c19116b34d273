"""Write down what was found: evaluation.csv and .json for machines, evaluation.html and figures/ for people."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from .. import __version__
from ..files import write_text, written_whole
from .evaluation import Result
from .findings import Findings


def write(result: Result | Findings, out: str | Path, *, page: bool = True) -> Path:
    """Write evaluation.csv, .json, .html and figures/evaluation_*.png|svg, each whole or not at all.

    Args:
        result: of `evaluate`, or several as Findings.
        out: the folder; made if needed, older evaluations in it are replaced.
        page: also draw the figures and the page (needs matplotlib).

    Returns:
        the folder.
    """
    findings = Findings([result]) if isinstance(result, Result) else result
    out = Path(out)
    tables = [r.table if len(findings.results) == 1 else r.table.assign(predictions=r.name) for r in findings.results]
    write_text(out / "evaluation.csv", pd.concat(tables, ignore_index=True).to_csv(index=False, lineterminator="\n"))
    write_text(out / "evaluation.json", json.dumps(as_json(findings), indent=1, allow_nan=False) + "\n")
    main = findings.results[0]
    if main.calibrated is not None and main.settings["fitted_on"] == "other films":
        key = "Path" if main.cases.unit == "film" else main.cases.unit.capitalize()
        table = pd.DataFrame(main.calibrated, columns=list(main.cases.labels))
        table.insert(0, key, main.cases.keys)
        write_text(out / "calibrated.csv", table.to_csv(index=False, lineterminator="\n"))
    if page:
        from . import figures
        from . import page as pages
        pictures = figures.draw(findings)
        for name, content in pictures.files.items():
            with written_whole(out / "figures" / name) as beside:
                beside.write_bytes(content)
        write_text(out / "evaluation.html", pages.html(findings, pictures))
    return out


def as_json(findings: Findings) -> dict:
    """The findings as plain numbers, lists and dicts; what is not a number is null."""
    return _plain({"package": f"chexpert_hier {__version__}", **_one(findings.results[0]),
                   "others": [_one(result) for result in findings.results[1:]],
                   "comparisons": {name: _rows(table) for name, table in
                                   {**findings.results[0].comparisons, **findings.comparisons}.items()},
                   "radiologists": {name: {"points": _rows(r.points), "below": _rows(r.below), "f1": _rows(r.f1),
                                           "agreement": _rows(r.agreement), "notes": r.notes}
                                    for name, r in findings.readers.items()}})


def _one(result: Result) -> dict:
    rows = _rows(result.table)
    return {"predictions": result.name, "settings": result.settings, "notes": result.notes,
            "labels": {row["label"]: row for row in rows[:-1]}, "mean": rows[-1],
            "curves": {label: {kind: np.round(values, 5) for kind, values in curve.items()}
                       for label, curve in result.curves.items()},
            "reliability": {label: {kind: _rows(table) for kind, table in tables.items()}
                            for label, tables in result.reliability.items()},
            "calibration": {label: scaling.as_dict() for label, scaling in result.scalings.items()},
            "subgroups": _rows(result.subgroups), "tree": _rows(result.tree)}


def _rows(table: pd.DataFrame | None) -> list[dict]:
    return [] if table is None else table.to_dict("records")


def _plain(value):
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
