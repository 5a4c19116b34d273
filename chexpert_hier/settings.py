"""What `run` runs: its flags, joined with what a run that is resumed or repeated was started with."""

import argparse
import dataclasses
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import commands, hierarchy, recipes
from .datasets import joint
from .devices.alone import ALONE, Devices
from .errors import InputError, did_you_mean
from .network.backbones import check
from .run_folder import data_folders, read_facts

# Flags that are fields of the recipe; left out, the recipe's own value stands.
FIELDS = ("arch", "policy", "weights", "image_size", "seed", "blank", "ct_rows", "normalise", "precision", "views",
          "reader", "resize", "split", "micro_batch")

STAGE_FIELDS = ("epochs", "batch_size", "learning_rate")  # of every stage

# Flags that are no part of the recipe; a resumed or repeated run takes them over.
OPTIONS = ("cache", "skip_bad", "deterministic", "selftrained", "checkpoint_every", "no_paths")

PLACES = ("cache", "selftrained")  # those that are folders or files


@dataclass(frozen=True)
class Settings:
    """What is run, from the flags or from the run that is resumed or repeated.

    Attributes:
        recipe: every number of the training.
        data: the data sets' folders; None for the synthetic films.
        limit: about so many training films; None for all.
        labels: instead of the recipe's outputs.
        tree: the name of a known tree, or {child: [parents]}.
        fingerprint: that the tables must have; None where they may be any.
        cache: folder of prepared crops, "auto" to prepare them beside the run, None to decode films in every epoch.
        skip_bad: leave out films that cannot be read.
        deterministic: the same numbers bit for bit.
        selftrained: predictions of the training films, for policies that read them.
        checkpoint_every: batches between two checkpoints within an epoch; 0 for none.
        no_paths: the run folder says nothing of where files lie, nor how the command was typed.
        scale_batch: devices by which batch and rate were multiplied; 1 for the recipe's own.
    """

    recipe: recipes.Recipe
    data: list[Path] | None
    limit: int | None
    labels: list[str] | None
    tree: str | dict[str, list[str]]
    fingerprint: str | None = None
    cache: str | None = None
    skip_bad: bool = False
    deterministic: bool = False
    selftrained: Path | None = None
    checkpoint_every: int = 0
    no_paths: bool = False
    scale_batch: int = 1

    @property
    def kept_recipe(self) -> recipes.Recipe:
        """The recipe as recipe.json keeps it: with `no_paths` a file of weights by its name alone."""
        return replace(self.recipe, weights=Path(self.recipe.weights).name) if self.no_paths else self.recipe

    @property
    def kept_options(self) -> dict[str, Any]:
        """The fields of OPTIONS as recipe.json keeps them: with `no_paths` folders and files by their names alone."""
        kept = {name: getattr(self, name) for name in (*OPTIONS, "scale_batch")}
        for name in PLACES:
            if kept[name] is not None:
                kept[name] = Path(kept[name]).name if self.no_paths else str(kept[name])
        return kept


def settings_of(args: argparse.Namespace, devices: Devices = ALONE) -> Settings:
    """What is run: what the flags ask for, and what a run that is resumed or repeated was started with.

    Args:
        args: the flags.
        devices: by whose number --scale-batch multiplies in a new run (a resumed or repeated one keeps its own), and
            whose first process has the run folder.

    Raises:
        InputError: a flag is wrong, or asks for another run than the one that is resumed.
    """
    stored = devices.agreed(_stored(args) if devices.first else None)
    if stored is None:
        settings = _asked(args, scale=devices.count if args.scale_batch else 1)
    else:
        settings = _joined(args, stored, devices.count)
    if settings.recipe.labelling.parsed.rule.predictions and not settings.selftrained:
        raise InputError(f"--policy {settings.recipe.policy} needs --selftrained CSV, a finished run's predictions of "
                         "the training films (python -m chexpert_hier.predict .../train.csv --model RUN --out CSV)")
    return settings


def _joined(args: argparse.Namespace, stored: dict[str, Any], devices: int) -> Settings:
    """What a run was started with, and what the flags change of it."""
    scale = stored["options"].get("scale_batch", 1)
    if args.scale_batch and args.resume and scale == 1:
        raise InputError(f"{args.out}: was started without --scale-batch; leave it out, or choose another --out")
    asked = _asked(args, scale=scale)
    own = Settings(_recipe(args, stored), data_folders(stored) or None, stored["limit"], stored["labels"],
                   stored["tree"], scale_batch=scale,
                   **{name: getattr(asked, name) or _option(stored, name) for name in OPTIONS})
    if args.like:
        asked = _asked(args, own.recipe if args.recipe is None else None)
        kept = scale if args.recipe is None else 1
        times = devices if args.scale_batch and kept == 1 else 1
        given = [name for name in ("limit", "labels", "tree") if getattr(args, name) is not None]
        own = replace(own, recipe=scaled(asked.recipe, times), scale_batch=kept * times,
                      **{name: getattr(asked, name) for name in given})
    elif _flags_given(args):
        _same(own, asked, args.out)
    # Other films are no repetition, and nothing to go on with; --like with --data asks for other films.
    fingerprint = None if args.like and args.data else stored["data"]["fingerprint"]
    own = replace(own, data=args.data or own.data, fingerprint=fingerprint)
    _require_places(args, stored, own)
    return own


def _recipe(args: argparse.Namespace, stored: dict[str, Any]) -> recipes.Recipe:
    """The stored recipe, with the place of its file of weights where the run keeps only the name."""
    recipe = recipes.from_json(stored["recipe"])
    if stored["options"].get("no_paths") and args.weights and Path(args.weights).name == recipe.weights:
        return replace(recipe, weights=args.weights)
    return recipe


def _require_places(args: argparse.Namespace, stored: dict[str, Any], own: Settings) -> None:
    """Ask for the places that a run with --no-paths does not name."""
    if not stored["options"].get("no_paths"):
        return
    missing = [name for name in PLACES if _option(stored, name) not in (None, "auto") and not getattr(args, name)]
    drawn = stored["data"].get("synthetic") and stored["data"]["name"].startswith("phantom")  # found or made again
    if own.data is None and not drawn:
        missing.insert(0, "data")
    if missing:
        raise InputError(f"{args.like or args.out}: was started with --no-paths, so it does not say where its files "
                         f"lie; give --{' and --'.join(missing)} again")


def _stored(args: argparse.Namespace) -> dict[str, Any] | None:
    """What the run that is repeated or gone on with says of itself; None where this one is new."""
    if args.like:
        return read_facts(args.like)
    if not args.resume:
        return None
    if not args.out:
        raise InputError("--resume needs --out, the folder of the run to go on with")
    return read_facts(args.out) if (args.out / "recipe.json").exists() else None


def _option(stored: dict[str, Any], name: str) -> Any:
    value = stored.get("options", {}).get(name)
    if not value:
        return getattr(Settings, name)
    return Path(value) if name == "selftrained" else value


def _asked(args: argparse.Namespace, base: recipes.Recipe | None = None, scale: int = 1) -> Settings:
    """What the flags alone ask for, as changes of `base` or of the recipe they name."""
    recipe = base or recipes.named(args.recipe or ("pham2019" if args.data else "phantom"))
    whole = [f"stages.{name}={getattr(args, name)}" for name in STAGE_FIELDS if getattr(args, name) is not None]
    recipe = recipes.change(recipe, *whole, *args.set, **{name: getattr(args, name) for name in FIELDS})
    if base is None:
        recipe = scaled(recipe, scale)
    if args.checkpoint_every < 0:
        raise InputError(f"--checkpoint-every is {args.checkpoint_every}; expected 1 or more batches")
    commands.at_least(1, args, "limit")
    recipe = replace(recipe, arch=check(recipe.arch, recipe.weights, recipe.image_size).name)
    joint.readers_of(recipe.reader, len(args.data) if args.data else None)
    names = [name.strip() for name in args.labels.split(",")] if args.labels else None
    return Settings(recipe, args.data, args.limit, names, _tree(args, recipe), scale_batch=scale,
                    **{name: getattr(args, name) for name in OPTIONS})


def scaled(recipe: recipes.Recipe, times: int) -> recipes.Recipe:
    """Batch and learning rate of every stage multiplied: the linear rule, named as ours (no paper of ours does it).

    Source: Goyal et al. 2017 (arXiv 1706.02677), section 2.1; without their gradual warm-up.
    """
    stages = tuple(replace(stage, batch_size=stage.batch_size * times, learning_rate=stage.learning_rate * times,
                           min_learning_rate=stage.min_learning_rate * times) for stage in recipe.stages)
    return replace(recipe, stages=stages)


def _tree(args: argparse.Namespace, recipe: recipes.Recipe) -> str | dict[str, list[str]]:
    """What goes into recipe.json: the name of a known tree, or {child: [parents]} from the user's file."""
    if not args.tree:
        return "flat" if set(recipe.reader.split(joint.BETWEEN)) == {"csv"} else recipe.tree
    if args.tree in hierarchy.TREES:
        return str(args.tree)
    try:
        tree: dict[str, list[str]] = json.loads(Path(args.tree).read_text(encoding="utf-8"))
        return tree
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--tree {args.tree}: expected a JSON file {{child: [parents]}}, or one of: "
                         f"{', '.join(hierarchy.TREES)} ({error})"
                         f"{did_you_mean(args.tree, hierarchy.TREES)}") from error


def _flags_given(args: argparse.Namespace) -> bool:
    given = ("recipe", "limit", "labels", "tree", *FIELDS, *STAGE_FIELDS)
    return bool(args.set) or any(getattr(args, name) is not None for name in given)


def _same(own: Settings, asked: Settings, out: Path) -> None:
    names = [field.name for field in dataclasses.fields(own.recipe)]
    for name, stored, wanted in (*((name, getattr(own.recipe, name), getattr(asked.recipe, name)) for name in names),
                                 *((name, getattr(own, name), getattr(asked, name))
                                   for name in ("limit", "labels", "tree"))):
        if stored != wanted:
            raise InputError(f"{out}: was started with {name} = {stored!r}, now {wanted!r} is asked for; a run is "
                             "resumed with its own recipe. Leave the flag out, or choose another --out")
