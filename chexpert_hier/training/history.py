"""log.csv: how the network does on the validation films after every epoch."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .. import labels
from ..evaluate import auroc
from ..files import write_text
from ..network.losses import BCE, MaskedLoss
from ..network.model import present

COLUMNS = ("stage", "epoch", "learning_rate", "films", "loss", "valid_loss", "valid_auroc", "valid_auroc_labels",
           "seconds")


def validated(loss: MaskedLoss, outputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """An epoch's columns on the validation films: the stage's loss, and the mean AUROC of the five labels of CheXpert's
    competition (of all labels where there are none of these) with the number of labels that have one.

    Args:
        loss: the stage's own; three classes are judged as two, by the cross-entropy of positive against negative
            (CheXpertNet, section 4.3).
        outputs: float32 (n, labels), or (n, labels, 3) for three classes.
        targets: (n, labels), never smoothed: 1, 0, NaN where the label is uncertain or does not count.
        names: the labels.
    """
    if outputs.ndim == 3:
        loss, outputs = BCE(), present(outputs)
    value = float(keras.ops.convert_to_numpy(loss(targets, outputs)))
    five = [names.index(label) for label in labels.COMPETITION_LABELS if label in names] or list(range(len(names)))
    areas = np.array([auroc(outputs[counts, k], targets[counts, k])
                      for k in five for counts in [~np.isnan(targets[:, k])]])
    known = ~np.isnan(areas)
    return {"valid_loss": value, "valid_auroc": float(areas[known].mean()) if known.any() else float("nan"),
            "valid_auroc_labels": int(known.sum())}


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write log.csv whole: one row per finished epoch of every stage."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator=os.linesep)
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(path, text.getvalue())
