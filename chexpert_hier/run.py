"""The main job: read, prepare, train in two stages, predict, evaluate, export.

    python -m chexpert_hier.run --arch densenet121                     # the synthetic films, minutes on two cores
    python -m chexpert_hier.run --arch densenet121 --data CheXpert-v1.0-small
"""

import argparse
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from . import __version__, commands, hierarchy, labels, recipes, tracking
from .datasets import joint, reading
from .datasets.dataset import SPLITS, Dataset
from .devices.alone import Devices
from .devices.joining import joined
from .devices.launch import add_flags, place_of
from .errors import InputError
from .files import locked, not_there, remove_leftovers, unless_kept, write_text
from .network import backbones
from .settings import Settings, settings_of

if TYPE_CHECKING:
    import keras

    from .datasets.presence import BadFilm
    from .evaluate import Result
    from .finished.members import Member
    from .prepare.sources import Films, Source

log = logging.getLogger("chexpert_hier.run")

LARGE = 1_000_000  # weights; a smaller network is exported sooner than a process for the pictures has started
CHECKED_FILMS = 100  # sent through the reloaded SavedModel
FEW_FILMS = 4  # a device: fewer leave it waiting for the others

STEPS = ("films", "network", "crops", "training", "predictions", "evaluation", "export", "report")

PHANTOM_FILMS: dict[str, Any] = {"patients": 1500, "valid_patients": 350, "seed": 0, "report_noise": 0.3,
                                 "laterals": False, "most_studies": 3}


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    answer = commands.Parser(prog="python -m chexpert_hier.run", description=__doc__.splitlines()[0])
    add = answer.add_argument
    add("--data", type=Path, action="append", help="folder with train.csv (CheXpert-v1.0 or -small as it unpacks); "
        "several times: trained on together; without it the synthetic films are made and used")
    add("--out", type=Path, help="the run folder (default: runs/<date>-<recipe>-<arch>)")
    add("--resume", action="store_true", help="go on with the run in --out from its last checkpoint")
    add("--like", type=Path, metavar="RUN", help="repeat a run: its recipe, seed, data and options; other flags change "
        "what they name")
    add("--recipe", help=f"{', '.join(recipes.RECIPES)} (default: pham2019 with --data, phantom without)")
    add("--arch", help=f"backbone: {', '.join(backbones.BACKBONES)}")
    add("--policy", help=f"{', '.join(labels.POLICIES)}; with +ct (conditional training) and +lsr (label smoothing)")
    add("--weights", help="imagenet, none, or a file of weights")
    add("--epochs", type=int, help="epochs of every stage")
    add("--batch-size", type=int, help="films in a batch, every stage")
    add("--learning-rate", type=float, help="of the first epoch, every stage")
    add("--image-size", type=int, help="pixels of the network's input")
    add("--limit", type=int, help="use about this many training films (whole patients)")
    add("--seed", type=int, help="of weights, order, template films and label smoothing")
    add("--blank", help="blank cells: negative (default) or ignore")
    add("--ct-rows", help=f"reading of conditional training: {', '.join(hierarchy.READINGS)}")
    add("--normalise", help="imagenet (the paper), native (what the network was pre-trained with), dataset, none")
    add("--precision", help="float32, mixed_float16 or mixed_bfloat16")
    add("--micro-batch", type=int, metavar="N", help="films that go through the network at once, for networks whose "
        "batch does not fit the memory; one optimizer step a batch (BatchNorm sees N films: a deviation)")
    add("--views", help="frontal, lateral or both")
    add("--resize", help="how films are rescaled: auto, bilinear, area")
    add("--reader", action="append", help=f"layout of --data: {', '.join(reading.READERS)}; once, or once for each")
    add("--split", help="auto (the data set's own, else drawn), official, seeded, paper (70/10/20 by patient)")
    add("--labels", help="with --reader csv: label columns, separated by commas")
    add("--tree", help="with --reader csv: a JSON file {child: [parents]}, or flat")
    add("--selftrained", type=Path, metavar="CSV", help="a finished run's predictions of the training films, for the "
        "policy u-selftrained")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="any other field of the recipe, e.g. "
        "closure=true or stage2.learning_rate=1e-3")
    add("--cache", nargs="?", const="auto", metavar="DIR", help="crops prepared by chexpert_hier.prepare; without DIR "
        "they are prepared beside the run folder")
    add("--skip-bad", action="store_true", help="leave out films that cannot be read and list them in the run folder")
    add("--deterministic", action="store_true", help="same seed, machine and number of threads: the same "
        "numbers, bit for bit (slower)")
    add("--checkpoint-every", type=int, default=0, metavar="N", help="also save within epochs, after every N batches")
    add("--no-paths", action="store_true", help="keep in the run folder no place of a file on this machine, and no "
        "command line; --resume then needs --data (and --cache, --weights) again")
    add("--no-export", action="store_true", help="do not write the SavedModel and model.onnx")
    add("--tensorboard", action="store_true", help="also write TensorBoard logs")
    add("--mlflow", nargs="?", const="", metavar="URI", help="also hand the finished run to MLflow: parameters, "
        "epochs, tables, model (default: MLFLOW_TRACKING_URI, else the folder mlruns beside the run folder)")
    answer.add_quiet()
    add_flags(answer)
    return answer


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
            _run(args, _checked(settings, devices, _steps(args)), out, devices, lambda: None)
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
        job = _checked(settings, devices, _steps(args))  # before a new folder appears
        if new:
            held.enter_context(locked(out))
            _check_out(out, args.resume)
        remove_leftovers(out)
        _run(args, job, out, devices, held.enter_context(unless_kept(out, made)) if new else lambda: None)


def _check_films(settings: Settings, devices: Devices) -> None:
    """Several processes read what is there: none of them makes films or crops while the others wait."""
    if devices.processes > 1 and (settings.data is None or settings.cache in (None, "auto")):
        raise InputError("several processes need --data DIR and --cache DIR, the same on every machine; prepare the "
                         "crops once: python -m chexpert_hier.prepare --data DIR --out CACHE")


def _check_out(out: Path, resume: bool) -> None:
    if out.is_file():
        raise InputError(f"{out}: is a file; --out names the run folder")
    if out.is_dir() and not resume and any(path.name != ".lock" for path in out.iterdir()):
        what = "holds a run; add --resume to go on with it" if (out / "recipe.json").exists() else "is not empty"
        raise InputError(f"{out}: {what}, or choose another --out")


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


def _checked(settings: Settings, devices: Devices, steps: commands.Steps) -> Job:
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
        from .network import model

        devices.same({"recipe": recipe.to_json(), "films": len(dataset), "the films' fingerprint": dataset.fingerprint,
                      "outputs": dataset.labels, "tree": settings.tree, "versions": _versions()})
        network = model.build_model(recipe.arch, dataset.labels, recipe.weights, recipe.image_size, recipe.built_head,
                                    seed=recipe.seed, batchnorm_momentum=recipe.batchnorm_momentum)
    return Job(settings, dataset, bad, tree, network, selftrained, steps)


def _run(args: argparse.Namespace, job: Job, out: Path, devices: Devices, keep: Callable[[], None]) -> None:
    """All steps; each says what it does and leaves its files in `out`, which the first process alone writes and which
    stays from `keep` on.
    """
    from .datasets import presence
    from .training import stages

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
        _write_facts(out, _facts(settings, source, args.command) | seen, source)
    keep()
    with steps("training"):
        stages.train(stages.Training(
            recipe, tree, network, train, valid, out, resume=args.resume, selftrained=job.selftrained,
            tensorboard=args.tensorboard, checkpoint_every=settings.checkpoint_every, devices=devices))
    with steps("predictions"):
        conditional = stages.outputs_of(network, judged, stages.answered_at_once(recipe), devices)
    devices.finish()
    if devices.first:
        _finish(args, job, conditional, judged, out, None if devices.count > 1 else network)


def _finish(args: argparse.Namespace, job: Job, conditional: np.ndarray, judged: "Films", out: Path,
            network: "keras.Model | None") -> None:
    """What is done after training: predictions, evaluation, export, report.

    Args:
        args: the flags.
        job: what was run.
        conditional: outputs for the judged films, float32 (n, labels).
        judged: these films.
        out: the run folder.
        network: trained; None where it is spread over devices, and read from its file.
    """
    settings, tree, recipe, steps = job.settings, job.tree, job.settings.recipe, job.steps
    answers = _predictions(recipe, tree, conditional, judged, out)
    with steps("evaluation"):
        result = _evaluate(recipe, tree, judged, answers, out)
    from .finished import members
    from .report import page

    apart = job.network.count_params() >= LARGE and not args.no_export
    with page.drawn_beside(result, out, apart, settings.data) as drawn:
        member = members.open_run(out)  # from its file, as `export` does: the same bytes
        if not args.no_export:
            with steps("export"):
                _export(member, judged, answers)
        with steps("report"):
            page.write(out, member=member, drawn=drawn())
    if args.mlflow is not None:
        tracking.log_run(out, args.mlflow or None)
    print(f"run folder: {out}\nreport: {out / 'report.html'}")


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


def _write_facts(out: Path, facts: dict[str, Any], source: "Source") -> None:
    """recipe.json, of which a resumed run keeps its own, and split.csv."""
    if not (out / "recipe.json").exists():
        write_text(out / "recipe.json", json.dumps(facts, indent=1))
    write_text(out / "split.csv", source.dataset.films[["path", "patient", "study", "split"]].to_csv(index=False))


def _with_data(settings: Settings) -> Settings:
    """The settings with the synthetic films, which are made first, where no data set is named."""
    if settings.data is not None:
        return settings
    log.info("no --data: synthetic films are used; nothing here is a real patient")
    return replace(settings, data=[_phantom_for(settings.recipe)])


def _dataset(settings: Settings) -> tuple[Dataset, list["BadFilm"]]:
    """The checked table of films, without those left out by --skip-bad, and these."""
    from .datasets import presence
    from .prepare import sources

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
    from .phantom import making

    if recipe.reader != "chexpert":
        raise InputError(f"--recipe {recipe.name} reads the layout {recipe.reader!r}, and the synthetic films have "
                         "CheXpert's; give --data DIR, or --reader chexpert to try it on them")
    both, test = recipe.views != "frontal" or recipe.fair_frontal, recipe.judged == "test"
    folder = making.default_folder("-".join(["phantom", *["both-views"] * both, *["test"] * test]))
    tests = PHANTOM_FILMS["valid_patients"] if test else 0
    return making.ensure(folder, **{**PHANTOM_FILMS, "laterals": both, "test_patients": tests})


def _judged(recipe: recipes.Recipe, source: "Source") -> "Films":
    """The films the run is judged on; says so where they also chose the epoch."""
    test = recipe.judged == "test" and len(source.dataset.split("test")) > 0
    if recipe.judged == "test" and not test:
        log.warning("%s has no test films: judged on the validation films", source.dataset.name)
    if not test and any(stage.keep != "last" or stage.stop_after for stage in recipe.plan()):
        log.warning("the epoch is chosen on the films that the run is judged on: its numbers are too good")
    return source.films("test" if test else "valid")


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


def _source(settings: Settings, dataset: Dataset, out: Path | None, native: str) -> "Source":
    from .prepare import sources

    recipe = settings.recipe
    cache = settings.cache or ("auto" if recipe.cache else None)
    if cache is None:
        return sources.from_files(dataset, recipe, cast(Path, out), native)
    return sources.from_cache(dataset, recipe, out, native, None if cache == "auto" else Path(cache))


def positives_seen(recipe: recipes.Recipe, tree: hierarchy.Tree, train: "Films") -> dict[str, float | None]:
    """The share of each label's positives that conditional training's stage 1 sees; the log names those under 10 %.

    Returns:
        label -> 0 to 1, None for a label that is nowhere positive.
    """
    raw = hierarchy.close_upward(train.raw, tree) if recipe.closure else train.raw
    hard = labels.hard_targets(raw, recipe.policy, blank=recipe.blank)
    shares = hierarchy.positives_seen(hard, hierarchy.stage_one(hard, tree, recipe.ct_rows).cells)
    few = [f"{label} ({share:.0%})" for label, share in zip(train.labels, shares) if share < hierarchy.FEW_SEEN]
    if few:
        log.info("stage 1 (--ct-rows %s) sees under %s of the positives of %s: what is known of these comes from "
                 "stage 2", recipe.ct_rows, f"{hierarchy.FEW_SEEN:.0%}", ", ".join(few))
    return {label: None if np.isnan(share) else round(float(share), 4) for label, share in zip(train.labels, shares)}


def _selftrained(settings: Settings, train: Dataset) -> np.ndarray | None:
    if not settings.recipe.labelling.parsed.rule.predictions or settings.selftrained is None:
        return None
    return reading.read_predictions(settings.selftrained, list(train.keys), train.labels)


def _facts(settings: Settings, source: "Source", command: list[str]) -> dict[str, Any]:
    """What recipe.json says: all that later commands need to know of this run."""
    from .phantom import making

    dataset, folders = source.dataset, settings.data or []
    counts = {split: {"films": len(part), "studies": int(part.films[["patient", "study"]].drop_duplicates().shape[0]),
                      "patients": int(part.films["patient"].nunique())}
              for split in SPLITS for part in [dataset.split(split)]}
    places = [] if settings.no_paths else [str(folder) for folder in folders]
    return {
        "recipe": settings.kept_recipe.to_json(), "outputs": list(dataset.labels), "labels": settings.labels,
        "tree": settings.tree, "limit": settings.limit,
        "normalisation": [list(source.normalisation.mean), list(source.normalisation.std)],
        "data": {"root": places[0] if places else None, "roots": places, "name": dataset.name,
                 "fingerprint": dataset.fingerprint, "counts": counts,
                 "synthetic": any(map(making.read_marker, folders))},
        "versions": _versions(),
        "options": settings.kept_options, **({} if settings.no_paths else {"command": command}),
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "chexpert_hier": __version__,
            **{name: importlib.metadata.version(name) for name in ("keras", "numpy", "pandas", "scikit-learn")},
            "backend": _backend()}


def _backend() -> str:
    import keras

    name = keras.backend.backend()
    return f"{name} {importlib.metadata.version(name)}"


def _predictions(recipe: recipes.Recipe, tree: hierarchy.Tree, conditional: np.ndarray, valid: "Films", out: Path
                 ) -> pd.DataFrame:
    """The judged films' probabilities: before the chain rule in conditional.csv, after it in predictions.csv."""
    final = hierarchy.chain_rule(conditional, tree) if recipe.chain else conditional
    tables = {}
    for name, values in (("conditional", conditional), ("predictions", final)):
        tables[name] = pd.DataFrame(values, columns=list(valid.labels))
        tables[name].insert(0, "Path", valid.dataset.films["path"])
        write_text(out / f"{name}.csv", tables[name].to_csv(index=False, float_format="%.9g"))
    truth = valid.dataset.films[["path", "sex", "age", "projection", *valid.labels]].rename(
        columns={"path": "Path", "sex": "Sex", "age": "Age", "projection": "AP/PA"})
    truth[list(valid.labels)] = valid.dataset.truth
    if valid.dataset.roots:
        truth["Set"] = valid.dataset.sets
    write_text(out / "truth.csv", truth.to_csv(index=False))
    return tables["predictions"]


def _evaluate(recipe: recipes.Recipe, tree: hierarchy.Tree, valid: "Films", answers: pd.DataFrame, out: Path
              ) -> "Result":
    """Judge the run: a study's score is that of its films (deviations D9), with and without the chain rule (C10).

    Films without studies in their paths (ChestX-ray14) are judged as films.
    """
    from . import evaluate
    from .evaluate.runs import joining_of

    joining = joining_of(recipe, valid.labels, list(answers["Path"]), list(valid.dataset.films["patient"]))
    result = evaluate.evaluate(answers, pd.read_csv(out / "truth.csv"), joining, evaluate.Judging(
        seed=recipe.seed, tree=tree, name=recipe.name, by=("Set",) if valid.dataset.roots else ()),
        conditional=pd.read_csv(out / "conditional.csv"))
    evaluate.write(result, out, page=False)
    print(table(result.table))
    return result


def table(rows: pd.DataFrame) -> str:
    """The AUROCs with their 95 % intervals as lines of text."""
    lines = [f"{'':<28}{'AUROC':>7}  {'95 % interval':<16}{'positives':>10}{'negatives':>11}"]
    for row in rows.to_dict("records"):
        interval = f"{row['auroc_low']:.3f} to {row['auroc_high']:.3f}"
        counts = "" if pd.isna(row["positives"]) else f"{row['positives']:>10.0f}{row['negatives']:>11.0f}"
        lines.append(f"{row['label']:<28}{row['auroc']:>7.3f}  {interval:<16}{counts}")
    return "\n".join(lines)


def _export(member: "Member", valid: "Films", answers: pd.DataFrame) -> None:
    """The ONNX file where its packages are installed, and under TensorFlow the SavedModel."""
    import keras

    from .export import onnx, saved_model
    from .finished import members, onnx_network

    out = member.folder
    if onnx_network.installed() and member.recipe.precision == "float32":  # its numbers are float32's
        worst = onnx.export([member], out / members.ONNX)
        log.info("export: %s (in ONNX Runtime at most %.1g from the network)", out / members.ONNX, worst)
    if keras.backend.backend() != "tensorflow":
        log.info("the SavedModel is left out: it needs the TensorFlow backend, this is %s", keras.backend.backend())
        return
    log.info("export: %s", out / "saved_model")
    saved_model.export([member], out / "saved_model")
    films = range(0, len(valid), max(1, len(valid) // CHECKED_FILMS))
    worst = saved_model.check(out / "saved_model", [valid.dataset.files[k] for k in films],
                              answers[list(valid.labels)].to_numpy()[list(films)])
    if worst == worst:
        log.info("reloaded in TensorFlow: %d films give the run's own probabilities (largest difference %.1g)",
                 len(films), worst)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
