"""CheXNet's table of AUROCs beside the paper's: the recipe in small on NIH films, and published scores evaluated.

    python experiments/chexnet.py --data DIR --scores DIR

DIR of `--data` is a ChestX-ray14 folder; DIR of `--scores` holds reference_preds.csv.gz, their truth and the published
AUROCs of a reproduction (github.com/jrzech/reproduce-chexnet). `--recipe chexnet --arch densenet121` with ImageNet
weights on the whole data set is the paper's system; the defaults are a small network from random weights.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from companions import HERE, NIH, Bench, bootstrap, heading, interval, read, table, write_facts

from chexpert_hier import commands, recipes
from chexpert_hier.files import write_text, written_whole

# Rajpurkar et al. 2017, Table 2: Wang et al. 2017, Yao et al. 2017, CheXNet.
PAPER = {
    "Atelectasis": (.716, .772, .8094), "Cardiomegaly": (.807, .904, .9248), "Effusion": (.784, .859, .8638),
    "Infiltration": (.609, .695, .7345), "Mass": (.706, .792, .8676), "Nodule": (.671, .717, .7802),
    "Pneumonia": (.633, .713, .7680), "Pneumothorax": (.806, .841, .8887), "Consolidation": (.708, .788, .7901),
    "Edema": (.835, .882, .8878), "Emphysema": (.815, .829, .9371), "Fibrosis": (.769, .767, .8047),
    "Pleural_Thickening": (.708, .765, .8062), "Hernia": (.767, .914, .9164)}


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--data", type=Path, help="a ChestX-ray14 folder; without it only the published scores")
    answer.add_argument("--scores", type=Path, help="folder of the published scores; without it only the training")
    answer.add_argument("--arch", default="tiny")
    answer.add_argument("--size", type=int, default=64, help="pixels")
    answer.add_argument("--epochs", type=int, default=20)
    answer.add_argument("--seeds", type=int, default=5)
    answer.add_argument("--work", type=Path, default=HERE / "work" / "chexnet")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "chexnet")
    answer.add_argument("--tables-only", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        _train_all(args)
    tables(args.out, args.scores)
    return 0


def base_recipe(args: argparse.Namespace) -> recipes.Recipe:
    """The paper's recipe, made small."""
    stage = replace(recipes.CHEXNET.stages[0], epochs=args.epochs)
    return replace(recipes.CHEXNET, arch=args.arch, weights="none", rescaled_size=args.size, crop_size=args.size,
                   image_size=args.size, cache=True, batchnorm_momentum=0.9, stages=(stage,))


def _train_all(args: argparse.Namespace) -> None:
    if not args.data:
        return
    bench, base, arrays = Bench(args.work), base_recipe(args), {}
    dataset = read(base, args.data)
    for seed in range(args.seeds):
        recipe = replace(base, seed=seed)
        drawn = read(recipe, args.data)  # every seed draws its own 70/10/20 of the patients
        pneumonia = replace(recipe, outputs=("Pneumonia",),
                            stages=(replace(recipe.stages[0], loss=recipes.CHEXNET_PNEUMONIA.stages[0].loss),))
        for name, asked in (("14 findings", recipe), ("pneumonia alone", pneumonia)):
            films = drawn if name == "14 findings" else read(pneumonia, args.data)
            tag = f"chexnet {name} {args.arch} {args.size} {args.epochs} {seed}"
            found = bench.run(tag, asked, lambda films=films, asked=asked: bench.source(films, asked), "test")
            arrays[f"{name}|{seed}"] = found["outputs"].astype(np.float32)
        test = drawn.split("test")
        arrays[f"truth|{seed}"] = test.raw.astype(np.int8)
        arrays[f"patients|{seed}"] = test.films["patient"].to_numpy(str)
    with written_whole(args.out / "outputs.npz") as beside:
        np.savez_compressed(beside, **arrays)
    write_facts(args.out, bench, base, dataset, seeds=args.seeds)


# ---------------------------------------------------------------------------------------------------- the tables

def tables(out: Path, scores: Path | None) -> None:
    """Write table.csv, scores.csv and README.md from outputs.npz and facts.json, and from the published scores."""
    rows = pd.DataFrame(PAPER, index=["Wang 2017", "Yao 2017", "CheXNet"]).T.rename_axis("finding").reset_index()
    title, notes = "CheXNet: AUROC of 14 findings", []
    lines = [f"# {title}", ""]
    if (out / "outputs.npz").exists():
        facts, raw = json.loads((out / "facts.json").read_text()), np.load(out / "outputs.npz")
        lines = heading(facts, title)
        ours, notes = _ours(raw, facts)
        rows = rows.merge(ours, on="finding", how="left")
    if scores is not None:
        found = published(scores)
        write_text(out / "scores.csv", found.to_csv(index=False, float_format="%.8f"))
    if (out / "scores.csv").exists():
        found = pd.read_csv(out / "scores.csv")
        rows = rows.merge(found.drop(columns="films"), on="finding")
        gap = (found["reproduction, published"] - found["reproduction, ours"]).abs().max()
        close = "exactly" if gap == 0 else f"to {gap:.1g}"
        notes.append(f"- The evaluation half: {int(found['films'].iloc[0]):,} scores of a published reproduction give "
                     f"its own 14 AUROCs {close}; mean {found['reproduction, ours'].mean():.6f}. `low` and "
                     "`high` are the 95 % interval over patients.")
    mean = rows.drop(columns=["finding", "low", "high"], errors="ignore").mean(numeric_only=True)
    rows = pd.concat([rows, pd.DataFrame([{"finding": "mean of 14", **mean}])], ignore_index=True)
    write_text(out / "table.csv", rows.to_csv(index=False, float_format="%.4f"))
    page = "\n".join([*lines, *table(rows, 4), *notes, "- The paper's split is a random one by patient, not "
                      "comparable with numbers on the official lists.", NIH, ""])
    write_text(out / "README.md", page)
    print(page)


def _ours(raw, facts: dict) -> tuple[pd.DataFrame, list[str]]:
    """Mean over seeds, each with its own split; with the test films' positives and the spread."""
    areas, alone, positives = [], [], []
    place = facts["labels"].index("Pneumonia")
    for seed in range(facts["seeds"]):
        truth, patients = raw[f"truth|{seed}"].astype(np.float32), raw[f"patients|{seed}"]
        areas.append(bootstrap(raw[f"14 findings|{seed}"], truth, patients)[0])
        alone.append(bootstrap(raw[f"pneumonia alone|{seed}"], truth[:, [place]], patients)[0][0])
        positives.append(truth.sum(axis=0))
    areas = np.array(areas)
    rows = pd.DataFrame({"finding": facts["labels"], "here (small, from scratch)": np.nanmean(areas, axis=0),
                         "smallest seed": np.nanmin(areas, axis=0), "largest seed": np.nanmax(areas, axis=0),
                         "positives in a test split": np.mean(positives, axis=0).round(1)})
    low, high = min(np.nanmean(areas, axis=1)), max(np.nanmean(areas, axis=1))
    notes = [f"- Here: {facts['films']['train']['films']} training films, mean over 14 findings from {low:.3f} to "
             f"{high:.3f} over {facts['seeds']} seeds, each with its own split. So few films and no pre-training say "
             "nothing of what the recipe reaches on the whole data set.",
             f"- The pneumonia network with one output and weighted loss: {np.mean(alone):.3f} "
             f"({min(alone):.3f} to {max(alone):.3f}); with a handful of positives a test split this is noise."]
    return rows, notes


def published(folder: Path) -> pd.DataFrame:
    """AUROCs of the published scores, theirs and ours, with intervals over patients."""
    preds = pd.read_csv(folder / "reference_preds.csv.gz")
    truth = pd.read_csv(folder / "reference_preds_truth_onehot.csv.gz").set_index("Image Index")
    truth = truth.loc[preds["Image Index"]]
    theirs = pd.read_csv(folder / "reference_aucs.csv")
    theirs = dict(zip(theirs["label"], theirs["auc"]))
    names = list(PAPER)
    p, t = preds[[f"prob_{name}" for name in names]].to_numpy(), truth[names].to_numpy(np.float32)
    areas, drawn = bootstrap(p, t, preds["Image Index"].str.partition("_")[0].to_numpy(str))
    limits = np.array([interval(values) for values in drawn])
    return pd.DataFrame({"finding": names, "reproduction, published": [theirs[name] for name in names],
                         "reproduction, ours": areas, "low": limits[:, 0], "high": limits[:, 1], "films": len(p)})


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
