"""The reader of MIMIC-CXR-JPG (Johnson et al. 2019) as it unpacks: CheXpert's 14 labels per study, its own split."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import CHEXPERT_LABELS
from .cells import SEXES, check_paths, codes
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
KEYS = ("subject_id", "study_id")
# ViewPosition -> (view, projection); other positions (oblique, decubitus ...) are left out and counted.
POSITIONS = {"AP": ("Frontal", "AP"), "PA": ("Frontal", "PA"), "LATERAL": ("Lateral", ""), "LL": ("Lateral", "LL")}
# ViewCodeSequence_CodeMeaning, where ViewPosition is blank -> ViewPosition.
MEANINGS = {"antero-posterior": "AP", "postero-anterior": "PA", "lateral": "LATERAL", "left lateral": "LL"}
# --train-file -> the table of labels: two labelers, and the test studies that radiologists read.
KINDS = {"train.csv": "chexpert", "chexpert": "chexpert", "negbio": "negbio", "test-set-labeled": "test-set-labeled"}
SPELLINGS = {"Airspace Opacity": "Lung Opacity"}  # in the test set's table
_SPLITS = {"train": "train", "validate": "valid", "test": "test"}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """MIMIC-CXR-JPG: mimic-cxr-2.*-metadata, -split and -chexpert (.csv or .csv.gz), films in files/p10/p10000032/...

    `--train-file negbio` reads the other labeler's table, `--train-file test-set-labeled` the 687 studies that
    radiologists read. Sex and age are in MIMIC-IV: where its patients.csv(.gz) lies beside the tables they are read
    from it, else they are unknown. Films that are neither frontal nor lateral and films of studies without labels are
    left out; the log says how many.

    Raises:
        InputError: a missing table or column, an impossible code, an unknown split.
    """
    labels = options.labels or CHEXPERT_LABELS
    name, films = _table(folder, "metadata", ("dicom_id", *KEYS, "ViewPosition"))
    raw = _labels(folder, options.train_file, labels, problems)
    films = _kept(name, _with_split(folder, name, films.assign(row=films.index)), raw, problems)
    subject, study = films["subject_id"], films["study_id"]
    place = "p" + subject.str[:2] + "/p" + subject + "/s" + study
    paths = ("files/" + place + "/" + films["dicom_id"] + ".jpg").to_numpy()
    check_paths(name, paths, films["row"].to_numpy(), options, problems)
    sex, age = _people(folder, films)
    table = pd.DataFrame({
        "path": paths, "file": paths, "patient": ("p" + subject).to_numpy(), "study": place.to_numpy(),
        "view": [POSITIONS[name][0] for name in films["ViewPosition"]],
        "projection": [POSITIONS[name][1] for name in films["ViewPosition"]],
        "sex": sex, "age": age, "row": films["row"].to_numpy(), "table": name,
        "split": "" if options.drawn else films["split"].to_numpy()})
    rows = raw.loc[study.to_numpy(), list(labels)].reset_index(drop=True)
    return Source(folder, pd.concat([table, rows], axis=1), tuple(labels))


def _labels(folder: Path, asked: str, labels: tuple[str, ...], problems: Problems) -> pd.DataFrame:
    """The codes of each study, by study_id."""
    kind = KINDS.get(asked) or next((kind for kind in KINDS.values() if f"-{kind}.csv" in asked), None)
    if kind is None:
        raise InputError(f"--train-file is {asked!r}; MIMIC-CXR-JPG has {', '.join(dict.fromkeys(KINDS.values()))}")
    name, studies = _table(folder, kind, ("study_id", *labels), (*labels, *SPELLINGS))
    raw = pd.DataFrame(codes(studies, name, labels, problems), columns=list(labels), index=studies["study_id"])
    problems.say("study listed twice", raw.index.duplicated(), lambda place: (
        f"{name}, row {studies.index[place]}: study {raw.index[place]} is listed twice"), "refused")
    return raw[~raw.index.duplicated()]


def _with_split(folder: Path, name: str, films: pd.DataFrame) -> pd.DataFrame:
    _, splits = _table(folder, "split", ("dicom_id", "split"))
    split = splits.drop_duplicates("dicom_id").set_index("dicom_id")["split"].str.strip()
    return films.assign(split=films["dicom_id"].map(split).map(_SPLITS).fillna(""))


def _table(folder: Path, kind: str, columns: tuple[str, ...], few: tuple[str, ...] = ()) -> tuple[str, pd.DataFrame]:
    found = sorted([*folder.glob(f"mimic-cxr-2.*-{kind}.csv"), *folder.glob(f"mimic-cxr-2.*-{kind}.csv.gz")])
    if not found:
        raise InputError(f"{folder}: no mimic-cxr-2.*-{kind}.csv or .csv.gz in this folder; is this MIMIC-CXR-JPG?")
    table = read_table(found[0], codes=few).rename(columns=SPELLINGS)
    require_columns(found[0], table, columns, "Is this MIMIC-CXR-JPG?")
    return found[0].name, table


def _kept(name: str, films: pd.DataFrame, raw: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """The frontal and lateral films of studies that have labels, all with a split."""
    position = films["ViewPosition"].str.strip().str.upper()
    if "ViewCodeSequence_CodeMeaning" in films.columns:
        meaning = films["ViewCodeSequence_CodeMeaning"].str.strip().str.lower().map(MEANINGS).fillna("")
        position = position.where(position != "", meaning)
    films = films.assign(ViewPosition=position)
    known, labelled = position.isin(list(POSITIONS)), films["study_id"].isin(raw.index)
    if not (known & labelled).any():
        raise InputError(f"{name}: no frontal or lateral film of a study with labels; is this MIMIC-CXR-JPG?")
    LOG.info("%s: left out %d films of other views and %d of studies without labels", name, (~known).sum(),
             (known & ~labelled).sum())
    films = films[known & labelled]
    problems.say("no split", (films["split"] == "").to_numpy(), lambda place: (
        f"mimic-cxr-2.*-split: no split of film {films['dicom_id'].iloc[place]} ({name}, row "
        f"{films['row'].iloc[place]}); expected one of {', '.join(_SPLITS)}"), "refused")
    return films


def _people(folder: Path, films: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sex, and age in years at the film, from MIMIC-IV's patients table; unknown without it."""
    unknown = np.full(len(films), "Unknown", object), np.full(len(films), np.nan, np.float32)
    path = next((folder / name for name in ("patients.csv", "patients.csv.gz") if (folder / name).is_file()), None)
    if path is None or "StudyDate" not in films.columns:
        return unknown
    table = read_table(path, keep=("subject_id", "gender", "anchor_age", "anchor_year"))
    require_columns(path, table, ("subject_id", "gender", "anchor_age", "anchor_year"), "Is this MIMIC-IV's table?")
    person = table.drop_duplicates("subject_id").set_index("subject_id").reindex(films["subject_id"])
    sex = person["gender"].fillna("").str.strip().str.lower().map(SEXES).fillna("Unknown").to_numpy(object)
    age, year = (pd.to_numeric(person[name], errors="coerce").to_numpy(float) for name in ("anchor_age", "anchor_year"))
    taken = pd.to_numeric(films["StudyDate"].str[:4], errors="coerce").to_numpy(float)
    return sex, (age + taken - year).astype(np.float32)
