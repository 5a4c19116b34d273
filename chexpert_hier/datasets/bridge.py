"""Labels of other data sets carried onto CheXpert's 14: a model of one can be trained or scored on the other's films.

What a data set cannot say is unknown, never negative by silence: NaN in the codes, and marked so that no blank rule
makes it negative. A blank cell, which a report that does not mention the finding gives, is another matter.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError
from ..labels import CHESTXRAY14_LABELS, CHEXPERT_LABELS
from .dataset import UNKNOWN

NO_FINDING, DEVICES = "No Finding", "Support Devices"


class Row(NamedTuple):
    """Where one of CheXpert's labels comes from.

    Attributes:
        own: the data set's labels, any of which makes it present.
        absent: whether it is absent where all of them are; else it is unknown there.
        source: where the decision comes from, and what does not match.
    """

    own: tuple[str, ...]
    absent: bool
    source: str


class Bridged(NamedTuple):
    """Codes of the wanted labels.

    Attributes:
        raw: float32 (films, labels): 1, 0, -1 or NaN.
        unknown: bool (films, labels): NaN because the data set cannot say, not because the cell is blank.
    """

    raw: np.ndarray
    unknown: np.ndarray


def bridged(codes: np.ndarray, own: Sequence[str], bridge: Mapping[str, Row], wanted: Sequence[str],
            normal: np.ndarray | None = None) -> Bridged:
    """Carry a data set's own codes onto the wanted labels.

    Args:
        codes: float32 (films, own): 1, 0, -1 or NaN (blank).
        own: names of its columns.
        bridge: CheXpert's label -> row. A label without a row is unknown, but for normal films.
        wanted: names of the result's columns: CheXpert's, or else some of `own`, which are copied.
        normal: bool (films,): the data set says that there is nothing: what is not present there is absent, but
            Support Devices, which a normal film may show.
    """
    if not set(wanted) <= set(CHEXPERT_LABELS):
        bridge, normal = {}, None
    place = {name: column for column, name in enumerate(own)}
    raw = np.full((len(codes), len(wanted)), np.nan, np.float32)
    unknown = np.ones(raw.shape, bool)
    for column, name in enumerate(wanted):
        row = bridge.get(name) if bridge else Row((name,), True, "")
        if row is not None:
            part = codes[:, [place[label] for label in row.own]]
            raw[:, column], unknown[:, column] = _joined(part, row.absent)
        if normal is not None and name not in (NO_FINDING, DEVICES):
            clear = normal & np.isnan(raw[:, column])
            raw[clear, column], unknown[clear, column] = 0, False
    return Bridged(raw, unknown)


def _joined(codes: np.ndarray, absent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Codes (films,) and what is unknown of them, from the codes (films, k) of the labels that make it present."""
    none = (codes == 0).all(axis=1)
    conditions = [(codes == 1).any(axis=1), (codes == -1).any(axis=1), none & absent]
    return np.select(conditions, [1.0, -1.0, 0.0], np.nan).astype(np.float32), none & (not absent)


def chosen_labels(asked: tuple[str, ...] | None, own: Sequence[str]) -> tuple[str, ...]:
    """The labels that a bridged data set shall give: CheXpert's 14 unless asked otherwise.

    Raises:
        InputError: a label that is neither CheXpert's nor its own, or some of both.
    """
    wanted = asked or CHEXPERT_LABELS
    if set(wanted) <= set(CHEXPERT_LABELS) or set(wanted) <= set(own):
        return wanted
    unknown = [name for name in wanted if name not in (*CHEXPERT_LABELS, *own)]
    if not unknown:
        raise InputError(f"labels are {', '.join(wanted)}; expected either CheXpert's or the data set's own, not both")
    near = difflib.get_close_matches(unknown[0], [*CHEXPERT_LABELS, *own], 3) or own[:20]
    raise InputError(f"label {unknown[0]!r}: the data set has none of that name; expected e.g. {', '.join(near)}")


def assembled(films: pd.DataFrame, found: Bridged, labels: Sequence[str]) -> pd.DataFrame:
    """The table of a `Source`: what is known of the films, their codes, and which labels are unknown."""
    raw = pd.DataFrame(found.raw, columns=list(labels))
    return pd.concat([films.reset_index(drop=True).assign(**{UNKNOWN: unknown_text(found.unknown, labels)}), raw],
                     axis=1)


def unknown_text(unknown: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Names of the labels that are unknown, joined by |, from a mask (films, labels): object (films,)."""
    patterns, place = np.unique(unknown, axis=0, return_inverse=True)
    texts = np.array(["|".join(np.array(labels)[pattern]) for pattern in patterns], object)
    return texts[place.ravel()] if len(unknown) else np.array([], object)


# CheXpert label -> the ChestX-ray14 labels that it covers; those left out have no counterpart. Effusion is the same
# finding, Pleural_Thickening nearly Pleural Other, Mass or Nodule nearly Lung Lesion (words of CheXpert's labeler).
# Lung Opacity is what CheXpert's tree puts below it, and Infiltration.
CHEXPERT_FROM_CHESTXRAY14: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": ("Cardiomegaly",),
    "Lung Opacity": ("Infiltration", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Mass", "Nodule"),
    "Lung Lesion": ("Mass", "Nodule"),
    "Edema": ("Edema",),
    "Consolidation": ("Consolidation",),
    "Pneumonia": ("Pneumonia",),
    "Atelectasis": ("Atelectasis",),
    "Pneumothorax": ("Pneumothorax",),
    "Pleural Effusion": ("Effusion",),
    "Pleural Other": ("Pleural_Thickening",),
}


def translate(values: np.ndarray, labels: Sequence[str], wanted: Sequence[str], *, scores: bool = False) -> np.ndarray:
    """Carry truth or scores from ChestX-ray14's labels to CheXpert's or back, where a counterpart exists.

    One label that covers several takes the greatest of them. Backwards, a positive covering label does not tell which
    of the several it is: truth is then NaN, while a score is passed on as it is. No Finding is 1 where all 14 labels
    of ChestX-ray14 are 0.

    Args:
        values: (films, labels), truth 1, 0, NaN or scores in [0, 1].
        labels: names of the columns of `values`.
        wanted: names of the columns of the result; a name that is among `labels` is copied.
        scores: `values` are a model's scores, not truth.

    Returns:
        float32 (films, wanted), NaN where there is no counterpart.
    """
    values = np.asarray(values, np.float32)
    place = {label: index for index, label in enumerate(labels)}
    result = np.full((len(values), len(wanted)), np.nan, np.float32)
    for column, name in enumerate(wanted):
        covering = [above for above, below in CHEXPERT_FROM_CHESTXRAY14.items() if name in below and above in place]
        narrow = min(covering, key=lambda above: len(CHEXPERT_FROM_CHESTXRAY14[above]), default=None)
        sources = [place[below] for below in CHEXPERT_FROM_CHESTXRAY14.get(name, ()) if below in place]
        if name in place:
            result[:, column] = values[:, place[name]]
        elif sources and len(sources) == len(CHEXPERT_FROM_CHESTXRAY14[name]):
            result[:, column] = values[:, sources].max(axis=1)
        elif narrow is not None and narrow != "Lung Opacity":
            several = len(CHEXPERT_FROM_CHESTXRAY14[narrow]) > 1
            found = values[:, place[narrow]]
            result[:, column] = np.where(found == 1, np.nan, found) if several and not scores else found
        elif name == "No Finding" and set(CHESTXRAY14_LABELS) <= place.keys() and not scores:
            result[:, column] = (values[:, [place[label] for label in CHESTXRAY14_LABELS]] == 0).all(axis=1)
    return result
