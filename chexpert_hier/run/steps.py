"""A run's steps from crops to the trained network's outputs; `finishing` does the rest."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .. import recipes
from ..datasets.dataset import Dataset
from ..devices.alone import Devices
from ..network import backbones
from ..settings import Settings
from .facts import facts_of, positives_seen, write_facts
from .finishing import finish
from .opening import Job

if TYPE_CHECKING:
    from ..prepare.sources import Films, Source

log = logging.getLogger("chexpert_hier.run")


def run(args: argparse.Namespace, job: Job, out: Path, devices: Devices, keep: Callable[[], None]) -> None:
    """All steps; each says what it does and leaves its files in `out`, which the first process alone writes and which
    stays from `keep` on.
    """
    from ..datasets import presence
    from ..training import stages

    settings, tree, network, recipe, steps = job.settings, job.tree, job.network, job.settings.recipe, job.steps
    if job.bad and devices.first:
        presence.write_bad(job.bad, out / "skipped.csv")
    with steps("crops"):
        source = _source(settings, job.dataset, out if devices.first else None,
                         backbones.backbone_of(recipe.arch).native)
    devices.same({"normalisation": [source.normalisation.mean, source.normalisation.std]})
    train, valid, judged = source.films("train"), source.films("valid"), _judged(recipe, source)
    seen = {"positives_seen": positives_seen(recipe, tree, train)} if recipe.conditional else {}
    if devices.first:
        write_facts(out, facts_of(settings, source, args.command) | seen, source)
    keep()
    with steps("training"):
        stages.train(stages.Training(
            recipe, tree, network, train, valid, out, resume=args.resume, selftrained=job.selftrained,
            tensorboard=args.tensorboard, checkpoint_every=settings.checkpoint_every, devices=devices))
    with steps("predictions"):
        conditional = stages.outputs_of(network, judged, stages.answered_at_once(recipe), devices)
    devices.finish()
    if devices.first:
        finish(args, job, conditional, judged, out)


def _source(settings: Settings, dataset: Dataset, out: Path | None, native: str) -> "Source":
    from ..prepare import sources

    recipe = settings.recipe
    cache = settings.cache or ("auto" if recipe.cache else None)
    if cache is None:
        return sources.from_files(dataset, recipe, cast(Path, out), native)
    return sources.from_cache(dataset, recipe, out, native, None if cache == "auto" else Path(cache))


def _judged(recipe: recipes.Recipe, source: "Source") -> "Films":
    """The films the run is judged on; says so where they also chose the epoch."""
    test = recipe.judged == "test" and len(source.dataset.split("test")) > 0
    if recipe.judged == "test" and not test:
        log.warning("%s has no test films: judged on the validation films", source.dataset.name)
    if not test and any(stage.keep != "last" or stage.stop_after for stage in recipe.plan()):
        log.warning("the epoch is chosen on the films that the run is judged on: its numbers are too good")
    return source.films("test" if test else "valid")
