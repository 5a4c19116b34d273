"""What the validation films say of a finished run or ensemble: operating points, calibration, results with intervals.

Plain JSON values throughout, for they travel in the SavedModel's metadata.json. Reads run folders, never a model.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import hierarchy, recipes, schema
from ..errors import InputError

log = logging.getLogger("chexpert_hier.finished")

READ = ("truth.csv", "predictions.csv", "recipe.json", "split.csv")  # of a run folder, to judge it
KEPT = ("auroc", "auroc_low", "auroc_high", "positives", "negatives", "few_positives", "threshold", "sensitivity",
        "sensitivity_low", "sensitivity_high", "specificity", "specificity_low", "specificity_high", "brier",
        "brier_calibrated")


@dataclass(frozen=True)
class Point:
    """What is known of one label, of KEPT; others may stand beside these."""

    threshold: float | None
    sensitivity: float | None
    sensitivity_low: float | None
    sensitivity_high: float | None
    specificity: float | None
    specificity_low: float | None
    specificity_high: float | None
    few_positives: bool | None


@dataclass(frozen=True)
class Validation:
    """What `validation` gives, as far as answers rely on it."""

    films: int
    patients: int
    rule: str
    labels: dict[str, Any]
    calibration: dict[str, Any]


# Thresholds are scores of single films: one exactly there must not fall below by the rounding of another machine.
SLACK = 1e-5


def validation(folders: Sequence[Path], labels: Sequence[str]) -> dict | None:
    """What validation films say of one run, or of several as an ensemble (the mean of their probabilities).

    Args:
        folders: run folders.
        labels: the outputs, in order.

    Returns:
        {"films", "patients", "rule", "labels": {label: {"auroc", "auroc_low", ..., "threshold", "sensitivity", ...}},
        "mean": {...}, "calibration": {label: fields of evaluate.calibration.Scaling}, "notes"}; None where a run has no
        evaluation or the members were validated on different films. Thresholds hold for probabilities without
        test-time views.
    """
    try:
        folders = [Path(folder) for folder in folders]
        stored = (_stored(folders[0]) if len(folders) == 1 else None) or _judged(
            tuple(folders), tuple(labels), tuple(_state(folder / name) for folder in folders for name in READ))
        return None if stored is None else check(_kept(stored, labels), labels, str(folders[0] / "evaluation.json"))
    except FileNotFoundError as error:
        log.info("no operating points: %s is missing", error.filename)
        return None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:  # any damaged file
        log.info("no operating points: %s: damaged (%s)", ", ".join(map(str, folders)), error)
        return None


def _kept(stored: dict, labels: Sequence[str]) -> dict | None:
    if not set(labels) <= set(stored["labels"]):
        return None
    settings, mean = stored["settings"], stored["mean"]
    return {"films": settings["cases"], "patients": settings["patients"], "rule": settings["threshold"],
            "labels": {label: {name: stored["labels"][label].get(name) for name in KEPT} for label in labels},
            "mean": {name: mean.get(name) for name in ("label", "auroc", "auroc_low", "auroc_high")},
            "calibration": {label: stored["calibration"][label] for label in labels if label in stored["calibration"]},
            "notes": stored["notes"]}


def check(found: Any, labels: Sequence[str], where: str) -> dict | None:
    """What `validation` gave, after a look at its types.

    Args:
        found: e.g. read from a metadata.json; None where nothing is known.
        labels: those that it must know, or nothing of calls and calibration.
        where: what errors begin with.

    Raises:
        InputError: a field is missing or not of its type.
    """
    if found is None:
        return None
    about = schema.read(Validation, found, where, extras=True)
    for label in labels:
        if label not in about.labels:
            raise InputError(f"{where}: labels: {label!r} is missing")
        schema.read(Point, about.labels[label], f"{where}: labels.{label}", extras=True)
    if about.calibration:
        from ..evaluate import calibration

        calibration.read_scalings(about.calibration)
    return found


def _stored(folder: Path) -> dict | None:
    """The run's own evaluation, where it judged films: the scores of studies with several films run higher."""
    file = folder / "evaluation.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    films = len(pd.read_csv(folder / "predictions.csv", usecols=["Path"]))
    platt = all(scaling["method"] != "isotonic" for scaling in found["calibration"].values())
    return found if found["settings"]["cases"] == films and platt else None


def _state(file: Path) -> tuple[int, int]:
    """Changes when the file does."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)  # an export asks for the same more than once
def _judged(folders: tuple[Path, ...], labels: tuple[str, ...], states: tuple) -> dict | None:
    """Judge the validation films one by one; several runs by the mean of their probabilities.

    Args:
        folders: run folders.
        labels: the outputs, in order.
        states: of the files that are read.
    """
    from .. import evaluate
    from ..evaluate.findings import Findings
    from ..evaluate.output import as_json

    truths = [pd.read_csv(folder / "truth.csv") for folder in folders]
    answers = [pd.read_csv(folder / "predictions.csv") for folder in folders]
    if any(set(other["Path"]) != set(answers[0]["Path"]) for other in answers[1:]):
        log.info("no operating points for the ensemble: its members were validated on different films")
        return None
    order = answers[0]["Path"].tolist()
    mean = np.mean([table.set_index("Path").loc[order, list(labels)].to_numpy() for table in answers], axis=0)
    table = pd.DataFrame(mean, columns=list(labels))
    table.insert(0, "Path", order)
    facts = json.loads((folders[0] / "recipe.json").read_text(encoding="utf-8"))
    recipe = recipes.from_json(facts["recipe"])
    who = pd.read_csv(folders[0] / "split.csv").set_index("path")["patient"].astype(str)
    joining = evaluate.Joining(labels, who.loc[truths[0]["Path"]].tolist(), "film", truth_blank=recipe.blank)
    result = evaluate.evaluate(table, truths[0], joining, evaluate.Judging(
        seed=recipe.seed, tree=hierarchy.named(facts["tree"], tuple(labels)), curves=False, name="ensemble"))
    return json.loads(json.dumps(as_json(Findings([result]))))


def thresholds(found: dict | None, labels: Sequence[str]) -> np.ndarray:
    """float (labels,), NaN where there is no operating point."""
    rows = (found or {}).get("labels", {})
    numbers = [rows.get(label, {}).get("threshold") for label in labels]
    return np.array([np.nan if number is None else number for number in numbers], float)


def calls(probabilities: np.ndarray, found: dict | None, labels: Sequence[str]) -> np.ndarray:
    """(n, labels) probabilities -> 1.0 present, 0.0 absent, NaN where there is no operating point."""
    limit = thresholds(found, labels)
    reached = probabilities >= limit - SLACK * np.abs(limit)
    return np.where(np.isnan(limit), np.nan, reached.astype(float))


def calibrated(probabilities: np.ndarray, found: dict | None, labels: Sequence[str],
               tree: hierarchy.Tree) -> np.ndarray | None:
    """Calibrated probabilities (n, labels), none above an ancestor's; None without calibration.

    Raises:
        InputError: the stored calibration is not what `validation` gives.
    """
    if not found or not found["calibration"]:
        return None
    from ..evaluate import calibration

    scalings = calibration.read_scalings(found["calibration"])
    missing = [label for label in labels if label not in scalings]
    if missing:
        raise InputError(f"calibration: {missing[0]} is missing; expected all of {', '.join(labels)}")
    scaled = np.stack([scalings[label](probabilities[:, k]) for k, label in enumerate(labels)], 1)
    return calibration.under_ancestors(scaled, tuple(labels), tree)
