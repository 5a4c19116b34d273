"""Can the phantom be solved without looking at the chest? Logistic regressions on shortcuts, findings' AUROC.

    python experiments/phantom_shortcuts.py [--data DIR]

Trained on the clean truth of the training films, tested on the validation films (frontal views). Features: a 32-bin
histogram, the file's size, the metadata (sex, age, projection, image size) and a 16×16 thumbnail. For every finding
each should stay below 0.70; 0.80 is allowed where size itself is the finding: Cardiomegaly, Enlarged
Cardiomediastinum, Pleural Effusion. Writes results/phantom_shortcuts.csv and .md.
"""

import argparse
import datetime
import platform
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from chexpert_hier import commands, files
from chexpert_hier.phantom import making, reports

RESULTS = Path(__file__).parent / "results" / "phantom_shortcuts"
BY_SIZE = ("Enlarged Cardiomediastinum", "Cardiomegaly", "Pleural Effusion")
PENALTIES = (1e-4, 1e-3, 1e-2)  # the best on the test films is reported: the shortcut gets every advantage


def read(folder: Path, name: str) -> pd.DataFrame:
    """Frontal rows of one CSV, with the film's file."""
    table = pd.read_csv(folder / name)
    table = table[table["Frontal/Lateral"] == "Frontal"].reset_index(drop=True)
    return table.assign(file=[folder / path.split("/", 1)[1] for path in table["Path"]])


def features(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Shortcut features by name, each float (films, n)."""
    films = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in table["file"]]
    size = np.array([[file.stat().st_size] for file in table["file"]], float)
    shape = np.array([film.shape for film in films], float)
    histogram = np.stack([np.bincount(film.ravel() // 8, minlength=32) / film.size for film in films])
    thumbnails = [cv2.resize(film, (16, 16), interpolation=cv2.INTER_AREA).ravel() / 255 for film in films]
    who = np.stack([table["Sex"] == "Male", table["Age"], table["Age"] ** 2, table["AP/PA"] == "PA"], axis=1)
    return {"histogram": histogram, "file size": np.hstack([size, np.log(size), size / shape.prod(1, keepdims=True)]),
            "metadata": np.hstack([who.astype(float), shape]), "thumbnail": np.stack(thumbnails)}


def auroc(train: np.ndarray, truth: np.ndarray, test: np.ndarray, test_truth: np.ndarray) -> float:
    """AUROC of the best of a few penalised logistic regressions."""
    scores = []
    for penalty in PENALTIES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))
        scores.append(roc_auc_score(test_truth, model.fit(train, truth).decision_function(test)))
    return max(scores)


def measure(folder: Path) -> pd.DataFrame:
    """One row per finding: positives among the test films and an AUROC per shortcut."""
    train, test = read(folder, "train_truth.csv"), read(folder, "valid.csv")
    given, asked = features(train), features(test)
    rows = []
    for finding in reports.FINDINGS:
        row = {"finding": finding, "positives": int(test[finding].sum()), "films": len(test)}
        for name in given:
            row[name] = auroc(given[name], train[finding], asked[name], test[finding])
        row["allowed"] = 0.80 if finding in BY_SIZE else 0.70
        rows.append(row)
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, marker: dict, command: str) -> None:
    """The committed CSV and the readable table."""
    files.write_text(RESULTS.with_suffix(".csv"), table.to_csv(index=False, float_format="%.3f", lineterminator="\n"))
    columns = ["finding", "positives", "histogram", "file size", "metadata", "thumbnail", "allowed"]
    lines = ["# Shortcuts on the phantom: AUROC of logistic regressions", "",
             f"`{command}`, {datetime.date.today()}, {platform.machine()}, Python {platform.python_version()}; "
             f"generator version {marker['version']}, settings {marker['settings']}, films {marker['films']}.", "",
             "Trained on the clean truth of the training films, tested on the validation films, frontal views; of "
             f"{len(PENALTIES)} penalties the best on the test films is shown, which favours the shortcut. "
             f"Findings above what is allowed: {int((table[columns[2:6]].max(axis=1) >= table['allowed']).sum())}.", "",
             "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for _, row in table.iterrows():
        lines.append("| " + " | ".join(f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c])
                                       for c in columns) + " |")
    files.write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Make the phantom if needed, measure, write the results."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--data", help="a phantom folder; made in the cache folder when not given")
    words.add_argument("--no-results", action="store_true", help="only print")
    given = words.parse_args(argv)
    if given.data:
        folder = Path(given.data)
    else:
        folder = making.ensure(making.default_folder("shortcuts"), patients=1600, valid_patients=1000, seed=11,
                                laterals=False, most_studies=2)
    table = measure(folder)
    print(table.to_string(index=False, float_format="%.3f"))
    if not given.no_results:
        write(table, making.read_marker(folder), " ".join(["python", "experiments/phantom_shortcuts.py",
                                                            *(argv if argv is not None else sys.argv[1:])]))
    return 0


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
