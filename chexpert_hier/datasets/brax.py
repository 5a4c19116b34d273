"""The reader of BRAX (Reis et al. 2022): CheXpert's 14 labels from reports in Portuguese."""

import logging
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..labels import CHEXPERT_LABELS
from .cells import SEXES, ages, check_paths, codes, few, film_names
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
COLUMNS = ("DicomPath", "PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition")
# ViewPosition -> (view, projection); oblique and decubitus films and blank cells are left out and counted.
POSITIONS = {"AP": ("Frontal", "AP"), "PA": ("Frontal", "PA"), "L": ("Lateral", ""), "LL": ("Lateral", "LL"),
             "RL": ("Lateral", "RL")}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """BRAX: master_spreadsheet_update.csv; films in images/ (PNG) or, without it, Anonymized_DICOMs/.

    The labels have CheXpert's names and codes. A split is drawn by patient. Ages stand in steps of five years, the
    oldest as "85 or more", which is read as 85.

    Raises:
        InputError: no table, a missing column, an impossible code.
    """
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no {' or '.join(TABLES)} in this folder; is this BRAX?")
    labels = options.labels or CHEXPERT_LABELS
    table = read_table(path, codes=(*labels, "PatientSex", "PatientAge"))
    require_columns(path, table, (*COLUMNS, *labels), "Is this BRAX's table?")
    position = table["ViewPosition"].str.strip().str.upper()
    kept = position.isin(list(POSITIONS))
    if not kept.any():
        raise InputError(f"{path.name}: no frontal or lateral film; is this BRAX?")
    LOG.info("%s: left out %d films of other views", path.name, (~kept).sum())
    table, position = table[kept], position[kept]
    column = "PngPath" if (folder / "images").is_dir() or not (folder / "Anonymized_DICOMs").is_dir() else "DicomPath"
    films = film_names(table[column].str.strip()).to_numpy()
    check_paths(path.name, films, table.index.to_numpy(), options, problems)
    age = table["PatientAge"].cat.rename_categories(lambda text: text.lower().removesuffix(" or more"))
    frame = pd.DataFrame({
        "path": films, "file": films, "patient": table["PatientID"].str.strip().to_numpy(),
        "study": table["AccessionNumber"].str.strip().to_numpy(),
        "view": [POSITIONS[name][0] for name in position], "projection": [POSITIONS[name][1] for name in position],
        "sex": few(table, "PatientSex", SEXES, path.name, problems, "Unknown"),
        "age": ages(table.assign(PatientAge=age), "PatientAge", path.name, problems), "split": "",
        "row": table.index.to_numpy(), "table": path.name})
    raw = pd.DataFrame(codes(table, path.name, labels, problems), columns=list(labels))
    return Source(folder, pd.concat([frame, raw], axis=1), tuple(labels))
