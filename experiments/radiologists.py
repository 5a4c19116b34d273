"""Three released prediction files beside radiologists on the CheXpert test set, and CheXNet's published AUROCs.

Reads the label files of rajpurkarlab/cheXpert-test-set-labels and the scores of jrzech/reproduce-chexnet, which are
not part of this repository; writes aggregates only (experiments/results/radiologists.csv and .md).

    python experiments/radiologists.py --data ../shared/data
"""

import argparse
import os
import platform
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier import commands, evaluate
from chexpert_hier.errors import InputError
from chexpert_hier.evaluate import comparison, radiologists
from chexpert_hier.files import write_text
from chexpert_hier.labels import COMPETITION_LABELS

HERE = Path(__file__).resolve().parent
# Computed independently from the same files: AUROC of the five, their mean, radiologists below, strictly.
EXPECTED = {"hieupham": (.8913, .9406, .8996, .9219, .9680, .9243, 2.4, 2.2),
            "ngango3": (.8980, .9377, .9207, .9154, .9664, .9276, 2.6, 2.4),
            "desmond": (.8744, .9330, .9160, .9209, .9468, .9182, 2.4, 2.2)}
READERS = ("bc4", "bc6", "bc8")
# Rajpurkar et al. 2017 (CheXNet, arXiv v3), Table 1: F1 with its 95 % interval, on pneumonia in 420 films; the network,
# the mean of four radiologists, and the difference (a mean over bootstrap samples, so not quite .435 - .387).
CHEXNET_F1 = {"model": (.435, .387, .481), "radiologists": (.387, .330, .442), "difference": (.051, .005, .084)}


def main(argv: list[str] | None = None) -> int:
    """Compute all tables, write them, and say whether they agree with the published numbers."""
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", type=Path, default=Path(os.environ.get("CHEXPERT_HIER_DATA", HERE.parent.parent /
                                                                       "shared" / "data")))
    args.add_argument("--out", type=Path, default=HERE / "results")
    args.add_argument("--replicates", type=int, default=10000)
    args = args.parse_args(argv)
    for folder in ("chexpert_test_labels", "chexnet_preds"):
        if not (args.data / folder).is_dir():
            raise InputError(f"{args.data / folder}: no such folder; give the folder that holds it with --data")
    results, readers = _test_set(args.data / "chexpert_test_labels", args.replicates)
    chexnet = _chexnet(args.data / "chexnet_preds")
    table = pd.DataFrame([_row(name, results[name], readers[name]) for name in EXPECTED])
    deviation = max(np.abs(table.iloc[:, 1:9].to_numpy(float) - np.array(list(EXPECTED.values()))).max(1))
    write_text(args.out / "radiologists.csv", table.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    text = _report(table, results, readers, chexnet, deviation, args.replicates)
    write_text(args.out / "radiologists.md", text)
    print(text)
    return 0 if deviation < 5e-4 and chexnet["difference"].abs().max() < 5e-7 else 1


def _test_set(folder: Path, replicates: int) -> tuple[dict, dict]:
    truth = evaluate.read_truth(folder / "groundtruth.csv")
    points = {name: evaluate.read_predictions(folder / "radiologists" / "benchmark_radiologists" / f"{name}.csv")
              for name in READERS}
    results, readers = {}, {}
    for name in EXPECTED:
        file = folder / "example_models" / "predictions" / "standard" / f"{name}_predictions.csv"
        results[name] = evaluate.evaluate(evaluate.read_predictions(file), truth, evaluate.Joining(COMPETITION_LABELS),
                                          evaluate.Judging(replicates=replicates, curves=False, name=name))
        readers[name] = radiologists.beside(results[name], points, truth, replicates=replicates)
    return results, readers


def _row(name: str, result, readers) -> dict:
    areas = dict(zip(result.table["label"], result.table["auroc"]))
    below = readers.below.iloc[-1]
    mean = result.table.iloc[-1]
    return {"predictions": name, **areas, "below": below.below_roc, "strictly_below": below.strictly_below_roc,
            "below_pr": below.below_pr, "mean_low": mean.auroc_low, "mean_high": mean.auroc_high}


def _chexnet(folder: Path) -> pd.DataFrame:
    result = evaluate.evaluate(evaluate.read_predictions(folder / "reference_preds.csv.gz"),
                               evaluate.read_truth(folder / "reference_preds_truth_onehot.csv.gz"),
                               judging=evaluate.Judging(curves=False))
    table = result.table.iloc[:-1].merge(pd.read_csv(folder / "reference_aucs.csv"), on="label", validate="1:1")
    table["difference"] = table["auroc"] - table["auc"]
    return table[["label", "positives", "auroc", "auroc_low", "auroc_high", "delong_low", "delong_high", "auc",
                  "difference"]]


def _report(table: pd.DataFrame, results: dict, readers: dict, chexnet: pd.DataFrame, deviation: float,
            replicates: int) -> str:
    first = results["hieupham"]
    pairs = [comparison.compare(first.cases, results[name].cases, ("hieupham", name), replicates=replicates).iloc[-1]
             for name in ("ngango3", "desmond")]
    verdicts = "\n".join(f"- {name} against hieupham: mean of five {row.difference:+.4f} ({row.difference_low:+.4f} to "
                         f"{row.difference_high:+.4f}): {row.verdict}." for name, row in
                         zip(("ngango3", "desmond"), pairs))
    points = readers["hieupham"].points
    points = points[["radiologist", "label", "sensitivity", "specificity", "auc", "f1", "kappa"]]
    f1 = _f1(readers["hieupham"].f1)
    return f"""# CheXpert test labels: predictions beside radiologists

`python experiments/radiologists.py` · {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, Python \
{platform.python_version()} · {date.today().isoformat()} · {replicates:,} bootstrap resamples of patients, seed 0

Data: rajpurkarlab/cheXpert-test-set-labels (500 studies; no licence stated: aggregates only here) and
jrzech/reproduce-chexnet (BSD 3-Clause). None of these predictions was made by this package.

AUROC per label, and how many of three radiologists lie below the ROC curve (>=, Stanford's rule; strictly; PR curve).
Largest deviation from the independently computed reference: {deviation:.1e}.

{_markdown(table, 4)}

{verdicts}

## Radiologists

Against the majority of five other radiologists; auc is (sensitivity + specificity) / 2 of the one point.

{_markdown(points, 3)}

## F1 as in CheXNet's Table 1, hieupham

Each rater against every other rater as reference, then the mean; the predictions are called at Youden's threshold,
chosen on the other patients (5 folds), so that they had the truth's help in being dichotomised and the radiologists
had not. The first row is the paper's own: another finding, other films, other raters.

{_markdown(f1, 3)}

## CheXNet reproduction, 22,433 films of 6,187 patients

Ours beside the published AUROCs; largest difference {chexnet["difference"].abs().max():.1e}. Bootstrap (1,000) and
DeLong intervals over patients (Obuchowski's variance).

{_markdown(chexnet.drop(columns="difference"), 6)}
"""


def _f1(ours: pd.DataFrame) -> pd.DataFrame:
    """The paper's F1 scores and ours, each with its 95 % interval; a difference whose interval leaves out 0 counts."""
    kinds = tuple(CHEXNET_F1)
    rows = [("the paper: pneumonia, CheXNet", *CHEXNET_F1.values())]
    rows += [(row["label"], *(tuple(row[f"{kind}{end}"] for end in ("", "_low", "_high")) for kind in kinds))
             for row in ours.to_dict("records")]
    shown = [{"finding": name, **{kind: f"{f1:.3f} ({low:.3f} to {high:.3f})" for kind, (f1, low, high)
                                  in zip(kinds, values)}, "significant": values[2][1] > 0 or values[2][2] < 0}
             for name, *values in rows]
    return pd.DataFrame(shown).replace({True: "yes", False: "no"})


def _markdown(table: pd.DataFrame, digits: int) -> str:
    def cell(value: object) -> str:
        return f"{value:.{digits}f}" if isinstance(value, float | np.floating) else str(value)
    lines = [" | ".join(map(str, table.columns)), " | ".join(["---"] * table.shape[1])]
    lines += [" | ".join(map(cell, row)) for row in table.itertuples(index=False)]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
