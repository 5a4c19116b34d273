"""Labels of ChestX-ray14 and CheXpert carried onto each other: a model of one can be scored on the other's films."""

from collections.abc import Sequence

import numpy as np

from ..labels import CHESTXRAY14_LABELS

# CheXpert label -> the ChestX-ray14 labels that it covers; those left out have no counterpart. Effusion is the same
# finding, Pleural_Thickening nearly Pleural Other, Mass or Nodule nearly Lung Lesion (docs/datasets.md). Lung Opacity
# is what CheXpert's tree puts below it, and Infiltration.
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
