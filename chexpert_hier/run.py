"""The main job: read, prepare, train in two stages, predict, evaluate, export.

    python -m chexpert_hier.run --arch densenet121                     # the synthetic films, minutes on two cores
    python -m chexpert_hier.run --arch densenet121 --data CheXpert-v1.0-small
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
import sys
from pathlib import Path

from . import commands, datasets, hierarchy, recipes
from .errors import InputError, one_of
from .files import locked, remove_leftovers, write_text

log = logging.getLogger("chexpert_hier.run")

# Flags that are fields of the recipe; left out, the recipe's own value stands.
FIELDS = ("arch", "policy", "weights", "image_size", "seed", "blank", "ct_rows", "normalise", "precision", "views",
          "reader", "resize")
PHANTOM_FILMS = {"patients": 2400, "valid_patients": 400, "seed": 0, "report_noise": 0.4}


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = argparse.ArgumentParser(prog="python -m chexpert_hier.run", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("--data", type=Path, help="folder with train.csv (CheXpert-v1.0 or -small as it unpacks); without it the "
        "synthetic films are made and used")
    add("--out", type=Path, help="the run folder (default: runs/<date>-<recipe>-<arch>)")
    add("--resume", action="store_true", help="go on with the run in --out from its last finished epoch")
    add("--like", type=Path, metavar="RUN", help="repeat a finished run: its recipe, seed and data")
    add("--recipe", help=f"{', '.join(recipes.RECIPES)} (default: pham2019 with --data, phantom without)")
    add("--arch", help="backbone: densenet121, densenet169, densenet201, inceptionresnetv2, xception, nasnetlarge, tiny")
    add("--policy", help="u-ignore, u-zeros, u-ones, u-mean or u-selftrained, with +ct (conditional training) and +lsr "
        "(label smoothing)")
    add("--weights", help="imagenet, none, or a file of weights")
    add("--epochs", type=int, help="epochs of every stage")
    add("--batch-size", type=int, help="films in a batch, every stage")
    add("--image-size", type=int, help="pixels of the network's input")
    add("--limit", type=int, help="use about this many training films (whole patients)")
    add("--seed", type=int, help="of weights, order, template films and label smoothing")
    add("--blank", help="blank cells: negative (default) or ignore")
    add("--ct-rows", help="reading of conditional training: union, all-parents, any-parent, chen")
    add("--normalise", help="imagenet (the paper), native (what the network was pre-trained with), dataset, none")
    add("--precision", help="float32, mixed_float16 or mixed_bfloat16")
    add("--views", help="frontal, lateral or both")
    add("--resize", help="how films are rescaled: auto, bilinear, area")
    add("--reader", help=f"layout of --data: {', '.join(datasets.READERS)}")
    add("--labels", help="with --reader csv: label columns, separated by commas")
    add("--tree", help="with --reader csv: a JSON file {child: [parents]}, or flat")
    add("--selftrained", type=Path, metavar="CSV", help="a finished run's predictions of the training films, for the "
        "policy u-selftrained")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="any other field of the recipe, e.g. "
        "closure=true or stage2.learning_rate=1e-3")
    add("--cache", nargs="?", const="auto", metavar="DIR", help="crops prepared by chexpert_hier.prepare; without DIR "
        "they are prepared beside the run folder")
    add("--skip-bad", action="store_true", help="leave out films that cannot be read and list them in the run folder")
    add("--deterministic", action="store_true", help="same seed, same machine: the same numbers (slower)")
    add("--no-export", action="store_true", help="do not write the SavedModel")
    add("--tensorboard", action="store_true", help="also write TensorBoard logs")
    add("--quiet", action="store_true", help="only warnings and the result")
    return answer


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when done."""
    args = parser().parse_args(argv)
    if args.quiet:
        logging.getLogger("chexpert_hier").setLevel(logging.WARNING)
    settings = _settings(args)
    out = args.out or Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{settings['recipe'].name}-" \
                                     f"{settings['recipe'].arch}"
    _check_out(out, args.resume)
    with locked(out):
        remove_leftovers(out)
        _run(args, settings, out)
    return 0


def _settings(args: argparse.Namespace) -> dict:
    """The recipe and the data: from the flags, or from the run that is resumed or repeated."""
    stored = None
    if args.like:
        stored = read_facts(args.like)
    elif args.resume:
        if not args.out:
            raise InputError("--resume needs --out, the folder of the run to go on with")
        stored = read_facts(args.out) if (args.out / "recipe.json").exists() else None
    asked = _asked(args)
    if stored is None:
        return asked
    own = {"recipe": recipes.from_json(stored["recipe"]), "data": Path(stored["data"]["root"]) if
           stored["data"]["root"] else None, **{name: stored[name] for name in ("limit", "labels", "tree")}}
    if args.resume and _flags_given(args):
        _same(own, asked, args.out)
    if args.data:
        own["data"] = args.data
    return own


def _asked(args: argparse.Namespace) -> dict:
    recipe = recipes.named(args.recipe or ("pham2019" if args.data else "phantom"))
    for name in FIELDS:
        value = getattr(args, name)
        if value is not None:
            recipe = recipes.change(recipe, name, str(value))
    for name, value in (("epochs", args.epochs), ("batch_size", args.batch_size)):
        if value is not None:
            recipe = recipes.change(recipe, f"stages.{name}", str(value))
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: expected FIELD=VALUE")
        recipe = recipes.change(recipe, name, value)
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit is {args.limit}; expected 1 or more")
    one_of("--arch", recipe.arch, recipes.ARCHITECTURES)
    one_of("--reader", recipe.reader, tuple(datasets.READERS))
    return {"recipe": recipe, "data": args.data, "limit": args.limit, "tree": _tree(args, recipe),
            "labels": [name.strip() for name in args.labels.split(",")] if args.labels else None}


def _tree(args: argparse.Namespace, recipe: recipes.Recipe):
    """What goes into recipe.json: the name of a known tree, or {child: [parents]} from the user's file."""
    if not args.tree:
        return "flat" if recipe.reader == "csv" else recipe.tree
    if args.tree in hierarchy.TREES or args.tree == "flat":
        return args.tree
    try:
        return json.loads(Path(args.tree).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--tree {args.tree}: expected a JSON file {{child: [parents]}}, or one of: flat, "
                         f"{', '.join(hierarchy.TREES)} ({error})") from error


def _flags_given(args: argparse.Namespace) -> bool:
    given = ("recipe", "epochs", "batch_size", "limit", "labels", "tree", *FIELDS)
    return bool(args.set) or any(getattr(args, name) is not None for name in given)


def _same(own: dict, asked: dict, out: Path) -> None:
    stored, wanted = dataclasses.asdict(own["recipe"]), dataclasses.asdict(asked["recipe"])
    for name, value in wanted.items():
        if stored[name] != value:
            raise InputError(f"{out}: was started with {name} = {stored[name]!r}, now {value!r} is asked for; a run is "
                             "resumed with its own recipe. Leave the flags out, or choose another --out")


def _check_out(out: Path, resume: bool) -> None:
    if out.is_file():
        raise InputError(f"{out}: is a file; --out names the run folder")
    if out.is_dir() and not resume and any(path.name != ".lock" for path in out.iterdir()):
        what = "holds a run; add --resume to go on with it" if (out / "recipe.json").exists() else "is not empty"
        raise InputError(f"{out}: {what}, or choose another --out")


def read_facts(run: Path) -> dict:
    """What a run folder says of itself (recipe.json).

    Raises:
        InputError: it is no run folder.
    """
    path = Path(run) / "recipe.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: no recipe.json there; expected the folder of a run") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _run(args: argparse.Namespace, settings: dict, out: Path) -> None:
    recipe = settings["recipe"]
    if settings["data"] is None:
        from . import phantom

        settings["data"] = phantom.ensure(**PHANTOM_FILMS)
    dataset, skipped = _read(args, settings)
    tree = hierarchy.named(settings["tree"], dataset.labels)
    from . import work  # from here on Keras is needed

    work.work(args, settings, recipe, dataset, tree, out, skipped)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
