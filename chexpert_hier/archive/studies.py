"""A DICOM archive by study: which study a file belongs to, what is no chest film, and one row for each study.

Beyond the tags of `dicom.TAGS` one more is read, StudyInstanceUID: without it the rows would lead nowhere. It is the
only one that reaches the output besides the findings.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..evaluate.aggregate import combine
from ..films import dicom
from .commits import ResultStore
from .places import Place

FOLDER = "studies"
FILMS_AT_ONCE = 2_000_000  # held in memory while films become studies


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        study: its StudyInstanceUID; "" where it has none or is no DICOM.
        other: why it is no chest film, e.g. "modality CT"; "" where it may be one.
    """

    study: str
    other: str


def header(data: bytes) -> Header:
    """Read a file's header; `data` are its bytes. What cannot be read is left to the film's reader to name."""
    if not dicom.is_dicom(data):
        return Header("", "no DICOM file")
    try:
        import pydicom
    except ImportError:
        return Header("", "")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # else its warnings quote the values
    tags = ["StudyInstanceUID", "Modality", "BodyPartExamined", "Rows"]
    try:
        head = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=tags, stop_before_pixels=True)
        study, modality, part = (str(head.get(tag) or "").strip() for tag in tags[:3])
        return Header(study, _other(modality.upper(), part.upper(), "Rows" in head))
    except Exception:  # whatever a damaged file brings about
        return Header("", "")


def _other(modality: str, part: str, picture: bool) -> str:
    if modality and modality not in dicom.MODALITIES:
        return f"modality {modality[:16]}"
    if part and not any(name in part for name in dicom.CHESTS):
        return "another body part"
    return "" if picture else "no picture"


def write(store: ResultStore, labels: Sequence[str], rule: str, films: int) -> int:
    """One row for each study, below `studies` in the job's folder: the films' probabilities by the recipe's rule.

    Args:
        store: the job's finished films.
        labels: the findings.
        rule: one of evaluate.aggregate.RULES.
        films: how many the job has; they are gone through in as many passes as memory needs.

    Returns:
        how many studies. A study none of whose films was answered has blank findings and an error.
    """
    folder = store.out / FOLDER
    for old in folder.files(".parquet"):
        old.remove()
    passes = -(-films // FILMS_AT_ONCE)
    return sum(_write_part(store, folder, labels, rule, number, passes) for number in range(passes))


def _write_part(store: ResultStore, folder: Place, labels: Sequence[str], rule: str, number: int, passes: int) -> int:
    columns = ["id", "study", "skipped", "error", *labels]
    parts = [_of_part(table.to_pandas(), number, passes) for table in store.tables(columns)]
    table = pd.concat(parts, ignore_index=True)
    studies = of_films(table, labels, rule)
    if len(studies):
        text = io.BytesIO()
        studies.to_parquet(text, index=False)
        (folder / f"{number:06d}.parquet").write(text.getvalue())
    return len(studies)


def _of_part(table: pd.DataFrame, number: int, passes: int) -> pd.DataFrame:
    """The films of the studies that one pass takes; those of no study are left out."""
    table = table[table["study"].notna() & (table["study"] != "")]
    mine = [zlib.crc32(study.encode()) % passes == number for study in table["study"]]
    return table[np.array(mine, bool)]


def of_films(table: pd.DataFrame, labels: Sequence[str], rule: str) -> pd.DataFrame:
    """Studies from films.

    Args:
        table: id, study, skipped and error (missing where nothing is wrong), and the labels.
        labels: the findings.
        rule: one of evaluate.aggregate.RULES.

    Returns:
        study, id (of its first film), films (answered), skipped, failed, the labels and error, by id.
    """
    table = table.sort_values("id", ignore_index=True)
    answered = table["error"].isna() & table["skipped"].isna()
    by_study = table.assign(answered=answered, no_film=table["skipped"].notna(), bad=table["error"].notna()) \
        .groupby("study", sort=False)
    out = by_study.agg(id=("id", "min"), films=("answered", "sum"), skipped=("no_film", "sum"), failed=("bad", "sum"))
    good = table[answered]
    group, names = pd.factorize(good["study"])
    for label in labels:
        scores = pd.Series(combine(good[label].to_numpy(float), group, rule), names, dtype="float32")
        out[label] = scores.reindex(out.index)
    out["error"] = np.where(out["films"] > 0, None, "none of its films could be answered")
    return out.reset_index()
