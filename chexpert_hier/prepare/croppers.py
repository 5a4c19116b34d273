"""How a recipe's films become crops: a template per view, learned once and kept in the run's or the cache's folder."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .. import commands
from ..datasets.dataset import Dataset
from ..errors import InputError
from ..films.decode import read_film
from ..films.template import Cropper, learn_template, read_template, write_template
from ..recipes import Recipe


def row_names(dataset: Dataset) -> list[str]:
    """What errors call the films: table, row and path."""
    return [f"{table}, row {row}: {path}" for table, row, path in
            dataset.films[["table", "row", "path"]].itertuples(index=False)]


def template_file(view: str) -> str:
    """The file that holds a view's template, in a run folder."""
    return "template.png" if view == "Frontal" else "template_lateral.png"


def views_of(recipe: Recipe) -> tuple[str, ...]:
    """The views that a recipe trains on, as the view column has them."""
    return ("Frontal", "Lateral") if recipe.views == "both" else (recipe.views.capitalize(),)


def croppers_in(folder: Path, recipe: Recipe) -> dict[str, Cropper]:
    """How a run's films become crops, per view, from the templates in its folder."""
    templates = {view: read_template(folder / template_file(view)) if recipe.crop == "template" else None
                 for view in views_of(recipe)}
    return {view: Cropper(recipe.crop, template, recipe.rescaled_size, recipe.crop_size, recipe.resize,
                          recipe.least_match)
            for view, template in templates.items()}


def learn_croppers(dataset: Dataset, recipe: Recipe, folder: Path, *, skip_bad: bool = False) -> dict[str, Cropper]:
    """Learn each view's template from training films drawn by seed, and keep it in `folder`; those there are reused.

    With `skip_bad` unreadable films among those drawn are passed over.

    Source: Pham et al. 2019, section 4.2; which films is not stated (deviations P2).
    """
    if recipe.crop == "template":
        train = dataset.split("train")
        for number, view in enumerate(views_of(recipe)):
            if (folder / template_file(view)).exists():
                continue
            places = np.flatnonzero(train.films["view"].to_numpy() == view)
            if not len(places):
                raise InputError(f"{dataset.root}: no {view.lower()} training film to learn the template from; use "
                                 "--set crop=centre or other --views")
            chosen = np.random.default_rng([recipe.seed, number]).permutation(places)[:recipe.template_films]
            films = _rescaled(train.select(np.sort(chosen)), recipe, skip_bad)
            write_template(folder / template_file(view), learn_template(films, recipe.crop_size))
    return croppers_in(folder, recipe)


def _rescaled(films: Dataset, recipe: Recipe, skip_bad: bool) -> Iterator[np.ndarray]:
    cropper = Cropper("centre", None, recipe.rescaled_size, recipe.crop_size, recipe.resize)

    def one(film: tuple[Path, str]) -> np.ndarray | None:
        try:
            return cropper.rescale(read_film(*film))
        except InputError:
            if not skip_bad:
                raise
            return None

    with ThreadPoolExecutor() as pool:
        named = zip(films.files, row_names(films))
        for film in commands.progress(pool.map(one, named), "template", len(films)):
            if film is not None:
                yield film


LOW_MATCH = 0.3  # our choice: 4 of 500 films of ChestX-ray14 match less (experiments/results/template_search.md)
LOOKED_AT = 200  # films that are searched to report on the search where no crops are kept


def search_report(places: np.ndarray, scores: np.ndarray, cropper: Cropper) -> dict[str, float]:
    """How the search for the crop went: what is suspicious about it.

    Args:
        places: int (films, 2), row and column of each crop's corner.
        scores: float (films,), the matches; NaN where nothing was matched.
        cropper: what found them.

    Returns:
        films, border (how many ended on the border of the field of places), low (matches below LOW_MATCH) and lowest.
    """
    last = cropper.places - 1
    searched = ~np.isnan(scores)
    border = ((places == 0) | (places == last)).any(axis=1) & searched
    return {"films": int(searched.sum()), "border": int(border.sum()), "low": int((scores[searched] < LOW_MATCH).sum()),
            "lowest": float(np.min(scores[searched], initial=1.0)), "places": cropper.places}


def in_words(report: dict[str, float]) -> str:
    """One line on a `search_report`."""
    return (f"template search: {report['border']:,} of {report['films']:,} films "
            f"({report['border'] / max(report['films'], 1):.0%}) end on the border of the {report['places']} x "
            f"{report['places']} places; {report['low']:,} match below {LOW_MATCH} (lowest {report['lowest']:.2f}; "
            "--set least_match=... crops their centre)")


def look_at_search(dataset: Dataset, croppers: dict[str, Cropper], seed: int) -> dict[str, dict[str, float]]:
    """`search_report` of some training films of each view, drawn by seed; films that cannot be read are passed over."""
    found = {}
    for view, cropper in croppers.items():
        if cropper.mode != "template":
            continue
        train = dataset.select(((dataset.films["split"] == "train") & (dataset.films["view"] == view)).to_numpy())
        chosen = np.random.default_rng(seed).permutation(len(train))[:LOOKED_AT]
        crops = cropper.crop([film for film in map(_read, train.select(np.sort(chosen)).files) if film is not None])
        found[view] = search_report(crops.places, crops.scores, cropper)
    return found


def _read(file: Path) -> np.ndarray | None:
    try:
        return read_film(file)
    except InputError:
        return None
