"""A finished run without training: random weights, real folder; for the tests of what reads run folders."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier import hierarchy, recipes
from chexpert_hier.datasets import reading
from chexpert_hier.films import normalisation
from chexpert_hier.films.decode import read_film
from chexpert_hier.finished.members import open_run
from chexpert_hier.phantom import making
from chexpert_hier.prepare import croppers


def make_films(folder: Path) -> Path:
    """Synthetic films: frontal and lateral."""
    return making.make(folder / "phantom", patients=14, valid_patients=14, seed=3, processes=1)


def make_run(folder: Path, data: Path, seed: int = 0, **changes) -> Path:
    """The folder as `run` leaves it, for all that predict, export and heatmaps read."""
    from chexpert_hier.network.model import build_model

    folder.mkdir(parents=True)
    changes = {"arch": "tiny", "image_size": 32, "template_films": 10, **changes}
    recipe = recipes.change(recipes.named("phantom"), **changes)
    dataset = reading.read(data, views=recipe.views)
    croppers.learn_croppers(dataset, recipe, folder)
    build_model("tiny", dataset.labels, image_size=32, seed=seed).save(folder / "model.keras")
    facts = {"recipe": recipe.to_json(), "outputs": list(dataset.labels), "labels": None, "tree": "chexpert",
             "normalisation": [list(normalisation.IMAGENET.mean), list(normalisation.IMAGENET.std)],
             "data": {"root": str(data), "name": dataset.name, "fingerprint": dataset.fingerprint, "counts":
                      {"train": {"films": 9, "studies": 9, "patients": 9}}}, "versions": {"keras": "3"}}
    (folder / "recipe.json").write_text(json.dumps(facts))
    dataset.films[["path", "patient", "study", "split"]].to_csv(folder / "split.csv", index=False)
    valid, member = dataset.split("valid"), open_run(folder)
    if recipe.views == "frontal":
        crops = member.croppers["Frontal"].crop([read_film(file) for file in valid.files]).crops
        conditional = member.conditional(crops, valid.keys, _views())
        final = hierarchy.chain_rule(conditional, member.tree)
        write(folder / "predictions.csv", valid.films["path"], final, dataset.labels)
    valid.films.rename(columns={"path": "Path"})[["Path", *dataset.labels]].to_csv(folder / "truth.csv", index=False)
    return folder


def _views():
    from chexpert_hier.finished.members import Views

    return Views()


def write(file: Path, paths, values: np.ndarray, labels) -> None:
    """One row per film."""
    table = pd.DataFrame(values, columns=list(labels))
    table.insert(0, "Path", list(paths))
    table.to_csv(file, index=False)
