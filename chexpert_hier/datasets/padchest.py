"""The reader of PadChest (Bustos et al. 2020): labels listed per film, from reports in Spanish.

A label that is listed is present; silence is blank, as in CheXpert, and `--blank` says what that means. Only a report
that says "normal" says that findings are absent. Where a report compares with an earlier film ("unchanged"), or the
film is poor, silence tells nothing: what is not listed is then unknown.
"""

import ast
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from .bridge import Bridged, Row, assembled, bridged, chosen_labels
from .cells import REFUSED, SEXES, check_paths, few, film_names, listing
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
           "Projection", "Labels")
# Projection -> (view, projection); COSTAL, EXCLUDE and UNK are left out and counted.
PROJECTIONS = {"PA": ("Frontal", "PA"), "AP": ("Frontal", "AP"), "AP_horizontal": ("Frontal", "AP"),
               "L": ("Lateral", "")}
SAYS_NOTHING = ("unchanged", "suboptimal study", "")  # of what is not listed beside it
EXCLUDED = "exclude"
_SEXES = {**SEXES, "nan": "Unknown"}

_LESIONS = ("nodule", "multiple nodules", "pulmonary mass", "cavitation", "lung metastasis", "lepidic adenocarcinoma")
_EDEMA = ("pulmonary edema", "heart insufficiency", "hilar congestion")
_CONSOLIDATION = ("consolidation", "air bronchogram")
_PNEUMONIA = ("pneumonia", "atypical pneumonia")
_ATELECTASIS = ("atelectasis", "total atelectasis", "lobar atelectasis", "segmental atelectasis",
                "laminar atelectasis", "round atelectasis", "atelectasis basal")
_INFILTRATES = ("infiltrates", "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
                "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern", "increased density")
DEVICES = (
    "NSG tube", "endotracheal tube", "tracheostomy tube", "chest drain tube", "gastrostomy tube", "nephrostomy tube",
    "ventriculoperitoneal drain tube", "catheter", "central venous catheter", "reservoir central venous catheter",
    "central venous catheter via jugular vein", "central venous catheter via subclavian vein",
    "central venous catheter via umbilical vein", "pacemaker", "dual chamber device", "single chamber device", "dai",
    "electrical device", "artificial heart valve", "artificial mitral heart valve", "artificial aortic heart valve",
    "metal", "osteosynthesis material", "humeral prosthesis", "prosthesis")

# "Labeler": the words that CheXpert's own labels are made from (Irvin et al. 2019, its folder phrases/mention).
# "PadChest": the tree of its labels (Bustos et al. 2020, section 3.3).
BRIDGE: dict[str, Row] = {
    "No Finding": Row(("normal",), True, "PadChest: a report without findings. Any other label but a device makes it "
                      "0, as the labeler's no_finding list does"),
    "Enlarged Cardiomediastinum": Row(
        ("cardiomegaly", "mediastinal enlargement", "superior mediastinal enlargement"), True,
        "labeler: mediastinum; CheXpert's tree: Cardiomegaly. Goiter, hiatal hernia, mediastinal mass and long aortas, "
        "which PadChest puts below mediastinal enlargement, are left out: they are named without being called wide"),
    "Cardiomegaly": Row(("cardiomegaly",), True, "same finding"),
    "Lung Opacity": Row(
        (*_INFILTRATES, *_CONSOLIDATION, *_LESIONS, *_EDEMA, *_PNEUMONIA, *_ATELECTASIS), True,
        "PadChest: infiltrates and what is below; labeler: increased density; CheXpert's tree: the five findings below "
        "it. Fibrotic band, pulmonary fibrosis and bronchovascular markings are left out"),
    "Lung Lesion": Row(_LESIONS, True, "labeler: nodule, mass, cavitary lesion, carcinoma, tumor. Mass without a "
                       "place, granuloma and pseudonodule are left out"),
    "Edema": Row(_EDEMA, True, "labeler: edema, heart failure, pulmonary congestion. Kerley lines and vascular "
                 "redistribution are left out"),
    "Consolidation": Row(_CONSOLIDATION, True, "PadChest: air bronchogram is below consolidation"),
    "Pneumonia": Row(_PNEUMONIA, True, "PadChest: atypical pneumonia is below pneumonia. Tuberculosis is left out"),
    "Atelectasis": Row(_ATELECTASIS, True, "PadChest: atelectasis and what is below. Volume loss is left out"),
    "Pneumothorax": Row(("pneumothorax", "hydropneumothorax"), True, "PadChest: what is below pneumothorax"),
    "Pleural Effusion": Row(
        ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax",
         "empyema", "hemothorax"), True,
        "PadChest: pleural effusion and what is below. Costophrenic angle blunting is left out"),
    "Pleural Other": Row(("pleural thickening", "apical pleural thickening", "calcified pleural thickening"), True,
                         "labeler: pleural thickening. Plaques and pleural mass are left out"),
    "Fracture": Row(("fracture", "clavicle fracture", "humeral fracture", "vertebral fracture", "rib fracture",
                     "callus rib fracture"), True, "PadChest: fracture and what is below"),
    "Support Devices": Row(DEVICES, True, "labeler: tube, catheter, pacemaker, device, drain, valve, hardware, plate, "
                           "screw, arthroplasty. Sternotomy, suture material and mammary prostheses are left out"),
}


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """PadChest: its table (.csv or .csv.gz), films in numbered folders, in images/ or in the folder itself.

    Films of other projections, films marked to be excluded and films without labels are left out; the log counts them.
    A split is drawn by patient.

    Raises:
        InputError: no table, a missing column, labels that are no list.
    """
    path = next((folder / name for name in (TABLE, f"{TABLE}.gz") if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder}: no {TABLE} or {TABLE}.gz in this folder; is this PadChest?")
    table = read_table(path, codes=("Labels", "PatientSex_DICOM"), keep=COLUMNS)
    require_columns(path, table, COLUMNS, "Is this PadChest's table?")
    table, lists = _kept(path.name, table, _lists(path.name, table["Labels"], problems))
    codes, own, silent = _codes(table["Labels"], lists)
    wanted = chosen_labels(options.labels, own)
    found = bridged(codes, own, BRIDGE, wanted, normal=codes[:, own.index("normal")] == 1)
    found = Bridged(found.raw, found.unknown | (np.isnan(found.raw) & silent[:, None]))
    return Source(folder, assembled(_films(folder, path.name, table, options, problems), found, wanted), wanted)


def _lists(name: str, column: pd.Series, problems: Problems) -> list[tuple[str, ...] | None]:
    """Per category of the column Labels: the labels listed; None where it is no list."""
    result = [_list(text) for text in column.cat.categories]
    places = column.cat.codes.to_numpy()
    wrong = np.array([found is None for found in result], bool)[places]
    problems.say("labels that are no list", wrong, lambda place: (
        f"{name}, row {column.index[place]}: Labels is {column.iloc[place]!r}; expected a list like "
        "['pleural effusion', 'scoliosis']"), REFUSED)
    return result


def _list(text: str) -> tuple[str, ...] | None:
    if text.strip() in ("", "nan"):
        return ()
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return tuple(str(label).strip() for label in found) if isinstance(found, list) else None


def _kept(name: str, table: pd.DataFrame, lists: list[tuple[str, ...] | None]
          ) -> tuple[pd.DataFrame, list[tuple[str, ...]]]:
    labels = [found or () for found in lists]
    places = table["Labels"].cat.codes.to_numpy()
    named = np.array([bool(set(found) - {""}) and EXCLUDED not in found for found in labels], bool)[places]
    view = table["Projection"].str.strip().isin(list(PROJECTIONS)).to_numpy()
    if not (named & view).any():
        raise InputError(f"{name}: no frontal or lateral film with labels; is this PadChest?")
    LOG.info("%s: left out %d films of other projections and %d that are excluded or have no labels", name,
             (~view).sum(), (view & ~named).sum())
    return table[named & view], labels


class _Coded(NamedTuple):
    """What the reports say.

    Attributes:
        codes: float32 (films, labels): 1 listed, 0 where the report says normal, NaN.
        own: the labels.
        silent: bool (films,), where silence says nothing.
    """

    codes: np.ndarray
    own: list[str]
    silent: np.ndarray


def _codes(column: pd.Series, lists: list[tuple[str, ...]]) -> _Coded:
    """What the lists of labels say of each film.

    "normal" is 0 beside any finding; a report that lists both is not normal.
    """
    places = column.cat.codes.to_numpy()
    neutral = {"normal", *SAYS_NOTHING}
    own = sorted({label for found in lists for label in found} - {*SAYS_NOTHING, EXCLUDED}
                 | {label for row in BRIDGE.values() for label in row.own})
    listed = np.array([[label in found for label in own] for found in map(set, lists)], bool)
    normal = np.array(["normal" in found and set(found) <= neutral for found in lists], bool)
    ill = np.array([bool(set(found) - neutral - set(DEVICES)) for found in lists], bool)
    codes = np.where(listed, np.float32(1), np.where(normal[:, None], np.float32(0), np.float32(np.nan)))
    codes[:, own.index("normal")] = np.select([normal, ill], [1, 0], np.nan)
    silent = np.array([not set(found).isdisjoint(SAYS_NOTHING) for found in lists], bool)
    return _Coded(codes[places], own, silent[places])


def _films(folder: Path, name: str, table: pd.DataFrame, options: Options, problems: Problems) -> pd.DataFrame:
    images = film_names(table["ImageID"].str.strip())
    numbered = sorted(place for place in folder.glob("[0-9]*") if place.is_dir())
    found = listing(folder, [*numbered, folder / "images", folder])
    files = [found.get(image, f"{where.strip()}/{image}") for image, where in zip(images, table["ImageDir"])]
    check_paths(name, images.to_numpy(), table.index.to_numpy(), options, problems)
    patient = table["PatientID"].str.strip()
    problems.say("no patient", (patient == "").to_numpy(), lambda place: (
        f"{name}, row {table.index[place]}: PatientID is blank; expected an identifier"), REFUSED)
    position = table["Projection"].str.strip()
    born = pd.to_numeric(table["PatientBirth"], errors="coerce")
    taken = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce")
    return pd.DataFrame({
        "path": images.to_numpy(), "file": files, "patient": patient.to_numpy(),
        "study": table["StudyID"].str.strip().to_numpy(),
        "view": [PROJECTIONS[name][0] for name in position], "projection": [PROJECTIONS[name][1] for name in position],
        "sex": few(table, "PatientSex_DICOM", _SEXES, name, problems, "Unknown"),
        "age": (taken - born).to_numpy(np.float32), "split": "", "row": table.index.to_numpy(), "table": name})
