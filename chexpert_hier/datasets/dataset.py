"""The one table that every reader fills and everything else reads."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import one_of
from ..labels import key

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Films with what is known about them, in the order of the files.

    Attributes:
        name: of the folder.
        root: the folder that the films lie under.
        films: one row per film: path (as in the CSV), file (relative to root), patient, study, view ("Frontal",
            "Lateral"), projection ("AP", "PA", "LL", "RL", ""), sex ("Male", "Female", "Unknown"), age (years, NaN),
            split ("train", "valid", "test"), row and table (where the film stands; the header is row 1), and per label
            its raw code: 1, 0, -1 or NaN (blank).
        labels: names of the label columns.
    """

    name: str
    root: Path
    films: pd.DataFrame
    labels: tuple[str, ...]

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
        """float32 (films, labels): 1, 0, -1 or NaN (blank)."""
        return self.films[list(self.labels)].to_numpy(np.float32)

    @cached_property
    def keys(self) -> np.ndarray:
        """str (films,): the paths after their first "/", by which films are joined and drawn."""
        return np.array([key(path) for path in self.films["path"]], object)

    @cached_property
    def files(self) -> list[Path]:
        """Where each film lies."""
        return [self.root / file for file in self.films["file"]]

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
        for column in (self.keys, *(self.films[name] for name in ("split", "patient", "view"))):
            digest.update("\n".join(column).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(np.nan_to_num(self.raw, nan=2.0).astype("<f4").tobytes())
        return digest.hexdigest()


"""The one table that every reader fills and everything else reads."""
