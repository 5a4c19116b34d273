"""A finished run as something to judge: its own files as it judges them itself, and its answers on other data.

Reads run folders and data sets; the model answers in a process of its own (`chexpert_hier.predict`), so that nothing
here knows TensorFlow.
"""

import filecmp
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import hierarchy, recipes
from ..datasets.dataset import Dataset
from ..datasets.reading import read as read_data
from ..errors import InputError, did_you_mean
from ..files import write_text
from ..labels import key
from ..paths import unescaped
from ..run_folder import data_folders, patients_of, read_facts, read_part
from .joining import Joining
from .names import study_of
from .reading import read_predictions, read_truth

NEEDED = ("predictions.csv", "truth.csv", "split.csv")


@dataclass(frozen=True)
class Run:
    """A finished run's answers on the films that it is judged on, and how it judges them.

    Attributes:
        folder: the run folder.
        facts: recipe.json.
        recipe: how it was trained.
        predictions, truth: tables with a column Path.
        conditional: the answers before the chain rule, or None.
        joining: the recipe's unit, rule and reading of blanks.
        tree: the hierarchy of its labels.
    """

    folder: Path
    facts: dict[str, Any]
    recipe: recipes.Recipe
    predictions: pd.DataFrame
    truth: pd.DataFrame
    conditional: pd.DataFrame | None
    joining: Joining
    tree: hierarchy.Tree

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name


def read_run(folder: str | Path) -> Run:
    """Read a finished run folder.

    Raises:
        InputError: it is no run folder, or the run is not finished.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    if missing := [name for name in NEEDED if not (folder / name).exists()]:
        raise InputError(f"{folder}: {missing[0]} is missing; the run is not finished. Go on with it: python -m "
                         f"chexpert_hier.run --out {folder} --resume")
    recipe, labels = recipes.from_json(facts["recipe"]), tuple(facts["outputs"])
    truth = read_truth(folder / "truth.csv")
    patients = patients_of(folder, truth["Path"].tolist())
    before = folder / "conditional.csv"
    return Run(folder, facts, recipe, read_predictions(folder / "predictions.csv"), truth,
               read_predictions(before) if before.exists() else None,
               joining_of(recipe, labels, list(truth["Path"]), patients),
               hierarchy.named(facts["tree"], labels))


def joining_of(recipe: recipes.Recipe, labels: Sequence[str], paths: Sequence[str],
               patients: Sequence[str]) -> Joining:
    """How a recipe's films are judged; films whose paths name no study are judged as films.

    Args:
        recipe: its unit, study_score and blank count.
        labels: the outputs.
        paths, patients: of the judged films; studies of several patients need no list of them.
    """
    unit = recipe.unit if recipe.unit != "study" or all(map(study_of, paths)) else "film"
    return Joining(labels=tuple(labels), patients=None if unit == "study" else list(patients), unit=unit,
                   rule=recipe.study_score, truth_blank=recipe.blank)


@dataclass(frozen=True)
class Outside:
    """A run's answers on another data set.

    Attributes:
        name: of the data set.
        predictions, truth: tables with a column Path.
        joining: as the run's own, on these films.
        notes: what was left out.
    """

    name: str
    predictions: pd.DataFrame
    truth: pd.DataFrame
    joining: Joining
    notes: list[str]


def answer_outside(run: Run, data: str | Path, out: str | Path, reader: str | None = None,
                   by: Sequence[str] = ()) -> Outside:
    """Let a run's model answer for the films of another data set, and read what it said beside the truth.

    Films of the run itself (same path, same bytes) are left out. `out` gets truth.csv and predictions.csv, which are
    kept: asked for the same again, the model need not answer again, and an interrupted call goes on where it was.

    Args:
        run: of `read_run`.
        data: the folder of the other data set.
        out: where the answers are kept.
        reader: one of datasets.READERS; None takes the run's.
        by: columns that will be asked for, so that one that is not there is refused before the model answers.

    Raises:
        InputError: no such column, no data set there, no film left, another job's answers in `out`, or a model that
            cannot answer.
    """
    dataset = read_data(data, reader=reader or run.recipe.reader.partition("+")[0], views=run.recipe.views)
    new, notes = _without_own_films(run, dataset)
    if not len(new):
        raise InputError(f"{data}: all its films are films of the run {run.folder}; give films that it has not seen")
    out, truth = Path(out), _truth_of(new)
    for column in by:
        others = [name for name in truth.columns if name not in new.labels]
        if column not in others:
            raise InputError(f"--by: {data} has no column {column!r}; there are: {', '.join(others)}"
                             f"{did_you_mean(column, others)}")
    _keep_job(out, {"run": run.facts["data"].get("fingerprint"), "recipe": run.facts["recipe"],
                    "model": _model_size(run), "data": new.fingerprint})
    write_text(out / "truth.csv", truth.to_csv(index=False))
    if not (out / "predictions.csv").exists():
        _predict(run, new.root, out)
    answers = read_predictions(out / "predictions.csv")
    if left_out := len(truth) - len(answers):
        notes.append(f"{left_out:,} films could not be answered for and are left out (predictions.skipped.csv).")
    known = truth["Path"].isin(set(answers["Path"]))
    truth = read_truth(out / "truth.csv")[known.to_numpy()].reset_index(drop=True)
    joining = joining_of(run.recipe, [], list(truth["Path"]), truth["Patient"].tolist())
    return Outside(new.name, answers, truth, Joining(None, "Patient" if joining.patients else None, joining.unit,
                                                     joining.rule, joining.truth_blank), notes)


def _truth_of(dataset: Dataset) -> pd.DataFrame:
    films = dataset.films[["path", "file", "patient", "view", "sex", "age", "projection"]].rename(columns={
        "path": "Path", "file": "File", "patient": "Patient", "view": "Frontal/Lateral", "sex": "Sex", "age": "Age",
        "projection": "AP/PA"})
    return pd.concat([films, pd.DataFrame(dataset.truth, columns=list(dataset.labels))], axis=1)


def _without_own_films(run: Run, dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The data set without films that the run was trained or judged on: the same path and the same bytes."""
    own = read_part(run.folder, "split.csv", ("path",))["path"]
    there = {key(path): path for path in own}
    told = run.facts["data"]
    roots = data_folders(run.facts) if told.get("root") or told.get("roots") else []  # may be kept
    same, unknown = np.zeros(len(dataset), bool), 0
    for place, (name, file) in enumerate(zip(dataset.keys, dataset.files)):
        if name in there and file.is_file():
            before = next((found for root in roots if (found := _file_of(root, there[name]))), None)
            unknown += before is None
            same[place] = before is not None and filecmp.cmp(before, file, shallow=False)
    notes = []
    if same.any():
        notes.append(f"{same.sum():,} films of {dataset.name} are films of the run itself and are left out.")
    if unknown:
        notes.append(f"{unknown:,} films have the same paths as films of the run, whose own films are no longer there "
                     "to compare: whether they are the same cannot be told.")
    return dataset.select(~same), notes


def _file_of(root: Path, path: str) -> Path | None:
    """The run's own film, below its data folder or that folder's parent, as data sets are read."""
    name = unescaped(path)
    return next((file for file in (root / name, root.parent / name, root / key(name)) if file.is_file()), None)


def _model_size(run: Run) -> list[int]:
    file = run.folder / "model.keras"
    if not file.exists():
        raise InputError(f"{run.folder}: has no model.keras; expected a finished run")
    return [file.stat().st_size, file.stat().st_mtime_ns]


def _keep_job(out: Path, job: dict[str, Any]) -> None:
    """Write down whose answers `out` holds, or refuse those of another job."""
    file, text = out / "outside.json", json.dumps(job, indent=1, sort_keys=True, default=str) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise InputError(f"{out}: holds the answers of another model or on other films (outside.json); choose another "
                         "--out")
    if not file.exists() and (out / "predictions.csv").exists():
        raise InputError(f"{out}: holds predictions.csv of something else; choose another --out")
    write_text(file, text)


def _predict(run: Run, root: Path, out: Path) -> None:
    command = [sys.executable, "-m", "chexpert_hier.predict", str(out / "truth.csv"), "--root", str(root), "--model",
               str(run.folder), "--out", str(out / "predictions.csv"), "--skip-bad", "--resume"]
    if subprocess.run(command).returncode:  # its progress and its reason are on the screen
        raise InputError(f"{run.folder}: could not answer for the films of {root}; the reason stands above")
