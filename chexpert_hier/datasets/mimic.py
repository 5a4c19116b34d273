"""The reader of MIMIC-CXR-JPG (Johnson et al. 2019) as it unpacks: CheXpert's 14 labels per study, its own split."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import CHEXPERT_LABELS
from .readers import Options, Source, check_paths, codes
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
KEYS = ("subject_id", "study_id")
# ViewPosition -> (view, projection); other positions (oblique, blank ...) are left out and counted.
POSITIONS = {"AP": ("Frontal", "AP"), "PA": ("Frontal", "PA"), "LATERAL": ("Lateral", ""), "LL": ("Lateral", "LL")}
_SPLITS = {"train": "train", "validate": "valid", "test": "test"}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """MIMIC-CXR-JPG: mimic-cxr-2.*-metadata, -split and -chexpert (.csv or .csv.gz), films in files/p10/p10000032/...

    Sex and age stand in another data set, so they are unknown here. Films that are neither frontal nor lateral and
    films of studies without labels are left out; the log says how many.

    Raises:
        InputError: a missing table or column, an impossible code, an unknown split.
    """
    name, metadata = _table(folder, "metadata", ("dicom_id", *KEYS, "ViewPosition"))
    split_name, splits = _table(folder, "split", ("dicom_id", "split"))
    labels = options.labels or CHEXPERT_LABELS
    label_name, studies = _table(folder, "chexpert", (*KEYS, *labels), labels)
    raw = pd.DataFrame(codes(studies, label_name, labels, problems), columns=list(labels))
    raw["study_id"] = studies["study_id"].to_numpy()
    problems.say("study listed twice", raw["study_id"].duplicated().to_numpy(), lambda place: (
        f"{label_name}, row {studies.index[place]}: study {raw['study_id'][place]} is listed twice"), "refused")
    split = splits.drop_duplicates("dicom_id").set_index("dicom_id")["split"].str.strip()
    films = metadata.assign(row=metadata.index, split=metadata["dicom_id"].map(split).map(_SPLITS).fillna(""))
    films = _kept(name, films, set(raw["study_id"]))
    problems.say("no split", (films["split"] == "").to_numpy(), lambda place: (
        f"{split_name}: no split of film {films['dicom_id'].iloc[place]} ({name}, row {films['row'].iloc[place]}); "
        f"expected one of {', '.join(_SPLITS)}"), "refused")
    subject, study = films["subject_id"], films["study_id"]
    place = "p" + subject.str[:2] + "/p" + subject + "/s" + study
    paths = ("files/" + place + "/" + films["dicom_id"] + ".jpg").to_numpy()
    check_paths(name, paths, films["row"].to_numpy(), options, problems)
    position = films["ViewPosition"]
    table = pd.DataFrame({
        "path": paths, "file": paths, "patient": ("p" + subject).to_numpy(), "study": place.to_numpy(),
        "view": [POSITIONS[name][0] for name in position], "projection": [POSITIONS[name][1] for name in position],
        "sex": "Unknown", "age": np.float32(np.nan), "row": films["row"].to_numpy(), "table": name,
        "split": "" if options.split in ("seeded", "paper") else films["split"].to_numpy()})
    rows = raw.set_index("study_id").loc[study.to_numpy(), list(labels)].reset_index(drop=True)
    return Source(folder, pd.concat([table, rows], axis=1), tuple(labels))


def _table(folder: Path, kind: str, columns: tuple[str, ...], few: tuple[str, ...] = ()) -> tuple[str, pd.DataFrame]:
    found = sorted([*folder.glob(f"mimic-cxr-2.*-{kind}.csv"), *folder.glob(f"mimic-cxr-2.*-{kind}.csv.gz")])
    if not found:
        raise InputError(f"{folder}: no mimic-cxr-2.*-{kind}.csv or .csv.gz in this folder; is this MIMIC-CXR-JPG?")
    table = read_table(found[0], codes=few)
    require_columns(found[0], table, columns, "Is this MIMIC-CXR-JPG?")
    return found[0].name, table


def _kept(name: str, films: pd.DataFrame, labelled: set[str]) -> pd.DataFrame:
    """The frontal and lateral films of studies that have labels."""
    films = films.assign(ViewPosition=films["ViewPosition"].str.strip().str.upper())
    known, labels = films["ViewPosition"].isin(list(POSITIONS)), films["study_id"].isin(labelled)
    if not (known & labels).any():
        raise InputError(f"{name}: no frontal or lateral film of a study with labels; is this MIMIC-CXR-JPG?")
    LOG.info("%s: left out %d films of other views and %d of studies without labels", name, (~known).sum(),
             (known & ~labels).sum())
    return films[known & labels]
