r"""How well the look at a film (chexpert_hier.films.plausible) tells odd films from real ones.

    python -m chexpert_hier.phantom --out phantom --patients 500 --valid-patients 250 --seed 11 --most-studies 3
    python -m experiments.plausibility --data .../nih_600 --hannover .../hannover --awkward .../awkward \
        --phantom phantom

Frontal films of three sources, judged as they are, mirrored, inverted, turned and flipped; lateral films; pictures that
are no chest films. Nothing that is reported was learned from: of NIH and the phantom the validation patients, of
Hannover every second patient (the others were looked at when the limits in `plausible` were chosen, and are shown
apart). Photographs come with scikit-image, scikit-learn, Matplotlib and pydicom (pip install scikit-image).
Writes results/plausibility.csv (one row per source and kind) and .md.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from chexpert_hier import commands, datasets
from chexpert_hier.errors import InputError
from chexpert_hier.files import write_text
from chexpert_hier.films import detector, plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.plausible import FLAGS
from chexpert_hier.films.rescaling import rescale

from .detector import views

RESULTS = Path(__file__).parent / "results"
NOT_FRONTAL = FLAGS["not frontal"].bit
# What is done to a frontal film, and the bit that names it; None where nothing should be flagged.
KINDS = {
    "as it is": (lambda film: film, None),
    "mirrored": (lambda film: film[:, ::-1], None),
    "inverted": (lambda film: 255 - film, FLAGS["inverted"].bit),
    "turned counter-clockwise": (np.rot90, FLAGS["turn 90"].bit),
    "upside down": (lambda film: film[::-1, ::-1], FLAGS["turn 180"].bit),
    "turned clockwise": (lambda film: np.rot90(film, 3), FLAGS["turn 270"].bit),
    "flipped top to bottom": (lambda film: film[::-1], FLAGS["turn 180"].bit),
    "inverted, upside down": (lambda film: 255 - film[::-1, ::-1], NOT_FRONTAL),
    "inverted, turned": (lambda film: 255 - np.rot90(film), NOT_FRONTAL),
}
PHOTOGRAPHS = ("camera.png", "coffee.png", "retina.jpg", "cell.png", "clock_motion.png", "horse.png", "gravel.png",
               "microaneurysms.png", "text.png", "chessboard_GRAY.png", "color.png", "logo.png")
SCANS = ("CT_small.dcm", "MR_small.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm", "693_J2KI.dcm",
         "liver_1frame.dcm")
SEED, DRAWN = 999, 200


def judge(source: str, kind: str, films: list[np.ndarray], expected: int | None) -> dict:
    """One row: how many films are flagged, how many get advice, and how often it is right."""
    small = np.stack([rescale(np.ascontiguousarray(film), detector.SIDE, "area") for film in films])
    scores = detector.small_scores(small)
    codes = plausible.view_code(scores)
    advised = codes[(codes != 0) & (codes != NOT_FRONTAL)]
    right = np.nan if expected is None or not len(advised) else np.mean(advised == expected)
    margin = scores[:, 0] - scores[:, 1:].max(1)
    return {"source": source, "kind": kind, "odd": expected is not None, "films": len(films),
            "flagged": int(np.sum(codes != 0)), "share": np.mean(codes != 0), "advised": len(advised),
            "advice right": right, "lowest margin": margin.min(), "highest margin": margin.max()}


def frontal_films(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Real and synthetic frontal films by source."""
    nih = datasets.read(args.data).split("valid").files
    phantom = sorted((args.phantom / "valid").rglob("*frontal.jpg"))
    found = {"NIH, validation patients": nih, "phantom, validation patients": phantom}
    table = pd.read_csv(args.hannover / "films.csv")
    tuned = sorted(table["patient"].unique())[::2]
    for name, rows in (("Hannover, reported patients", ~table["patient"].isin(tuned)),
                       ("Hannover, tuned on", table["patient"].isin(tuned))):
        found[name] = [args.hannover / "films" / film for film in table["film"][rows]]
    return {name: [read_film(file) for file in commands.progress(files, name)] for name, files in found.items()}


def odd_pictures(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Lateral films, and what is no chest film."""
    photographs = _photographs()
    draw = np.random.default_rng(SEED)
    quarters = [part for picture in photographs for half in np.array_split(picture, 2) for part in
                np.array_split(half, 2, axis=1)]
    return {
        "phantom, lateral": [read_film(file) for file in sorted((args.phantom / "valid").rglob("*lateral.jpg"))],
        "a real lateral film": [read_film(args.awkward / "lateral.jpg")],
        "photographs and pages": photographs, "quarters of them": [part for part in quarters if np.ptp(part)],
        "CT, MR, a lower leg": _scans(args.awkward),
        "drawn: other body parts, shapes": [_grey(views.drawn(draw, None)[0]) for _ in range(DRAWN)],
        "patterns, noise, text": [_grey(views.pattern(draw)[0]) for _ in range(DRAWN)],
    }


def _grey(image: np.ndarray) -> np.ndarray:
    return np.clip(255 * image, 0, 255).astype(np.uint8)


def _photographs() -> list[np.ndarray]:
    import matplotlib
    import skimage
    import sklearn

    files = [Path(skimage.__file__).parent / "data" / name for name in PHOTOGRAPHS]
    files += [Path(sklearn.__file__).parent / "datasets" / "images" / name for name in ("china.jpg", "flower.jpg")]
    files.append(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]


def _scans(awkward: Path) -> list[np.ndarray]:
    """Slices that pydicom brings along, and the lower leg, from their lowest to their highest value."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    out = []
    for file in [*(folder / name for name in SCANS), awkward / "dicom_not_a_chest.dcm"]:
        values = pydicom.dcmread(file).pixel_array.astype(float)
        if values.ndim == 3:
            values = values.mean(-1) if values.shape[-1] == 3 else values[0]
        values = values.max() - values if file.name == "dicom_not_a_chest.dcm" else values
        out.append(_grey((values - values.min()) / np.ptp(values)))
    return out


def main(argv: list[str] | None = None) -> int:
    """Judge all kinds and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, what in (("data", "nih_600"), ("hannover", "films of another hospital"),
                       ("awkward", "the collection of awkward files"), ("phantom", "a phantom, see above")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    args = parser.parse_args(argv)
    for folder in vars(args).values():
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    films = frontal_films(args)
    rows = [judge(source, kind, [change(film) for film in some], expected)
            for source, some in films.items() for kind, (change, expected) in KINDS.items()]
    rows += [judge("", kind, some, NOT_FRONTAL) for kind, some in odd_pictures(args).items()]
    table = pd.DataFrame(rows)
    write_text(RESULTS / "plausibility.csv", table.to_csv(index=False, float_format="%.4g"))
    write_text(RESULTS / "plausibility.md", page(table))
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    return 0


def page(table: pd.DataFrame) -> str:
    """The table with what it says."""
    lines = ["# Odd films: what the look at a film tells", "",
             "Flagged: an upright frontal film's score is not above the best other by more than "
             f"{plausible.LEAST} (64 to a natural logarithm). Advice (inverted, turned by so much) is given where its "
             f"score is above all others by {plausible.SURE} or more, else only \"does not look like an upright "
             "frontal chest film\". Mirrored films cannot be told this way. Nothing judged here was trained on; the "
             "limits were chosen on the films marked \"tuned on\".", "",
             "| films | kind | number | flagged | share | with advice | of it right | margins |",
             "|---|---|---|---|---|---|---|---|"]
    for row in table.to_dict("records"):
        right = "" if np.isnan(row["advice right"]) else f"{row['advice right']:.0%}"
        lines.append(f"| {row['source']} | {row['kind']} | {row['films']} | {row['flagged']} | {row['share']:.1%} | "
                     f"{row['advised']} | {right} | {row['lowest margin']} to {row['highest margin']} |")
    odd, kept = table[table["odd"]], table[~table["odd"]]
    lines += ["", f"Worst class: {kept['share'].max():.1%} of frontal films flagged, {odd['share'].min():.1%} of odd "
              f"ones; advice right {odd['advice right'].min():.0%} or more.", "",
              "Written by experiments/plausibility.py."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(commands.answer(main))
