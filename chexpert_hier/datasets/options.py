"""What goes into a reader and what comes out."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Options:
    """How a data set is read; travels whole from the command to the reader.

    Attributes:
        reader: one of `datasets.READERS`.
        labels: the label columns; None takes the reader's own. CheXpert's labels may be asked of every data set.
        views: "frontal", "lateral" or "both".
        limit: keep at most so many training films: whole patients in an order drawn from `seed`, until the next one
            would not fit (the first is always kept). Counted after the choice of views.
        seed: of the limit and of a split drawn here.
        train_file: the table of the training films, e.g. "train_visualCheXbert.csv", or of labels where a reader has a
            choice (see there).
        split: "auto": the data set's own where it has one, else drawn by patient; "official": its own; "seeded":
            drawn; "paper": drawn 70/10/20 (CheXNet, section 3).
        fractions: of the patients in train, valid and test, where the split is drawn; None takes the reader's.
        allow_outside: paths and links may leave the data folder.
    """

    reader: str = "chexpert"
    labels: tuple[str, ...] | None = None
    views: str = "frontal"
    limit: int | None = None
    seed: int = 0
    train_file: str = "train.csv"
    split: str = "auto"
    fractions: tuple[float, float, float] | None = None
    allow_outside: bool = False

    @property
    def drawn(self) -> bool:
        """Whether the split is drawn whatever the data set says."""
        return self.split in ("seeded", "paper")


@dataclass(frozen=True)
class Source:
    """What a reader gives.

    Attributes:
        root: the folder that the films' `file` is relative to.
        films: the table of `datasets.Dataset`; a split "" is to be drawn.
        labels: names of its label columns.
        fractions: of the patients that go to train, valid and test where the split is drawn.
        people: whose patients these are, where data sets share them (CheXpert Plus has CheXpert's); "" for its own.
    """

    root: Path
    films: pd.DataFrame
    labels: tuple[str, ...]
    fractions: tuple[float, float, float] = (0.9, 0.1, 0.0)
    people: str = ""
