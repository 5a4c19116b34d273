"""What a run is given, opened and checked before anything is written: films, flags, network."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import commands, hierarchy, recipes
from ..datasets import reading
from ..datasets.dataset import Dataset
from ..devices.alone import Devices
from ..errors import InputError
from ..settings import Settings
from .facts import versions

if TYPE_CHECKING:
    import keras

    from ..datasets.presence import BadFilm

log = logging.getLogger("chexpert_hier.run")
FEW_FILMS = 4  # a device: fewer leave it waiting for the others
PHANTOM_FILMS: dict[str, Any] = {"patients": 1500, "valid_patients": 350, "seed": 0, "report_noise": 0.3,
                                 "laterals": False, "most_studies": 3}


@dataclass(frozen=True)
class Job:
    """What is known to be good before the run folder appears: the data set without bad films, these, and a network."""

    settings: Settings
    dataset: Dataset
    bad: list["BadFilm"]
    tree: hierarchy.Tree
    network: "keras.Model"
    selftrained: np.ndarray | None
    steps: commands.Steps


def opened(settings: Settings, devices: Devices, steps: commands.Steps) -> Job:
    """Open all that a run is given; nothing is written.

    Raises:
        InputError: data, weights or a flag cannot be used.
    """
    with steps("films"):
        settings = _with_data(settings)
        dataset, bad = _dataset(settings)
    tree, recipe = hierarchy.named(settings.tree, dataset.labels), settings.recipe
    selftrained = _selftrained(settings, dataset.split("train"))
    log.info("recipe: %s, %s, policy %s%s", recipe.name, recipe.arch, recipe.policy,
             f" ({'; '.join(recipe.notes)})" if recipe.notes else "")
    _say_devices(recipe, settings.scale_batch, devices)
    with steps("network"):
        _set_up_keras(recipe, settings.deterministic)
        from ..network import model

        devices.same({"recipe": recipe.to_json(), "films": len(dataset), "the films' fingerprint": dataset.fingerprint,
                      "outputs": dataset.labels, "tree": settings.tree, "versions": versions()})
        network = model.build_model(recipe.arch, dataset.labels, recipe.weights, recipe.image_size, recipe.built_head,
                                    seed=recipe.seed, batchnorm_momentum=recipe.batchnorm_momentum)
    return Job(settings, dataset, bad, tree, network, selftrained, steps)


def _say_devices(recipe: recipes.Recipe, scale: int, devices: Devices) -> None:
    """What each device gets of a batch; a warning where that is little."""
    if scale > 1:
        log.info("--scale-batch (ours): batch and learning rate of the recipe times %d", scale)
    if devices.count == 1:
        return
    for stage in recipe.plan():
        films = min(stage.batch_size, recipe.micro_batch or stage.batch_size) / devices.count
        log.info("%s: batches of %d films over %d devices of %d processes, %.3g each", stage.name, stage.batch_size,
                 devices.count, devices.processes, films)
        if films < FEW_FILMS:
            log.warning("%s: %.3g films a device keep it idle most of the time; take fewer devices, or a larger batch "
                        "(--batch-size, or --scale-batch)", stage.name, films)


def _with_data(settings: Settings) -> Settings:
    """The settings with the synthetic films, which are made first, where no data set is named."""
    if settings.data is not None:
        return settings
    log.info("no --data: synthetic films are used; nothing here is a real patient")
    return replace(settings, data=[_phantom_for(settings.recipe)])


def _dataset(settings: Settings) -> tuple[Dataset, list["BadFilm"]]:
    """The checked table of films, without those left out by --skip-bad, and these."""
    from ..datasets import presence
    from ..prepare import sources

    assert settings.data is not None  # `_with_data` has seen to it
    dataset = sources.read_data(settings.recipe, settings.data, settings.labels, settings.limit)
    dataset, bad = presence.require_films(dataset, skip_bad=settings.skip_bad)
    if settings.skip_bad:
        dataset, unreadable = sources.readable(dataset)
        bad += unreadable
    if settings.fingerprint not in (None, dataset.fingerprint):
        raise InputError(f"{dataset.name}: its tables have changed since the run was started; put them back, "
                         "or choose another --out")
    for split in ("train", "valid"):
        part = dataset.split(split)
        if not len(part):
            raise InputError(f"{dataset.name}: no {split} film is left")
        log.info("%s: %s films of %s patients (%s)", split, f"{len(part):,}", f"{part.films['patient'].nunique():,}",
                 " + ".join(map(str, settings.data or ())))
    return dataset, bad


def _phantom_for(recipe: recipes.Recipe) -> Path:
    """The folder of the synthetic films that a recipe can be tried on: with laterals where it reads them, with test
    patients where it is judged on them.

    Raises:
        InputError: the recipe reads another layout.
    """
    from ..phantom import making

    if recipe.reader != "chexpert":
        raise InputError(f"--recipe {recipe.name} reads the layout {recipe.reader!r}, and the synthetic films have "
                         "CheXpert's; give --data DIR, or --reader chexpert to try it on them")
    both, test = recipe.views != "frontal" or recipe.fair_frontal, recipe.judged == "test"
    folder = making.default_folder("-".join(["phantom", *["both-views"] * both, *["test"] * test]))
    tests = PHANTOM_FILMS["valid_patients"] if test else 0
    return making.ensure(folder, **{**PHANTOM_FILMS, "laterals": both, "test_patients": tests})


def _set_up_keras(recipe: recipes.Recipe, deterministic: bool) -> None:
    keras = commands.import_keras()
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    if deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if deterministic and keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def _selftrained(settings: Settings, train: Dataset) -> np.ndarray | None:
    if not settings.recipe.labelling.parsed.rule.predictions or settings.selftrained is None:
        return None
    return reading.read_predictions(settings.selftrained, list(train.keys), train.labels)
