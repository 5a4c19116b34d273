"""Read a cache of prepared crops, after checking that it belongs to these films, this split and these sizes."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import schema
from ..datasets.dataset import Dataset
from ..errors import InputError
from ..films import batches
from ..films.template import Cropper, read_template
from ..labels import key
from ..recipes import Recipe
from .croppers import search_report, template_file, views_of

CHECKED_FILMS = 64  # films whose checksum is compared when a cache is opened
# The recipe's fields that decide the crops, beside the template's.
GEOMETRY = ("crop", "rescaled_size", "crop_size", "resize", "least_match")
COLUMNS = ("path", "patient", "split", "view", "row", "col", "score", "sha256")


@dataclass(frozen=True)
class Geometry:
    """The fields of GEOMETRY, as meta.json has them."""

    crop: str
    rescaled_size: int
    crop_size: int
    resize: str
    least_match: float = -1.0  # version 0.1 had none


@dataclass(frozen=True)
class Meta:
    """meta.json; those with defaults are there once the cache is finished."""

    films: int
    geometry: Geometry
    complete: bool
    templates: dict[str, str] = field(default_factory=dict)
    pixel_mean: Any = None  # NaN without training films, which is no number to `schema`
    pixel_std: Any = None
    skipped: int = 0


@dataclass(frozen=True, eq=False)
class Cache:
    """A finished cache.

    Attributes:
        folder: where it lies.
        crops: uint8 (films, c, c), memory-mapped, read only.
        index: one row per film, in the order of `crops`: path, patient, split, view, row and col (the crop's upper
            left corner in the rescaled film), score (NaN where nothing was matched), sha256 of the source file (blank:
            the film could not be read and its crop is black).
        meta: how it was made; pixel_mean and pixel_std of the training crops on 0 to 1.
        croppers: view -> how its films became crops.
    """

    folder: Path
    crops: np.ndarray
    index: pd.DataFrame
    meta: dict
    croppers: dict[str, Cropper]

    @classmethod
    def open(cls, folder: str | os.PathLike, dataset: Dataset | None = None, recipe: Recipe | None = None) -> "Cache":
        """Open a finished cache and check that it fits.

        Args:
            folder: what `prepare` wrote.
            dataset: films that shall be read from it; see `rows`.
            recipe: asks for the same crops (mode, sizes, resize, views).

        Raises:
            InputError: unfinished, damaged, or made for other films, another split or other sizes.
        """
        folder = Path(folder)
        meta = read_meta(folder)
        if meta is None or not meta["complete"]:
            raise InputError(f"{folder}: {'no finished cache' if meta is None else 'is not finished'}; make it with "
                             f"python -m chexpert_hier.prepare --data DIR --out {folder} --resume")
        if recipe is not None:
            _same_geometry(folder, meta, recipe)
        try:
            crops = np.load(folder / "crops.npy", mmap_mode="r", allow_pickle=False)
            index = pd.read_csv(folder / "index.csv", usecols=COLUMNS, keep_default_na=False, dtype={
                name: str for name in COLUMNS if name not in ("row", "col", "score")}, na_values={"score": [""]})
            index = index.astype({"row": np.int64, "col": np.int64, "score": float})
        except (OSError, ValueError, MemoryError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{folder}: is damaged ({reason}); remove it and prepare again") from None
        side = meta["geometry"]["crop_size"]
        if crops.dtype != np.uint8 or crops.shape != (meta["films"], side, side) or len(index) != meta["films"]:
            raise InputError(f"{folder}: is damaged: expected {meta['films']} crops of {side} pixels, found "
                             f"{crops.shape} and {len(index)} rows in index.csv; remove it and prepare again")
        cache = cls(folder, crops, index, meta, _croppers(folder, meta))
        if dataset is not None:
            cache.rows(dataset)
        return cache

    @cached_property
    def _place(self) -> dict[str, int]:
        return {key(path): place for place, path in enumerate(self.index["path"])}

    def rows(self, dataset: Dataset) -> np.ndarray:
        """Where a data set's films stand in `crops`: int64 (films,).

        Raises:
            InputError: a film is not there, is another patient's, belongs to another split (its template may have been
                learned from what is now validation), could not be read, or its file has changed.
        """
        paths = dataset.films["path"].to_numpy()
        places = np.array([self._place.get(name, -1) for name in dataset.keys], np.int64)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            raise InputError(f"{self.folder}: made for other films: {paths[missing[0]]} is not in it ({len(missing)} "
                             f"of {len(dataset)} are not); prepare this data set in another folder")
        for column in ("split", "patient"):
            own, asked = self.index[column].to_numpy()[places], dataset.films[column].to_numpy()
            wrong = np.flatnonzero(own != asked)
            if len(wrong):
                raise InputError(f"{self.folder}: made for another split or CSV: {paths[wrong[0]]} has {column} "
                                 f"{own[wrong[0]]}, now {asked[wrong[0]]}; prepare this data set in another folder")
        bad = np.flatnonzero(self.index["sha256"].to_numpy()[places] == "")
        if len(bad):
            raise InputError(f"{self.folder}: {paths[bad[0]]} could not be read when the cache was made (see "
                             "skipped.csv); use --skip-bad")
        self._compare_some(dataset, places)
        return places

    def _compare_some(self, dataset: Dataset, places: np.ndarray) -> None:
        """Compare the checksums of a few source files, where they are at hand (a cache may travel without them)."""
        chosen = np.random.default_rng(0).permutation(len(places))[:CHECKED_FILMS]
        for place in chosen:
            file = dataset.files[place]
            if file.is_file() and sha256(file.read_bytes()) != self.index["sha256"].iloc[places[place]]:
                raise InputError(f"{self.folder}: {file} has changed since the cache was made; prepare it again")

    def source(self, dataset: Dataset) -> batches.CropSource:
        """The data set's crops, in its order."""
        places = self.rows(dataset)
        whole = np.array_equal(places, np.arange(len(self.crops)))
        return batches.CropSource(self.crops, None if whole else places)

    def readable(self, dataset: Dataset) -> np.ndarray:
        """bool (films,): False for the films that are known to be unreadable."""
        bad = {key(path) for path in self.index["path"][self.index["sha256"] == ""]}
        return np.array([name not in bad for name in dataset.keys], bool)

    def search(self) -> dict[str, dict[str, float]]:
        """View -> `search_report` of all its films; empty where no template was matched."""
        views = self.index["view"].to_numpy()
        places, scores = self.index[["row", "col"]].to_numpy(), self.index["score"].to_numpy(float)
        return {view: search_report(places[views == view], scores[views == view], cropper)
                for view, cropper in self.croppers.items() if cropper.mode == "template"}

    @property
    def pixel_statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of all pixels of the training crops, on 0 to 1."""
        return self.meta["pixel_mean"], self.meta["pixel_std"]


def read_meta(folder: Path) -> dict | None:
    """meta.json of a cache, finished or not; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    path, again = folder / "meta.json", "remove the folder and prepare again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {again}") from None
    meta = schema.read(Meta, found, f"{path}", extras=True)
    if meta.complete and not (meta.templates and all(isinstance(one, float) for one in (meta.pixel_mean,
                                                                                        meta.pixel_std))):
        raise InputError(f"{path}: templates, pixel_mean or pixel_std are missing; {again}")
    return found


def _same_geometry(folder: Path, meta: dict, recipe: Recipe) -> None:
    theirs = {"least_match": -1.0, **meta["geometry"]}
    for name in GEOMETRY:
        if theirs[name] != getattr(recipe, name):
            raise InputError(f"{folder}: holds crops made with {name} {theirs[name]}, the recipe asks for "
                             f"{getattr(recipe, name)}; prepare it in another folder")
    missing = set(views_of(recipe)) - set(meta["templates"])
    if missing:
        raise InputError(f"{folder}: holds no {', '.join(sorted(missing)).lower()} films; prepare it with --views "
                         f"{recipe.views}")


def _croppers(folder: Path, meta: dict) -> dict[str, Cropper]:
    """The croppers from the folder's templates, which must be those that the crops were made with."""
    geometry = meta["geometry"]
    croppers = {}
    for view, identity in meta["templates"].items():
        template = None
        if geometry["crop"] == "template":
            template = read_template(folder / template_file(view))
        croppers[view] = Cropper(geometry["crop"], template, geometry["rescaled_size"], geometry["crop_size"],
                                 geometry["resize"], geometry.get("least_match", -1.0))
        if croppers[view].identity != identity:
            raise InputError(f"{folder}: {template_file(view)} is not the one its crops were made with; remove "
                             "the folder and prepare again")
    return croppers


def sha256(data: bytes) -> str:
    """Checksum in hex."""
    return hashlib.sha256(data).hexdigest()
