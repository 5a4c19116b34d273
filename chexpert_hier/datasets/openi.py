"""The reader of Open-i's chest films (Indiana University; Demner-Fushman et al. 2016): findings coded by hand.

A heading of the report's codes is present; silence is blank, as in CheXpert; "normal" says that findings are absent.
"""

import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from .bridge import Bridged, Row, assembled, bridged, chosen_labels
from .cells import REFUSED, check_paths, film_names, listing
from .options import Options, Source
from .tables import Problems, read_table, require_columns

LOG = logging.getLogger("chexpert_hier.datasets")
REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
XML = "ecgen-radiology"
VIEWS = ("Frontal", "Lateral")
SAYS_NOTHING = ("no indexing", "technical quality of image unsatisfactory")
UNCERTAIN = "borderline"  # a qualifier: the finding is uncertain

_LESIONS = ("nodule/lung", "mass/lung", "cavitation/lung")
_EDEMA = ("pulmonary edema", "pulmonary congestion", "heart failure")
# Headings in lower case, with a qualifier where only that place is meant. "Labeler": the words of CheXpert's labeler.
BRIDGE: dict[str, Row] = {
    "No Finding": Row(("normal",), True, "the code for a report without findings; any other code makes it 0, unless "
                      "only devices are coded"),
    "Enlarged Cardiomediastinum": Row(("cardiomegaly", "cardiac shadow/enlarged", "mediastinum/prominent"), True,
                                      "labeler: mediastinum; CheXpert's tree: Cardiomegaly"),
    "Cardiomegaly": Row(("cardiomegaly", "cardiac shadow/enlarged"), True, "labeler: cardiomegaly, cardiac shadow"),
    "Lung Opacity": Row(
        ("opacity/lung", "opacity/retrocardiac", "density/lung", "airspace disease", "infiltrate/lung", "cicatrix/lung",
         "lung diseases, interstitial", "consolidation", "pneumonia", "pulmonary atelectasis", *_LESIONS,
         *_EDEMA), True,
        "labeler: opacity, increased density, airspace disease, infiltrate, scar, interstitial lung; CheXpert's tree: "
        "the five findings below it. Opacities of ribs, pleura or mediastinum, and markings, are left out"),
    "Lung Lesion": Row(_LESIONS, True, "labeler: nodule, mass, cavitary lesion. Granuloma is left out"),
    "Edema": Row(_EDEMA, True, "labeler: edema, pulmonary congestion, heart failure"),
    "Consolidation": Row(("consolidation",), True, "same finding"),
    "Pneumonia": Row(("pneumonia",), True, "same finding"),
    "Atelectasis": Row(("pulmonary atelectasis",), True, "same finding"),
    "Pneumothorax": Row(("pneumothorax", "hydropneumothorax", "hemopneumothorax"), True, "air in the pleura"),
    "Pleural Effusion": Row(("pleural effusion", "hydropneumothorax", "hemopneumothorax", "hemothorax"), True,
                            "fluid in the pleura. A blunted costophrenic angle is left out"),
    "Pleural Other": Row(("thickening/pleura", "cicatrix/pleura"), True, "labeler: pleural thickening, pleural scar"),
    "Fracture": Row(("fractures, bone",), True, "same finding. Deformity of ribs is left out"),
    "Support Devices": Row(("catheters, indwelling", "implanted medical device", "medical device", "tube, inserted"),
                           True, "labeler: catheter, device, tube. Surgical clips, stents and sutures are left out"),
}


class _Report(NamedTuple):
    """The codes of one report, and where it stands."""

    terms: tuple[str, ...]
    table: str
    row: int


def reader(folder: Path, options: Options, problems: Problems) -> Source:
    """Open-i: indiana_reports.csv (or the NLM's ecgen-radiology/*.xml) and indiana_projections.csv, films in images/.

    The NLM's own files do not tell frontal from lateral films, which is what indiana_projections.csv is for. Each
    report is a patient of its own. A split is drawn.

    Raises:
        InputError: a missing table, a film without a report, an unknown projection.
    """
    path = folder / PROJECTIONS
    if not path.is_file():
        raise InputError(f"{folder}: no {PROJECTIONS} in this folder; it tells frontal from lateral films")
    table = read_table(path)
    require_columns(path, table, ("uid", "filename", "projection"), "Is this Open-i's table of projections?")
    reports = _reports(folder)
    uid = table["uid"].str.strip()
    problems.say("no report", ~uid.isin(list(reports)).to_numpy(), lambda place: (
        f"{path.name}, row {table.index[place]}: no report of uid {uid.iloc[place]}"), REFUSED)
    table = table[uid.isin(list(reports)).to_numpy()]
    own = tuple(dict.fromkeys(name for row in BRIDGE.values() for name in row.own))
    wanted = chosen_labels(options.labels, own)
    names = list(reports)
    coded = np.stack([_codes(reports[name].terms, own) for name in names])
    at = np.array([names.index(name) for name in names])  # uid -> place
    places = pd.Series(at, index=names).loc[table["uid"].str.strip()].to_numpy()
    silent = np.array([_says_nothing(reports[name].terms) for name in names], bool)[places]
    found = bridged(coded[places], own, BRIDGE, wanted, normal=coded[places][:, 0] == 1)
    found = Bridged(found.raw, found.unknown | (np.isnan(found.raw) & silent[:, None]))
    return Source(folder, assembled(_films(folder, table, options, problems), found, wanted), wanted)


def _reports(folder: Path) -> dict[str, _Report]:
    """uid -> report.

    Raises:
        InputError: neither the table nor the XML files, or a file that is no report.
    """
    path = folder / REPORTS
    if path.is_file():
        table = read_table(path, keep=("uid", "MeSH"))
        require_columns(path, table, ("uid", "MeSH"), "Is this Open-i's table of reports?")
        return {uid.strip(): _Report(_terms(text.split(";")), path.name, int(row))
                for uid, text, row in zip(table["uid"], table["MeSH"], table.index)}
    files = sorted((folder / XML).glob("*.xml"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise InputError(f"{folder}: no {REPORTS} and no {XML}/*.xml in this folder; is this Open-i's collection?")
    return {file.stem: _xml(file) for file in files}


def _xml(file: Path) -> _Report:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{file}: not a report of Open-i ({error})") from None
    return _Report(_terms(node.text or "" for node in root.findall(".//MeSH/major")), file.name, 1)


def _terms(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.strip().lower() for text in texts if text.strip())


def _codes(terms: tuple[str, ...], own: tuple[str, ...]) -> np.ndarray:
    """float32 (own,): 1 coded, -1 coded as borderline, 0 where the report is normal, else NaN."""
    normal = terms == ("normal",)
    result = np.full(len(own), 0 if normal else np.nan, np.float32)
    for term in terms:
        heading, *qualifiers = (part.strip() for part in term.split("/"))
        for place, name in enumerate(own):
            wanted, _, where = name.partition("/")
            if heading == wanted and (not where or where in qualifiers) and result[place] != 1:
                result[place] = -1 if UNCERTAIN in qualifiers else 1
    devices = BRIDGE["Support Devices"].own
    ill = any(term.split("/")[0].strip() not in ("normal", *SAYS_NOTHING, *devices) for term in terms)
    result[own.index("normal")] = 1 if normal else 0 if ill else np.nan
    return result


def _says_nothing(terms: tuple[str, ...]) -> bool:
    return not terms or any(term in SAYS_NOTHING for term in terms)


def _films(folder: Path, table: pd.DataFrame, options: Options, problems: Problems) -> pd.DataFrame:
    name = film_names(table["filename"].str.strip())
    uid, view = table["uid"].str.strip().to_numpy(), table["projection"].str.strip().str.capitalize()
    problems.say("unknown projection", ~view.isin(VIEWS).to_numpy(), lambda place: (
        f"{PROJECTIONS}, row {table.index[place]}: projection is {view.iloc[place]!r}; expected Frontal or Lateral"),
        REFUSED)
    check_paths(PROJECTIONS, name.to_numpy(), table.index.to_numpy(), options, problems)
    found = listing(folder, [folder / "images" / "images_normalized", folder / "images", folder / "NLMCXR_png", folder])
    files = [found.get(film) or found.get(_at_the_nlm(film)) or f"images/images_normalized/{film}" for film in name]
    return pd.DataFrame({
        "path": name.to_numpy(), "file": files, "patient": uid, "study": uid,
        "view": view.where(view.isin(VIEWS), "Frontal").to_numpy(), "projection": "", "sex": "Unknown",
        "age": np.float32(np.nan), "split": "", "row": table.index.to_numpy(), "table": PROJECTIONS})


def _at_the_nlm(film: str) -> str:
    """The name of a film in the NLM's archive: 1_IM-0001-4001.dcm.png is CXR1_1_IM-0001-4001.png there."""
    stem = film.removesuffix(".png").removesuffix(".dcm")
    return f"CXR{stem}.png"
