"""The main job: read, prepare, train in two stages, predict, evaluate, export.

    python -m chexpert_hier.run --arch densenet121                     # the synthetic films, minutes on two cores
    python -m chexpert_hier.run --arch densenet121 --data CheXpert-v1.0-small
"""

import argparse
import datetime
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .. import commands, hierarchy, labels, recipes, tracking
from ..datasets import joint, reading
from ..devices.alone import Devices
from ..devices.joining import joined
from ..devices.launch import add_flags, place_of
from ..errors import InputError
from ..files import locked, not_there, remove_leftovers, unless_kept
from ..network import backbones
from ..settings import Settings, settings_of
from .opening import opened
from .steps import run

STEPS = ("films", "network", "crops", "training", "predictions", "evaluation", "export", "report")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.run", description=__doc__.splitlines()[0])
    _run_flags(answer.add_argument)
    answer.add_quiet()
    _film_flags(answer.add_argument_group("the films").add_argument)
    _recipe_flags(answer.add_argument_group("the recipe (docs/recipes.md)").add_argument)
    add_flags(answer)
    return answer


def _run_flags(add: Callable[..., Any]) -> None:
    add("--out", type=Path, help="the run folder (default: runs/<date>-<recipe>-<arch>)")
    add("--resume", action="store_true", help=commands.RESUME)
    add("--like", type=Path, metavar="RUN", help="repeat a run: its recipe, seed, data and options; other flags change "
        "what they name")
    add("--deterministic", action="store_true", help="same seed, machine and number of threads: the same "
        "numbers, bit for bit (slower)")
    add("--checkpoint-every", type=int, default=0, metavar="N", help="also save within epochs, after every N batches")
    add("--no-paths", action="store_true", help="keep paths of this machine and the command line out of the run "
        "folder; --resume then needs --data (and --cache, --weights) again")
    add("--no-export", action="store_true", help="do not write the SavedModel and model.onnx")
    add("--tensorboard", action="store_true", help="also write TensorBoard logs")
    add("--mlflow", nargs="?", const="", metavar="URI", help="also hand the finished run to MLflow: parameters, "
        "epochs, tables, model (default: MLFLOW_TRACKING_URI, else the folder mlruns beside the run folder)")


def _film_flags(add: Callable[..., Any]) -> None:
    add("--data", type=Path, action="append", help="folder with train.csv (CheXpert-v1.0 or -small as it unpacks); "
        "repeat it to train on several together; without it, synthetic films are made and used")
    add("--reader", action="append", help=f"layout of --data: {', '.join(reading.READERS)}; once for all, or "
        "once for each")
    add("--split", help="auto (the data set's own, else drawn), official, seeded, paper (70/10/20 by patient)")
    add("--labels", help="with --reader csv: label columns, separated by commas")
    add("--tree", help="with --reader csv: a JSON file {child: [parents]}, or flat")
    add("--views", help="frontal, lateral or both")
    add("--limit", type=int, help="use about this many training films (whole patients)")
    add("--resize", help="how films are rescaled: auto, bilinear, area")
    add("--cache", nargs="?", const="auto", metavar="DIR", help="crops prepared by chexpert_hier.prepare; without DIR "
        "they are prepared beside the run folder")
    add("--skip-bad", action="store_true", help="leave out films that cannot be read and list them in the run folder")


def _recipe_flags(add: Callable[..., Any]) -> None:
    add("--recipe", help=f"{', '.join(recipes.RECIPES)} (default: pham2019 with --data, phantom without)")
    add("--arch", help=f"backbone: {', '.join(backbones.BACKBONES)}")
    add("--policy", help=f"{', '.join(labels.POLICIES)}; with +ct (conditional training) and +lsr (label smoothing)")
    add("--weights", help="imagenet, none, or a file of weights")
    add("--epochs", type=int, help="epochs of every stage")
    add("--batch-size", type=int, help="films in a batch, every stage")
    add("--learning-rate", type=float, help="learning rate of the first epoch, every stage")
    add("--image-size", type=int, help="pixels of the network's input")
    add("--seed", type=int, help="random seed of weights, order, template films and label smoothing")
    add("--blank", help="blank cells: negative (default) or ignore")
    add("--ct-rows", help=f"reading of conditional training: {', '.join(hierarchy.READINGS)}; the first is the "
        "default")
    add("--normalise", help="imagenet (the paper), native (what the network was pre-trained with), dataset, none")
    add("--precision", help="float32, mixed_float16 or mixed_bfloat16")
    add("--micro-batch", type=int, metavar="N", help="films that go through the network at once, for networks whose "
        "batch does not fit the memory; one optimizer step a batch (BatchNorm sees N films: a deviation)")
    add("--selftrained", type=Path, metavar="CSV", help="a finished run's predictions of the training films, for the "
        "policy u-selftrained")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="any other field of the recipe, e.g. "
        "closure=true or stage2.learning_rate=1e-3")


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    args.command = [str(part) for part in (sys.argv[1:] if argv is None else argv)]
    args.reader = joint.BETWEEN.join(args.reader) if args.reader else None
    place = place_of(args, os.environ)
    others = place is not None and place.process > 0
    if args.quiet or others:  # process 0 speaks for all
        logging.getLogger("chexpert_hier").setLevel(logging.ERROR if others else logging.WARNING)
    if args.mlflow is not None:
        tracking.require()  # before hours of work
    with joined(place) as devices:
        settings = settings_of(args, devices)
        _check_films(settings, devices)
        recipe, now = settings.recipe, datetime.datetime.now()
        out = args.out or Path("runs") / f"{now:%Y%m%d-%H%M%S}-{recipe.name}-{recipe.arch}"
        if devices.first:
            _run_in_folder(args, settings, out, devices)
        else:
            run(args, opened(settings, devices, _steps(args)), out, devices, lambda: None)
    return 0


def _steps(args: argparse.Namespace) -> commands.Steps:
    return commands.Steps([step for step in STEPS if step != "export" or not args.no_export])


def _run_in_folder(args: argparse.Namespace, settings: Settings, out: Path, devices: Devices) -> None:
    """Check everything, then run, with the run folder held; a new one stays only when it is worth it."""
    _check_out(out, args.resume)
    new = not out.is_dir() or not any(out.iterdir())
    made = not_there(out)
    with ExitStack() as held:
        if not new:
            held.enter_context(locked(out))
        job = opened(settings, devices, _steps(args))  # before a new folder appears
        if new:
            held.enter_context(locked(out))
            _check_out(out, args.resume)
        remove_leftovers(out)
        run(args, job, out, devices, held.enter_context(unless_kept(out, made)) if new else lambda: None)


def _check_films(settings: Settings, devices: Devices) -> None:
    """Several processes read what is there: none of them makes films or crops while the others wait."""
    if devices.processes > 1 and (settings.data is None or settings.cache in (None, "auto")):
        raise InputError("several processes need --data DIR and --cache DIR, the same on every machine; prepare the "
                         "crops once: python -m chexpert_hier.prepare --data DIR --out CACHE")


def _check_out(out: Path, resume: bool) -> None:
    if out.is_file():
        raise InputError(f"{out}: is a file; --out names the run folder")
    if resume:
        _refuse_strange(out)
    elif out.is_dir() and any(path.name != ".lock" for path in out.iterdir()):
        what = "holds a run; add --resume to go on with it" if (out / "recipe.json").exists() else "is not empty"
        raise InputError(f"{out}: {what}, or choose another --out")


def _refuse_strange(out: Path) -> None:
    """Refuse a folder that holds things, and not of a run that was killed before it could say what it is."""
    if not out.is_dir() or (out / "recipe.json").exists():
        return
    strange = [path.name for path in sorted(out.iterdir()) if not path.name.startswith((".", "template"))
               and path.name != "skipped.csv"]
    if strange:
        raise InputError(f"{out}: --resume: holds {strange[0]} and no run (no recipe.json); choose another --out")


if __name__ == "__main__":
    sys.exit(commands.answer(main))
