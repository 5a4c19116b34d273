"""What the companion papers' experiments share: the phantom, finished runs kept in a work folder, paired intervals.

One network per architecture and head is traced and used for all runs of a process; only weights and optimizer start
anew. A run's file appears whole, so that a stopped experiment goes on where it was.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier import hierarchy, recipes
from chexpert_hier.datasets.dataset import Dataset
from chexpert_hier.datasets.presence import require_films
from chexpert_hier.evaluate.ranking import Ranks, resamples
from chexpert_hier.files import write_text, written_whole
from chexpert_hier.phantom.making import GENERATOR_VERSION
from chexpert_hier.prepare import sources

HERE = Path(__file__).parent
REPLICATES = 1000
NIH = ("- The NIH films: Wang et al., ChestX-ray8, CVPR 2017, https://nihcc.app.box.com/v/ChestXray-NIHCC; the NIH "
       "Clinical Center provided the data.")


@dataclass
class Bench:
    """A work folder with finished runs, and the networks that this process has traced."""

    work: Path
    networks: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)

    def phantom(self, **settings) -> Path:
        """The experiment's synthetic films, drawn if they are not there.

        From then on the work folder is one of these films' own, so that other films never meet runs of these.
        """
        from chexpert_hier.phantom import making

        text = json.dumps({**settings, "generator": GENERATOR_VERSION}, sort_keys=True)
        self.work = self.work / hashlib.sha256(text.encode()).hexdigest()[:8]
        return making.ensure(self.work / "phantom", **settings)

    def source(self, dataset: Dataset, recipe: recipes.Recipe):
        """The data set's crops, prepared once in the work folder."""
        from chexpert_hier.network.backbones import BACKBONES

        folder = self.work / "crops"
        folder.mkdir(parents=True, exist_ok=True)
        return sources.from_cache(dataset, recipe, folder, BACKBONES[recipe.arch].native)

    def run(self, name: str, recipe: recipes.Recipe, source: Callable[[], object], judged: str = "valid",
            after: Callable | None = None) -> dict[str, np.ndarray]:
        """Train, or take what an earlier process trained.

        Args:
            name: of the run; its file is named after it.
            recipe: what to train.
            source: gives the sources.Source; called only where something is to be trained.
            judged: the split whose probabilities are kept.
            after: (network, source) -> further arrays to keep.

        Returns:
            "outputs" (films, labels), p(finding) of the judged films before any product; "epochs" (epochs, valid films,
            labels) of every epoch of the last stage; "log" (JSON); "seconds"; and what `after` gave.
        """
        done = self.work / "runs" / f"{name.replace(', ', '--').replace(' ', '-')}.npz"
        if not done.exists():
            began = time.monotonic()
            arrays = self._train(recipe, source(), judged, after)
            arrays["seconds"] = np.array(time.monotonic() - began)
            with written_whole(done) as beside:
                np.savez(beside, **arrays)
            print(f"{name}: {float(arrays['seconds']):.0f} s", flush=True)
        with np.load(done) as file:
            arrays = {key: file[key] for key in file.files}
        self.seconds[name] = float(arrays["seconds"])
        return arrays

    def _train(self, recipe, source, judged, after) -> dict[str, np.ndarray]:
        from chexpert_hier.network import model
        from chexpert_hier.training import stages

        train, valid = source.films("train"), source.films("valid")
        fresh = model.build_model(recipe.arch, train.labels, recipe.weights, recipe.image_size, recipe.built_head,
                                  seed=recipe.seed, batchnorm_momentum=recipe.batchnorm_momentum)
        network = self.networks.setdefault((recipe.arch, recipe.built_head, recipe.image_size, train.labels), fresh)
        if network is not fresh:
            for variable, start in zip(network.variables, fresh.variables, strict=True):  # dropout's seeds too
                variable.assign(start)
        folder = self.work / "present"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stage, epochs = recipe.plan()[-1].name, []

        def seen(name, epoch, outputs):
            if name == stage:
                epochs.append(outputs.astype(np.float16))

        tree = hierarchy.named(recipe.tree, train.labels)
        stages.train(stages.Training(recipe, tree, network, train, valid, folder, seen=seen))
        arrays = {"outputs": stages.outputs_of(network, source.films(judged), 256), "epochs": np.stack(epochs),
                  "log": np.array(json.dumps(pd.read_csv(folder / "log.csv").to_dict("records")))}
        return arrays | (after(network, source) if after is not None else {})


def half_for_test(dataset: Dataset) -> Dataset:
    """Every other validation patient becomes a test patient, so that what chooses an epoch does not judge it."""
    films = dataset.films.copy()
    valid = films["split"] == "valid"
    number = pd.factorize(films.loc[valid, "patient"])[0]
    films.loc[valid, "split"] = np.where(number % 2, "test", "valid")
    return replace(dataset, films=films)


def read(recipe: recipes.Recipe, data: Path) -> Dataset:
    """The recipe's data set, all of whose films must be there."""
    return require_films(sources.read_data(recipe, data))[0]


def bootstrap(scores: np.ndarray, truth: np.ndarray, patients: np.ndarray,
              columns=None) -> tuple[np.ndarray, np.ndarray]:
    """AUROC per label, and in each of the same resamples of patients.

    Args:
        scores, truth: (films, labels); truth 1, 0, NaN.
        patients: str (films,).
        columns: which labels; None all.

    Returns:
        (labels,), (labels, REPLICATES); NaN where a class is missing.
    """
    who = np.unique(patients, return_inverse=True)[1]
    total = who.max() + 1
    columns = range(scores.shape[1]) if columns is None else columns
    ranks = [Ranks.of(scores[:, k], truth[:, k], who, total) for k in columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = np.array([float(rank.measure(np.ones((total, 1), np.float32))[0][0]) for rank in ranks])
        drawn = [[rank.measure(counts)[0] for rank in ranks] for counts in resamples(total, REPLICATES, 0)]
    return areas, np.concatenate([np.stack(block) for block in drawn], axis=1)


def interval(values: np.ndarray) -> tuple[float, float]:
    """2.5 and 97.5 percentiles."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def verdict(low: float, high: float, seeds) -> str:
    """"better" or "worse" only where the interval excludes 0 and all seeds agree."""
    agree = all(d > 0 for d in seeds) or all(d < 0 for d in seeds)
    return "within noise" if low <= 0 <= high or not agree else "better" if low > 0 else "worse"


def write_facts(out: Path, bench: Bench, base: recipes.Recipe, dataset: Dataset, **more) -> None:
    """facts.json: command, machine, date, sizes, recipe, seconds."""
    counts = {split: {"films": len(part), "patients": int(part.films["patient"].nunique())}
              for split in ("train", "valid", "test") for part in [dataset.split(split)]}
    facts = {**circumstances(), "labels": list(dataset.labels), "films": counts, "recipe": base.to_json(),
             "seconds": bench.seconds, "phantom_generator": GENERATOR_VERSION, **more}
    write_text(out / "facts.json", json.dumps(facts, indent=1))


def circumstances() -> dict:
    """Command, date and machine, for a result's facts.json; folders by their names, without --work and --out."""
    arguments, left_out = [], False
    for argument in sys.argv[1:]:
        if not left_out and argument not in ("--work", "--out"):
            arguments.append(Path(argument).name if "/" in argument else argument)
        left_out = argument in ("--work", "--out")
    return {"command": ["python", f"experiments/{Path(sys.argv[0]).name}", *arguments],
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"}


def heading(facts: dict, title: str) -> list[str]:
    """The first lines of a result page: what was run, on what, how long."""
    films = ", ".join(f"{n['films']:,} {split} ({n['patients']:,} patients)" for split, n in facts["films"].items()
                      if n["films"])
    recipe = facts["recipe"]
    return [f"# {title}", "", f"`{' '.join(facts['command'])}`, {facts['date']}, {facts['machine']}; "
            f"{sum(facts['seconds'].values()) / 60:.0f} minutes of training, on cores shared with other work. "
            f"Films: {films}. Network {recipe['arch']} at {recipe['image_size']} pixels from random weights, "
            f"{' + '.join(str(stage['epochs']) for stage in recipe['stages'])} epochs: far smaller than the paper's "
            "system, so orders can be compared, levels cannot.", ""]


def table(rows: pd.DataFrame, digits: int = 3) -> list[str]:
    """A table as Markdown lines."""
    def cell(value) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    lines = ["| " + " | ".join(rows.columns) + " |", "|" + "---|" * len(rows.columns)]
    return lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows.itertuples(index=False)] + [""]
