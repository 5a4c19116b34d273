"""Section 4.6 of Pham et al. 2019: a model on the test studies, beside radiologists.

    python experiments/pham2019_test.py --run RUN [RUN ...] --data CheXpert --labels cheXpert-test-set-labels
    python experiments/pham2019_test.py --run RUN [RUN ...]             # a phantom test split, eight simulated raters

`--data` holds test/ (668 films) and `--labels` is a checkout of rajpurkarlab/cheXpert-test-set-labels: groundtruth.csv
and radiologists/benchmark_radiologists/*.csv. A study's score is the largest over its frontal films (deviations D9).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from companions import circumstances

from chexpert_hier import commands, evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import radiologists
from chexpert_hier.files import write_text
from chexpert_hier.labels import CHEXPERT_LABELS, COMPETITION_LABELS, key
from chexpert_hier.phantom import making

HERE = Path(__file__).parent
PAPER = (("Pham et al., the leaderboard's entry (1 Sep 2019)", .930, 2.6),
         ("Pham et al., the released prediction file", .924, 2.4), ("Irvin et al.", .907, 1.8))
PHANTOM = {"patients": 50, "valid_patients": 500, "seed": 4664, "laterals": True}
# Sensitivity and specificity of simulated raters about those of the three benchmark radiologists.
RATER_SENSITIVITY, RATER_SPECIFICITY, RATER_SPREAD = 0.70, 0.87, 0.06


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if (args.data is None) != (args.labels is None):
        raise InputError("--data and --labels go together; without both, a phantom test split is drawn")
    films, truth, raters = _phantom_test(args.work) if args.data is None else _released(args.data, args.labels)
    predictions = args.work / "predictions.csv"
    predictions.unlink(missing_ok=True)
    command = [sys.executable, "-m", "chexpert_hier.predict", films, "--model", *args.run, "--tta", args.tta, "--out",
               predictions, "--skip-bad"]
    subprocess.run([str(part) for part in command], check=True)
    joining = evaluate.Joining(CHEXPERT_LABELS, unit="study", views="frontal")
    result = evaluate.evaluate(evaluate.read_predictions(predictions), truth, joining,
                               evaluate.Judging(name="the model"))
    readers = radiologists.beside(result, raters, truth, replicates=1000)
    evaluate.write(evaluate.Findings([result], readers={result.name: readers}), args.out)
    write_text(args.out / "README.md", page(args, result, readers, films))
    print((args.out / "README.md").read_text())
    return 0


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--run", nargs="+", required=True, type=Path, help="finished runs; several are an ensemble")
    answer.add_argument("--data", type=Path, help="folder that holds test/patient.../study1/view1_frontal.jpg")
    answer.add_argument("--labels", type=Path, help="checkout of rajpurkarlab/cheXpert-test-set-labels")
    answer.add_argument("--tta", type=int, default=0)
    answer.add_argument("--work", type=Path, default=HERE / "work" / "test")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "pham2019_test")
    return answer


def _released(data: Path, labels: Path):
    """The 518 frontal test films, the majority of five radiologists, and the three others."""
    folder = data / "test"
    if next(folder.glob("patient*/study*/*frontal.jpg"), None) is None:
        raise InputError(f"{folder}: no films there; expected test/patient64741/study1/view1_frontal.jpg and so on")
    files = sorted((labels / "radiologists" / "benchmark_radiologists").glob("*.csv"))
    return folder, evaluate.read_truth(labels / "groundtruth.csv"), {file.stem: evaluate.read_truth(file)
                                                                     for file in files}


def _phantom_test(work: Path):
    """500 phantom studies that no run was trained on; five simulated raters' majority as truth, three to compare."""
    data = making.ensure(work / "phantom-test", **PHANTOM)
    films = data / "valid.csv"
    table = pd.read_csv(films)
    study = table["Path"].map(lambda path: key(path).rsplit("/", 1)[0])
    clean = table.groupby(study, sort=False)[list(CHEXPERT_LABELS)].max()
    random = np.random.default_rng(8)
    raters = [_rated(clean, random) for _ in range(8)]
    majority = (sum(rater.to_numpy() for rater in raters[:5]) >= 3).astype(float)
    truth = pd.DataFrame(majority, columns=clean.columns)
    truth.insert(0, "Study", clean.index)
    others = {}
    for number, rater in enumerate(raters[5:], start=1):
        others[f"rater {number}"] = rater.reset_index(drop=True)
        others[f"rater {number}"].insert(0, "Study", clean.index)
    return films, truth, others


def _rated(clean: pd.DataFrame, random) -> pd.DataFrame:
    """A rater who misses and invents findings, with operating points of its own per finding."""
    sensitivity = np.clip(random.normal(RATER_SENSITIVITY, RATER_SPREAD, clean.shape[1]), 0.3, 0.99)
    specificity = np.clip(random.normal(RATER_SPECIFICITY, RATER_SPREAD, clean.shape[1]), 0.5, 0.99)
    chance = np.where(clean.to_numpy() == 1, sensitivity, 1 - specificity)
    return pd.DataFrame((random.random(clean.shape) < chance).astype(float), columns=clean.columns, index=clean.index)


def page(args, result, readers, films: Path) -> str:
    """The result page."""
    table = result.table.set_index("label")
    recipes = [json.loads((run / "recipe.json").read_text())["recipe"] for run in args.run]
    below, facts = readers.below.set_index("label"), circumstances()
    lines = ["# Section 4.6: beside radiologists", "",
             f"`{' '.join(facts['command'])}`, {facts['date']}, {facts['machine']}.",
             f"{len(result.cases.keys)} studies of {films.parent.name}; members: "
             + ", ".join(f"{recipe['arch']} at {recipe['image_size']} pixels" for recipe in recipes) + ".", ""]
    if args.data is None:
        lines += ["Synthetic films and simulated raters: this shows that the procedure runs, and says nothing about "
                  "chest X-rays or radiologists.", ""]
    lines += ["| label | AUROC | 95 % interval | positives | radiologists at or below the curve | strictly below |",
              "|---|---|---|---|---|---|"]
    for label in (*COMPETITION_LABELS, "mean of five"):
        row = table.loc[label]
        count = below.loc[label] if label in below.index else None
        counts = f"{count['below_roc']:g} | {count['strictly_below_roc']:g}" if count is not None else " | "
        lines.append(f"| {label} | {row['auroc']:.3f} | {row['auroc_low']:.3f} to {row['auroc_high']:.3f} | "
                     f"{row['positives']:g} | {counts} |")
    lines += ["", "| published, CheXpert's 500 test studies | mean AUROC | radiologists below |", "|---|---|---|"]
    lines += [f"| {name} | {area:.3f} | {count} |" for name, area, count in PAPER]
    return "\n".join([*lines, "", *readers.notes, "", "![ROC curves](figures/evaluation_roc.png)", ""])


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
