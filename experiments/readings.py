"""When does conditional training pay? The readings of Pham et al. 2019, section 3.2, against the number of films.

    python experiments/readings.py --work DIR --sizes 2500 5000 --seeds 3        # trains what is missing, then tables
    python experiments/readings.py --tables-only                                 # tables from the committed outputs

Synthetic films, drawn in pieces of about 2,500 so that a larger training set contains the smaller ones; always the same
5,000 validation patients. A cell of the design is (reports' noise, start, size, seed, row); every cell that is finished
is a file in `--work`, and what is there is not trained again. Stage 1 is trained once for all rows that refit it.

The rows: flat training; its last layer refitted (the second stage of conditional training, without the first);
conditional training in each reading; both options of stage 2; Chen's fine-tuning of the whole network on the products,
and flat training for as many epochs; and the refit on patients that stage 1 has not seen (halves of the patients).
"""

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from companions import circumstances
from readings_tables import COLUMNS, tables

from chexpert_hier import commands, hierarchy, recipes
from chexpert_hier.datasets.dataset import Dataset
from chexpert_hier.datasets.reading import read
from chexpert_hier.errors import InputError
from chexpert_hier.files import write_text, written_whole
from chexpert_hier.phantom import making

HERE = Path(__file__).parent
SIZES = (2500, 5000, 10_000, 20_000, 40_000)
PIECE = {"patients": 1385, "valid_patients": 1, "laterals": False, "most_studies": 3}  # some 2,500 films
JUDGES = {"patients": 1, "valid_patients": 5000, "seed": 11, "laterals": False, "most_studies": 3}
OTHERS = 4  # pieces that the pretrained backbone has learned: 10,000 films of other patients
EPOCHS = {"epochs": 5, "drop_every": 4, "batch_size": 32}
REFITS = {"": {}, ", children conditional": {"cells": "conditional"}, ", parents only": {"labels": "parents"}}
# What must be the same in all cells of a work folder; fields that recipes gain later do not count.
SETTLED = ("rescaled_size", "crop_size", "image_size", "normalise", "batchnorm_momentum", "lsr_ones", "blank")
SETTLED_STAGE = ("epochs", "batch_size", "learning_rate", "learning_rate_drop", "drop_every")
ROWS = ("flat", "leaves", "union", "any-parent", "halves", "chen", "flat, twice the epochs")


@dataclass
class Bench:
    """The films and the one network that is traced; weights and optimizer start anew for every cell."""

    args: argparse.Namespace
    base: recipes.Recipe
    networks: dict = field(default_factory=dict)
    loaded: dict = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------- films

    def piece(self, name: str, **settings) -> tuple[pd.DataFrame, np.ndarray]:
        """Table (with the clean truth's codes in columns `truth ...`) and crops of one piece, drawn if needed."""
        folder = self.args.work / "films" / name
        if not (folder / "table.pkl").exists():
            self._draw(name, folder, settings)
        return pd.read_pickle(folder / "table.pkl"), np.load(folder / "crops.npy")

    def _draw(self, name: str, folder: Path, settings: dict) -> None:
        from chexpert_hier.films.decode import read_film
        from chexpert_hier.films.template import Cropper, learn_template

        drawn = making.ensure(folder / "drawn", processes=self.args.processes, report_noise=1.0, **settings)
        split = name.partition("-")[0]
        dataset = read(drawn).split(split)
        table, truth = dataset.films.copy(), read(drawn, train_file="train_truth.csv").split(split)
        table["path"] = [f"films/{name}/{key}" for key in dataset.keys]
        table["patient"] = [f"{name} {patient}" for patient in table["patient"]]
        for label in dataset.labels:
            table[f"truth {label}"] = truth.films[label].to_numpy()
        file, side = self.args.work / "films" / "template.npy", self.base.crop_size
        if not file.exists():
            plain = Cropper("centre", None, self.base.rescaled_size, side)
            with written_whole(file) as beside:
                np.save(beside, learn_template((plain.rescale(read_film(path)) for path in dataset.files[:500]), side))
        cropper = Cropper("template", np.load(file), self.base.rescaled_size, side)
        crops = np.concatenate([cropper.crop([read_film(path)]).crops for path in dataset.files])
        with written_whole(folder / "crops.npy") as beside:
            np.save(beside, crops)
        with written_whole(folder / "table.pkl") as beside:
            table.to_pickle(beside, compression=None)
        shutil.rmtree(drawn)

    def films(self, size: int, noise: int, first: int = 1000):
        """The first `size` training films; with noise 0 the reports say what is there, no more and no less."""
        if (size, noise, first) not in self.loaded:
            tables, crops, count = [], [], 0
            while count < size:
                seed = first + len(tables)
                table, pixels = self.piece(f"train-{seed}", seed=seed, **PIECE)
                tables.append(table), crops.append(pixels)
                count += len(table)
            table = pd.concat(tables, ignore_index=True)[:size]
            if not noise:
                for label in hierarchy.CHEXPERT_TREE.labels:
                    table[label] = table[f"truth {label}"]
            self.loaded = {key: value for key, value in self.loaded.items() if key[0] == 0}  # one training set at once
            self.loaded[size, noise, first] = self._source(table, np.concatenate(crops)[:size])
        return self.loaded[size, noise, first]

    def judges(self):
        """The films of the validation patients."""
        if (0, 0, 0) not in self.loaded:
            self.loaded[0, 0, 0] = self._source(*self.piece("valid", **JUDGES))
        return self.loaded[0, 0, 0]

    def _source(self, table: pd.DataFrame, crops: np.ndarray):
        from chexpert_hier.films.batches import IMAGENET, CropSource
        from chexpert_hier.prepare.sources import Films

        dataset = Dataset("phantom", Path("films"), table, hierarchy.CHEXPERT_TREE.labels)
        return Films(dataset, CropSource(crops), IMAGENET, self.base.image_size)

    # ------------------------------------------------------------------------------------------------- training

    def network(self, recipe: recipes.Recipe):
        """The network with its first weights."""
        from chexpert_hier.network import model

        fresh = model.build_model(recipe.arch, hierarchy.CHEXPERT_TREE.labels, recipe.weights, recipe.image_size,
                                  seed=recipe.seed, batchnorm_momentum=recipe.batchnorm_momentum)
        network = self.networks.setdefault(recipe.arch, fresh)
        network.set_weights(fresh.get_weights())
        return network

    def train(self, recipe: recipes.Recipe, network, films):
        """Walk the recipe's stages on these films; the log judges 400 validation films."""
        from chexpert_hier.training import stages

        few = self._some(self.judges(), np.arange(len(self.judges())) < 400)
        folder = self.args.work / f"present-{self.args.arch}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stages.train(stages.Training(recipe, hierarchy.CHEXPERT_TREE, network, films, few, folder))

    @staticmethod
    def _some(films, chosen: np.ndarray):
        from chexpert_hier.films.batches import CropSource

        return replace(films, dataset=films.dataset.select(chosen),
                       pixels=CropSource(films.pixels.crops, np.flatnonzero(chosen)))

    def keep(self, cell: Path, name: str, network, began: float) -> None:
        """The finished cell: p of the validation films before any product."""
        from chexpert_hier.training import stages

        outputs = stages.outputs_of(network, self.judges(), 256)
        with written_whole(cell / f"{name}.npz") as beside:
            np.savez(beside, outputs=outputs, seconds=time.monotonic() - began)
        print(f"{cell.relative_to(self.args.work)}/{name}: {time.monotonic() - began:.0f} s", flush=True)

    # ------------------------------------------------------------------------------------------------- rows

    def row(self, cell: Path, row: str, size: int, noise: int, seed: int) -> None:
        """Train what is missing of one row."""
        films, recipe = self.films(size, noise), replace(self.base, seed=seed)
        first = recipe.stages[0]
        if row == "halves":
            return self.halves(cell, films, recipe)
        began = time.monotonic()
        if row == "chen":  # as many epochs of all layers as stage 1, at its rates
            recipe = replace(recipe, ct_rows="chen", stages=(first, replace(first, name="stage2", rows="all")))
        elif row == "flat, twice the epochs":
            twice = replace(first, epochs=2 * first.epochs, drop_every=2 * first.drop_every)
            recipe = replace(recipe, policy="u-ones+lsr", stages=(twice,))
        else:
            reading = {"policy": "u-ones+lsr"} if row == "flat" else {"ct_rows": row}
            names = {f"{row}{', refit' * (row == 'flat')}{extra}": change for extra, change in REFITS.items()
                     if row in ("leaves", "union") or not extra}
            return self.refits(cell, row, replace(recipe, **reading), films, dict.fromkeys(names, films), names)
        if not (cell / f"{row}.npz").exists():
            network = self.network(recipe)
            self.train(recipe, network, films)
            self.keep(cell, row, network, began)
        return None

    def refits(self, cell: Path, row: str, recipe: recipes.Recipe, films, refitted: dict, changes: dict) -> None:
        """Stage 1 on `films`, its weights kept; then stage 2 on each of `refitted`, from these weights."""
        first, second = recipe.stages
        flat = not recipe.conditional
        if all((cell / f"{name}.npz").exists() for name in (*refitted, *[row] * flat)):
            return
        file, began = cell / f"{row}.stage1.npz", time.monotonic()
        network = self.network(recipe)
        if not file.exists():
            self.train(replace(recipe, stages=(replace(first, rows="all") if flat else first,)), network, films)
            with written_whole(file) as beside:
                np.savez(beside, *network.get_weights())
        with np.load(file) as stored:
            weights = [stored[name] for name in stored.files]
        network.set_weights(weights)
        if flat and not (cell / f"{row}.npz").exists():
            self.keep(cell, row, network, began)
        for name, others in refitted.items():
            if not (cell / f"{name}.npz").exists():
                began = time.monotonic()
                network.set_weights(weights)
                self.train(replace(recipe, stages=(replace(second, **changes[name]),)), network, others)
                self.keep(cell, name, network, began)

    def halves(self, cell: Path, films, recipe: recipes.Recipe) -> None:
        """Stage 1 on half of the patients; the refit on the same half, on the other half, on all."""
        number = pd.factorize(films.dataset.films["patient"])[0]
        half = {"A": self._some(films, number % 2 == 0), "B": self._some(films, number % 2 == 1)}
        for kind, change in (("flat", {"policy": "u-ones+lsr"}), ("leaves", {"ct_rows": "leaves"})):
            for one, other in ("AB", "BA"):
                refitted = {f"{kind} {one}, refit {one}": half[one], f"{kind} {one}, refit {other}": half[other],
                            f"{kind} {one}, refit AB": films}
                self.refits(cell, f"{kind} {one}", replace(recipe, **change), half[one], refitted,
                            {name: {} for name in refitted})

    def pretrained(self) -> str:
        """A file with the backbone of a flat U-Ones network that has learned films of other patients."""
        from chexpert_hier.network import backbones, model

        file = self.args.work / f"pretrained-{self.args.arch}.weights.h5"
        if not file.exists():
            recipe = replace(self.base, policy="u-ones", seed=100, stages=self.base.stages[:1])
            network = self.network(recipe)
            self.train(recipe, network, self.films(OTHERS * 2500, 1, first=2000))
            backbone = backbones.BACKBONES[recipe.arch].build(recipe.image_size)
            backbone.set_weights(model.map_model(network)[0].get_weights())
            with written_whole(file) as beside:
                backbone.save_weights(beside)
        return str(file)


def base_recipe(args: argparse.Namespace) -> recipes.Recipe:
    """The phantom's recipe as in experiments/pham2019_table1.py; crops are searched on films of 73 pixels."""
    small = {"rescaled_size": round(args.size * 8 / 7), "crop_size": args.size, "image_size": args.size}
    base = replace(recipes.PHANTOM, arch=args.arch, **small)
    return replace(base, stages=(replace(base.stages[0], **EPOCHS), base.stages[1]))


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="training films")
    answer.add_argument("--seeds", type=int, default=3)
    answer.add_argument("--noise", type=int, nargs="+", default=[1], choices=(0, 1), help="1: reports err and omit as "
                        "CheXpert's, 0: they say what is there")
    answer.add_argument("--starts", nargs="+", default=["random"], choices=("random", "pretrained"))
    answer.add_argument("--rows", nargs="+", default=list(ROWS[:4]), choices=ROWS)
    answer.add_argument("--arch", default="tiny")
    answer.add_argument("--size", type=int, default=64, help="pixels of the network's input")
    answer.add_argument("--processes", type=int, default=1, help="that draw films")
    answer.add_argument("--threads", type=int, default=1, help="of TensorFlow")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "readings", help="films and finished cells")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "readings")
    answer.add_argument("--collect", action="store_true", help="train nothing more; put together what is finished")
    answer.add_argument("--tables-only", action="store_true", help="compute the tables from the raw outputs again")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        bench = Bench(args, base_recipe(args))
        if not args.collect:
            _train_all(bench)
        collect(bench)
    tables(args.out)
    return 0


def _train_all(bench: Bench) -> None:
    import tensorflow as tf

    args = bench.args
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    settings = json.dumps({
        "films": PIECE, "judges": JUDGES, "generator": making.GENERATOR_VERSION,
        "recipe": {name: getattr(bench.base, name) for name in SETTLED},
        "stages": [{name: getattr(stage, name) for name in SETTLED_STAGE} for stage in bench.base.stages]}, indent=1)
    mark = args.work / f"{args.arch}-{args.size}" / "settings.json"
    if mark.exists() and mark.read_text() != settings:
        raise InputError(f"{mark}: the cells there were trained with other settings; choose another --work")
    write_text(mark, settings)
    for start in args.starts:
        if start == "pretrained":
            bench.base = replace(bench.base, weights=bench.pretrained())
        for size in args.sizes:
            for noise in args.noise:
                for seed in range(args.seeds):
                    for row in args.rows:
                        bench.row(mark.parent / f"noise{noise}-{start}" / str(size) / str(seed), row, size, noise, seed)


def collect(bench: Bench) -> None:
    """Put the raw outputs of all finished cells, the truth and the circumstances into the result folder."""
    names, arrays, seconds = list(hierarchy.CHEXPERT_TREE.labels), {}, {}
    columns = [names.index(label) for label in COLUMNS]
    for file in sorted(bench.args.work.glob("*-*/noise*/*/*/*.npz")):
        if file.name.endswith(".stage1.npz"):
            continue
        cell = "|".join([*file.relative_to(bench.args.work).parts[:-1], file.stem])
        with np.load(file) as stored:
            p, seconds[cell] = np.clip(stored["outputs"][:, columns].astype(float), 1e-7, 1 - 1e-7), float(
                stored["seconds"])
        arrays[cell] = (np.log(p) - np.log1p(-p)).astype(np.float16)
    judges = bench.judges().dataset
    arrays |= {"truth": judges.raw[:, columns].astype(np.int8), "patients": judges.films["patient"].to_numpy(str)}
    with written_whole(bench.args.out / "outputs.npz") as beside:
        np.savez_compressed(beside, **arrays)
    facts = {**circumstances(), "recipe": replace(bench.base, weights="none").to_json(), "piece": PIECE,
             "judges": JUDGES, "pretrained_films": OTHERS * 2500, "seconds": seconds,
             "phantom_generator": making.GENERATOR_VERSION}
    write_text(bench.args.out / "facts.json", json.dumps(facts, indent=1))


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
