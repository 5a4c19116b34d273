"""The one table that every reader fills and everything else reads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import one_of
from ..labels import UNKNOWN as UNKNOWN_CODE
from ..labels import key
from ..paths import unescaped

SPLITS = ("train", "valid", "test")
UNKNOWN = "unknown"  # the column


@dataclass(frozen=True, eq=False)
class Dataset:
    """Films with what is known about them, in the order of the files.

    Attributes:
        name: of the folder, or of several joined by " + ".
        root: the folder that the films lie under; of the first where there are several.
        films: one row per film: path (as in the CSV, in the written form of `paths`), file (relative to its root),
            patient, study, view ("Frontal", "Lateral"), projection ("AP", "PA", "LL", "RL", ""), sex ("Male",
            "Female", "Unknown"), age (years, NaN), split ("train", "valid", "test"), row and table (where the film
            stands; the header is row 1), and per label its raw code: 1, 0, -1 or NaN (blank, or unknown). Where there
            are such: unknown, the labels that the data set cannot say of a film, joined by |; set, the name of the data
            set among several.
        labels: names of the label columns.
        roots: where there are several data sets: name -> folder.
    """

    name: str
    root: Path
    films: pd.DataFrame
    labels: tuple[str, ...]
    roots: Mapping[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.films)

    def split(self, name: str) -> "Dataset":
        """The films of "train", "valid" or "test"."""
        one_of("split", name, SPLITS)
        return self.select(self.films["split"].to_numpy() == name)

    def select(self, mask: np.ndarray) -> "Dataset":
        """The films at a bool mask or at places (which may repeat), in that order."""
        mask = np.asarray(mask)
        places = np.flatnonzero(mask) if mask.dtype == bool else mask
        return replace(self, films=self.films.iloc[places].reset_index(drop=True))

    @cached_property
    def raw(self) -> np.ndarray:
        """float32 (films, labels): 1, 0, -1 or NaN (blank, or unknown)."""
        return self.films[list(self.labels)].to_numpy(np.float32)

    @cached_property
    def known(self) -> np.ndarray:
        """bool (films, labels): False where the data set cannot say, so that no rule on blanks makes it negative."""
        if UNKNOWN not in self.films:
            return np.ones((len(self), len(self.labels)), bool)
        texts, places = np.unique(self.films[UNKNOWN].to_numpy(str), return_inverse=True)
        parts = [frozenset(text.split("|")) for text in texts]
        said = np.array([[label not in names for label in self.labels] for names in parts], bool)
        return said.reshape(-1, len(self.labels))[places]

    @cached_property
    def codes(self) -> np.ndarray:
        """`raw`, with labels.UNKNOWN where it is not `known`: what `labels.targets` takes."""
        return np.where(self.known, self.raw, np.float32(UNKNOWN_CODE))

    @property
    def truth(self) -> np.ndarray:
        """`raw` for a truth file: -1, which is left out there, where it is not `known`."""
        return np.where(self.known, self.raw, np.float32(-1))

    @property
    def sets(self) -> np.ndarray:
        """str (films,): which data set each film is of."""
        return self.films["set"].to_numpy(object) if "set" in self.films else np.full(len(self), self.name, object)

    @cached_property
    def keys(self) -> np.ndarray:
        """str (films,): the paths after their first "/", by which films are joined and drawn."""
        return np.array([key(path) for path in self.films["path"]], object)

    @cached_property
    def files(self) -> list[Path]:
        """Where each film lies."""
        names = [unescaped(file) for file in self.films["file"]]
        if not self.roots:
            return [self.root / name for name in names]
        return [self.roots[own] / name for own, name in zip(self.sets, names)]

    def describe(self) -> str:
        """One line: films, studies and patients of each split."""
        parts = []
        for split in SPLITS:
            films = self.films[self.films["split"] == split]
            if len(films):
                parts.append(f"{split} {len(films):,} films of {films['study'].nunique():,} studies and "
                             f"{films['patient'].nunique():,} patients")
        return f"{self.name}: {'; '.join(parts)}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of keys, splits, patients, views, label names and raw labels; the films are not opened."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for column in (self.keys.tolist(), *(self.films[name].tolist() for name in ("split", "patient", "view"))):
            digest.update("\n".join(column).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(np.nan_to_num(self.raw, nan=2.0).astype("<f4").tobytes())
        if not self.known.all():  # a table without unknown cells has the fingerprint that version 0.1 gave it
            digest.update(np.packbits(self.known).tobytes())
        return digest.hexdigest()
