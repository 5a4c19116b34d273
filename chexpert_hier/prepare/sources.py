"""Where a run's films come from: their files, decoded in every epoch, or crops that `prepare` keeps.

Joins a data set, the way its films become crops, and the normalisation, and hands batches to Keras on any backend.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from .. import commands
from ..datasets.dataset import Dataset
from ..datasets.joint import read_all
from ..datasets.options import Options
from ..datasets.presence import BadFilm
from ..datasets.splits import frontal_only_fair
from ..errors import InputError
from ..films.batches import Batches, CropSource, FilmSource, crop_batches, stream
from ..films.decode import read_film
from ..films.normalisation import Normalisation
from ..films.template import Cropper, write_template
from ..recipes import Recipe
from .croppers import in_words, learn_croppers, look_at_search, row_names, template_file, views_of

log = logging.getLogger("chexpert_hier.prepare")


@dataclass(frozen=True)
class Films:
    """Films as training sees them: raw labels in memory, pixels on demand.

    Attributes:
        dataset: what is known of the films.
        pixels: places -> uint8 (n, c, c) crops; an images.FilmSource or images.CropSource in the data set's order.
        normalisation: how crops become inputs.
        image_size: side of the inputs in pixels.
        plain_view: what stands for augmentations where none are drawn.
    """

    dataset: Dataset
    pixels: FilmSource | CropSource
    normalisation: Normalisation
    image_size: int
    plain_view: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def raw(self) -> np.ndarray:
        """float32 (n, labels): 1, 0, -1, NaN (blank) or labels.UNKNOWN."""
        return self.dataset.codes

    @property
    def keys(self) -> np.ndarray:
        """str (n,), the films' names."""
        return self.dataset.keys

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the columns of `raw`."""
        return self.dataset.labels

    def batches(self, rows: np.ndarray, targets: np.ndarray | None = None, batch_size: int = 32,
                augment: Sequence[str] = (), draw: tuple[int, ...] = (0, 0)) -> Any:
        """Batches of inputs, or of (inputs, targets), in the order of `rows`, for keras' fit (shuffle=False), predict.

        Args:
            rows: int (n,), places in the data set.
            targets: float32 (n, ...) in the order of `rows`.
            batch_size: films in a batch; the last one may be smaller.
            augment: names of augmentations; none gives the plain view.
            draw: whole numbers that the augmentations depend on, with the films' names.
        """
        import keras

        batches = Batches(self.pixels, np.asarray(rows), batch_size, self.normalisation, self.image_size,
                                 targets, augment=augment or self.plain_view, keys=self.dataset.keys, draw=draw)
        return stream(batches) if keras.backend.backend() == "tensorflow" else crop_batches(batches)


@dataclass(frozen=True)
class Source:
    """All films of a run; `films(split)` hands them out.

    Attributes:
        dataset: all splits.
        croppers: view ("Frontal", "Lateral") -> how its films become crops.
        normalisation: how crops become inputs.
        image_size: side of the inputs in pixels.
        crops: the prepared crops in the data set's order, or None when films are decoded from their files.
        plain_view: what stands for augmentations where none are drawn.
    """

    dataset: Dataset
    croppers: dict[str, Cropper]
    normalisation: Normalisation
    image_size: int
    crops: CropSource | None = None
    plain_view: tuple[str, ...] = ()

    def films(self, split: str) -> Films:
        """The films of "train", "valid" or "test"."""
        places = np.flatnonzero(self.dataset.films["split"].to_numpy() == split)
        part = self.dataset.select(places)
        if self.crops is not None:
            at = places if self.crops.at is None else self.crops.at[places]
            pixels = CropSource(self.crops.crops, at)
        else:
            views = list(self.croppers)
            pixels = FilmSource(part.files, list(self.croppers.values()), row_names(part),
                                       [views.index(view) if len(views) > 1 else 0 for view in part.films["view"]])
        return Films(part, pixels, self.normalisation, self.image_size, self.plain_view)


def read_data(recipe: Recipe, data: Path | Sequence[Path], labels: Sequence[str] | None = None,
              limit: int | None = None, *, allow_outside: bool = False) -> Dataset:
    """Read a data set as the recipe wants it: reader, tables, outputs, views, split.

    Args:
        recipe: see its fields.
        data: the folder, or several that are read as one (see `datasets.joint`).
        labels: instead of the recipe's outputs.
        limit, allow_outside: see `datasets.Options`.

    Raises:
        InputError: see `datasets.read`.
    """
    options = Options(recipe.reader, tuple(labels or recipe.outputs) or None,
                      "both" if recipe.fair_frontal else recipe.views, limit, recipe.seed, recipe.train_file,
                      recipe.split, allow_outside=allow_outside)
    dataset = read_all([data] if isinstance(data, Path) else data, options)
    if not recipe.fair_frontal:
        return dataset
    train = (dataset.films["split"] == "train").to_numpy()
    fair = frontal_only_fair(dataset.select(train), recipe.seed)
    others = dataset.select(~train & (dataset.films["view"] == "Frontal").to_numpy())
    return replace(dataset, films=pd.concat([fair.films, others.films], ignore_index=True))


def readable(dataset: Dataset) -> tuple[Dataset, list[BadFilm]]:
    """Open every film once; give the data set without those that cannot be read, and these.

    Raises:
        InputError: none is left.
    """
    def fault(film: tuple[Path, str]) -> str:
        try:
            read_film(*film)
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        named = list(zip(dataset.files, dataset.films["path"]))
        faults = list(commands.progress(pool.map(fault, named), "opening films", len(named)))
    bad = [BadFilm(path, table, int(row), reason) for reason, path, table, row in zip(
        faults, *(dataset.films[name] for name in ("path", "table", "row"))) if reason]
    if len(bad) == len(dataset):
        raise InputError(f"{dataset.root}: none of {len(dataset)} films can be read; the first: {bad[0].reason}")
    return dataset.select(np.array([not reason for reason in faults])), bad


def from_files(dataset: Dataset, recipe: Recipe, folder: Path, native: str) -> Source:
    """Films decoded whenever they are needed.

    Args:
        dataset: all splits.
        recipe: crop, sizes and normalisation.
        folder: the run folder, for the templates.
        native: the backbone's own normalisation, for `normalise="native"`.

    Raises:
        InputError: `normalise="dataset"` needs the statistics that only `prepare` counts.
    """
    if recipe.normalise == "dataset":
        raise InputError("--normalise dataset: the pixel statistics are counted by prepare; add --cache")
    croppers = learn_croppers(dataset, recipe, folder)
    _say(look_at_search(dataset, croppers, recipe.seed), "of the training films looked at")
    return Source(dataset, croppers, Normalisation.named(recipe.normalise, native), recipe.image_size,
                  plain_view=recipe.plain_view)


def from_cache(dataset: Dataset, recipe: Recipe, folder: Path | None, native: str, cache: Path | None = None
               ) -> Source:
    """Crops from a cache, which is made (or finished) first where it is not there yet.

    Args:
        dataset: all splits; some of the cache's films, or all.
        recipe: crop, sizes and normalisation.
        folder: the run folder; the cache's templates are copied into it. None where another process does that.
        native: the backbone's own normalisation, for `normalise="native"`.
        cache: the cache folder; None: beside the run folder, named after films and sizes.

    Raises:
        InputError: the cache belongs to other films, another split or other sizes.
    """
    from . import making
    from .cache import Cache, read_meta

    if cache is None:
        cache = cast(Path, folder).parent / making.cache_name(dataset, recipe)
    meta = read_meta(cache)
    if (meta is not None and meta["complete"]) or folder is None:
        crops = Cache.open(cache, recipe=recipe)
    else:
        log.info("crops are prepared once, in %s", cache)
        crops = making.prepare(dataset, recipe, cache, resume=True)
    for view in views_of(recipe) if recipe.crop == "template" and folder else ():
        write_template(folder / template_file(view), crops.croppers[view].template)
    _say(crops.search())
    how = Normalisation.named(recipe.normalise, native, crops.pixel_statistics)
    croppers = {view: crops.croppers[view] for view in views_of(recipe)}
    return Source(dataset, croppers, how, recipe.image_size, crops.source(dataset), recipe.plain_view)


def _say(reports: dict[str, dict[str, float]], which: str = "") -> None:
    for view, report in reports.items():
        log.info("%s films%s: %s", view.lower(), f" ({which})" if which else "", in_words(report))
