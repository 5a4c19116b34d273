"""External validation shown: a model inside and on other films, real ones and a phantom's second "hospital".

    python experiments/external.py --nih DIR

Real films: a network trained on PA films of NIH ChestX-ray14 (CheXpert's layout) answers for AP films of other
patients. Phantom: a network trained on one phantom answers for new patients of the same one, and for the same patients
as another hospital would show them: contrast, resolution, markers in the corner, rarer findings, and all of these.
Everything is done by the package's own commands; the result folder keeps their external.csv.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from companions import HERE, NIH, circumstances, table

from chexpert_hier import commands
from chexpert_hier.files import write_text
from chexpert_hier.labels import COMPETITION_LABELS

SHOWN = ("AUROC inside", "AUROC outside", "difference", "verdict", "sensitivity inside", "sensitivity outside",
         "specificity inside", "specificity outside", "slope inside", "slope outside", "prevalence inside",
         "prevalence outside")


def contrast(film: np.ndarray) -> np.ndarray:
    """Another film's curve: darker mid-tones, a narrower range. uint8 (h, w) in and out."""
    return np.round(30 + 180 * (film / 255.0) ** 1.8).astype(np.uint8)


def resolution(film: np.ndarray) -> np.ndarray:
    """A third of the resolution, brought back to the old size."""
    small = cv2.resize(film, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, film.shape[::-1], interpolation=cv2.INTER_LINEAR)


def markers(film: np.ndarray) -> np.ndarray:
    """White letters and a box burned into two corners."""
    out, side = film.copy(), film.shape[0]
    cv2.putText(out, "R PORT", (side // 20, side // 6), cv2.FONT_HERSHEY_SIMPLEX, side / 320, 255, max(1, side // 160))
    out[-side // 10:, -side // 4:] = 235
    return out


HOSPITALS = {"same, new patients": (), "contrast": (contrast,), "resolution": (resolution,), "markers": (markers,),
             "rarer findings": (), "all of these": (contrast, resolution, markers)}
RARER = ("rarer findings", "all of these")
KEPT = 0.35  # of the patients with one of the five findings, where findings are rarer


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--nih", type=Path, help="NIH films in CheXpert's layout (train.csv, valid.csv, column AP/PA)")
    answer.add_argument("--patients", type=int, default=500, help="training patients of the phantom")
    answer.add_argument("--valid-patients", type=int, default=300)
    answer.add_argument("--epochs", type=int, default=5, help="of each of the two stages")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "external")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "external")
    answer.add_argument("--tables-only", action="store_true")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not args.tables_only:
        _phantom(args)
        if args.nih:
            _nih(args)
        write_text(args.out / "facts.json", json.dumps(circumstances() | {
            "patients": args.patients, "valid_patients": args.valid_patients, "epochs": args.epochs}, indent=1))
    tables(args.out)
    return 0


def _command(name: str, *words: object) -> None:
    subprocess.run([sys.executable, "-m", f"chexpert_hier.{name}", *map(str, words)], check=True)


def _trained(args: argparse.Namespace, data: Path, name: str) -> Path:
    run = args.work / f"run-{name}"
    if not (run / "evaluation.csv").exists():
        _command("run", "--data", data, "--recipe", "phantom", "--arch", "tiny", "--epochs", args.epochs, "--out", run,
                 "--no-export", "--quiet", *(["--resume"] if run.exists() else []))
    return run


def _judged(args: argparse.Namespace, run: Path, data: Path, name: str) -> None:
    """The command that a user types; its table goes to the results."""
    out = args.work / f"judged-{name.replace(', ', '-').replace(' ', '-')}"
    if not (out / "evaluation.html").exists():  # the last of its files
        _command("evaluate", "--run", run, "--data", data, "--reader", "chexpert", "--out", out, "--quiet")
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / f"{name}.csv", pd.read_csv(out / "external.csv").to_csv(index=False, float_format="%.5f"))


def _phantom(args: argparse.Namespace) -> None:
    inside, outside = args.work / "phantom-inside", args.work / "phantom-outside"
    for folder, seed, patients in ((inside, 31, args.patients), (outside, 32, 4)):
        if not (folder / "valid.csv").exists():
            _command("phantom", "--out", folder, "--patients", patients, "--valid-patients", args.valid_patients,
                     "--seed", seed, "--no-laterals", "--most-studies", 3)
    run = _trained(args, inside, "phantom")
    for name, changes in HOSPITALS.items():
        _judged(args, run, _hospital(args.work, outside, name, changes), f"phantom, {name}")


def _hospital(work: Path, source: Path, name: str, changes: tuple) -> Path:
    """The validation films of the second phantom as another hospital shows them; train.csv holds a few as they are."""
    folder = work / f"hospital-{name.replace(', ', '-').replace(' ', '-')}"
    if (folder / "valid.csv").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    valid = pd.read_csv(folder / "valid.csv")
    if name in RARER:
        present = (valid[list(COMPETITION_LABELS)] == 1).any(axis=1)
        valid = valid[~present | (np.random.default_rng(0).random(len(valid)) < KEPT)]
    for path in valid["Path"]:
        file = folder / path.partition("/")[2]
        film = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        for change in changes:
            film = change(film)
        cv2.imwrite(str(file), film, [cv2.IMWRITE_JPEG_QUALITY, 92])
    train = pd.read_csv(folder / "train.csv").head(1)                # a data set has both tables
    train.to_csv(folder / "train.csv", index=False)
    valid.to_csv(folder / "valid.csv", index=False)
    return folder


def _nih(args: argparse.Namespace) -> None:
    """PA films inside, AP films outside; one film per patient, so that nobody is on both sides."""
    folders = {}
    for projection in ("PA", "AP"):
        folder = folders[projection] = args.work / f"nih-{projection}"
        for split in ("train", "valid"):
            films = pd.read_csv(args.nih / f"{split}.csv")
            films = films[films["AP/PA"] == projection]
            for path in films["Path"]:
                place = folder / path.partition("/")[2]
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    shutil.copyfile(args.nih.parent / path, place)
            films.to_csv(folder / f"{split}.csv", index=False)
    _judged(args, _trained(args, folders["PA"], "nih"), folders["AP"], "NIH, PA to AP")


def tables(out: Path) -> None:
    """Write table.csv and README.md from the external.csv of every pair."""
    facts = json.loads((out / "facts.json").read_text())
    rows = [{"outside": file.stem, **_row(pd.read_csv(file).iloc[-1])} for file in sorted(out.glob("*, *.csv"))]
    found = pd.DataFrame(rows)
    write_text(out / "table.csv", found.to_csv(index=False))
    lines = ["# External validation: a model inside and on other films", "",
             f"`{' '.join(facts['command'])}`, {facts['date']}, {facts['machine']}. Network tiny from random weights, "
             f"{facts['epochs']} + {facts['epochs']} epochs, recipe phantom; {facts['patients']} training and "
             f"{facts['valid_patients']} validation patients of the phantom, 417 PA films of NIH for training: far too "
             "small to say how well such a model does; shown is what `evaluate --run --data` says of it.", "",
             "Means of the five competition findings; thresholds chosen inside (Youden) and carried over; slope: of "
             "the truth's logistic regression on the score's logit (1: as confident as it may be). Intervals: 95 %, "
             "bootstrap over patients.", "", *table(found[["outside", *SHOWN]])]
    if any(found["outside"].str.startswith("NIH")):
        lines.append(NIH)
    write_text(out / "README.md", "\n".join([*lines, ""]))
    print("\n".join(lines))


def _row(mean: pd.Series) -> dict[str, object]:
    out: dict[str, object] = {
        f"AUROC {side}": f"{mean[f'auroc_{side}']:.3f} ({mean[f'auroc_low_{side}']:.3f} to "
                         f"{mean[f'auroc_high_{side}']:.3f})" for side in ("inside", "outside")}
    out |= {"difference": f"{mean['difference']:+.3f} ({mean['difference_low']:+.3f} to "
                          f"{mean['difference_high']:+.3f})", "verdict": mean["verdict"]}
    return out | {f"{what} {side}": round(float(mean[f"{what}_{side}"]), 3) for what in
                  ("sensitivity", "specificity", "slope", "prevalence") for side in ("inside", "outside")}


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
