"""How well the cheap look at a film (chexpert_hier.plausible) tells odd films from real ones.

    python experiments/plausibility.py --data .../nih_600 [--awkward .../awkward]

The template is learned from the training films as a run does; the validation films, which it has not seen, are judged
as they are, inverted, turned and both, and so are pictures that are no chest films. Writes results/plausibility.csv
(one row per kind) and .md.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from chexpert_hier import commands
from chexpert_hier.datasets import reading
from chexpert_hier.errors import InputError
from chexpert_hier.files import write_text
from chexpert_hier.films import dicom, plausible
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.template import Cropper, learn_template

RESULTS = Path(__file__).parent / "results"
KINDS = {  # what is done to a real film, and the word by which the flag should name it
    "real, as it is": (lambda film: film, None),
    "mirrored": (lambda film: film[:, ::-1], None),
    "inverted": (lambda film: 255 - film, "inverted"),
    "turned by 90": (lambda film: np.rot90(film, 1), "90 degrees"),
    "turned by 180": (lambda film: np.rot90(film, 2), "180 degrees"),
    "turned by 270": (lambda film: np.rot90(film, 3), "270 degrees"),
    "inverted and turned by 180": (lambda film: 255 - np.rot90(film, 2), "inverted"),
}
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0)


def judge(kind: str, films: list[np.ndarray], cropper: Cropper, word: str | None, colours=None) -> dict:
    """One row: how many are flagged, how many for the right reason, and the quantiles of the match."""
    films = [np.ascontiguousarray(film) for film in films]
    matches = cropper.crop(films).scores
    flags = [plausible.flag(film, cropper, float(match), colour) for film, match, colour in
             zip(films, matches, colours or [0.0] * len(films))]
    row = {"kind": kind, "films": len(films), "flagged": sum(map(bool, flags)),
           "named": sum(word in flag for flag in flags) if word else np.nan}
    return row | {f"match {q:g}": value for q, value in zip(QUANTILES, np.quantile(matches, QUANTILES))}


def other_pictures() -> dict[str, tuple[np.ndarray, float]]:
    """Photographs that come with scikit-learn and Matplotlib, and noise: grey, and how coloured."""
    import matplotlib
    from sklearn.datasets import load_sample_image

    colour = {name: load_sample_image(name)[..., ::-1] for name in ("china.jpg", "flower.jpg")}
    colour["portrait"] = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    found = {name: (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), plausible.colour(cv2.imencode(".png", image)[1].tobytes()))
             for name, image in colour.items()}
    random = np.random.default_rng(0)
    for sigma in (0.1, 3, 30):
        soft = cv2.GaussianBlur(random.normal(size=(256, 256)), (0, 0), sigma)
        found[f"noise, {sigma} pixels"] = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8), 0.0
    return found


def awkward(folder: Path) -> dict[str, tuple[np.ndarray, float]]:
    """Real odd films of the awkward collection, and a lower leg (whose header alone would give it away)."""
    found = {}
    for name in ("lateral.jpg", "photo_of_film.jpg", "png_inverted_film.png"):
        data = (folder / name).read_bytes()
        found[name] = read_film(data, name), plausible.colour(data)
    leg = dicom._open((folder / "dicom_not_a_chest.dcm").read_bytes())
    leg.BodyPartExamined = "CHEST"
    stored = dicom._stored(leg)
    levels = np.arange(stored.min(), stored.max() + 1)
    found["lower leg"] = dicom._displayed(levels, stored, leg)[stored - stored.min()], 0.0
    return found


def main(argv: list[str] | None = None) -> int:
    """Judge all kinds and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set of real films")
    parser.add_argument("--awkward", type=Path, help="the collection of awkward files")
    parser.add_argument("--phantom", type=Path, help="a phantom, for its lateral films")
    args = parser.parse_args(argv)
    if not args.data.is_dir():
        raise InputError(f"--data {args.data}: no such folder")
    data, centre = reading.read(args.data), Cropper("centre")
    template = learn_template(centre.rescale(read_film(file)) for file in data.split("train").files)
    cropper = Cropper("template", template)
    films = [centre.rescale(read_film(file)) for file in commands.progress(data.split("valid").files, "films")]
    rows = [judge(kind, [change(film) for film in films], cropper, word) for kind, (change, word) in KINDS.items()]
    if args.phantom:
        lateral = sorted(args.phantom.rglob("*lateral.jpg"))[:200]
        rows.append(judge("synthetic lateral", [read_film(file) for file in lateral], cropper, None))
    odd = other_pictures() | (awkward(args.awkward) if args.awkward else {})
    rows += [judge(name, [grey], cropper, None, [colour]) for name, (grey, colour) in odd.items()]
    colours = [plausible.colour(file.read_bytes()) for file in data.split("valid").files]
    table = pd.DataFrame(rows)
    write_text(RESULTS / "plausibility.csv", table.to_csv(index=False, float_format="%.3f"))
    write_text(RESULTS / "plausibility.md", page(table, args.data.name, len(data.split("train")), max(colours)))
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    return 0


def page(table: pd.DataFrame, name: str, learned: int, colour: float) -> str:
    """The table with what it says."""
    lines = [f"# Odd films: what the template match tells ({name})", "",
             f"Template from {learned} training films; films of other patients judged. Flagged: a match below "
             f"{plausible.LEAST_MATCH}; below {plausible.SUSPECT} where the negative or a turned copy matches better "
             f"by {plausible.MARGIN}; a colour above {plausible.MOST_COLOUR:g} (real films: at most {colour:.1f}). "
             "Named: flagged for the right reason. Mirrored films cannot be told this way.", "",
             "| kind | films | flagged | named | match: least | 1 % | 5 % | median | 95 % | 99 % | most |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in table.itertuples(index=False):
        named = "" if np.isnan(row.named) else f"{row.named:.0f}"
        scores = list(row)[4:] if row.films > 1 else [row[4], *[None] * 6]
        lines.append(f"| {row.kind} | {row.films} | {row.flagged} | {named} | "
                     + " | ".join("" if score is None else f"{score:.2f}" for score in scores) + " |")
    return "\n".join(lines) + "\n\nWritten by experiments/plausibility.py.\n"


if __name__ == "__main__":
    sys.exit(commands.answer(main))
