"""How the search for the crop goes on real films, and what could be changed about it.

    python experiments/template_search.py --data .../nih_600 --other .../hannover/films

Films of the first folder's training split give the template, as in a run; its validation films and the films of the
other folder (another hospital) are searched. For several widths of the field of places (the film on a black border of
so many pixels; 0 is the paper's 33 x 33 places) and for a template of the other hospital's own films:

    border     share of films whose crop ends on the border of the field
    match      mean, and the share below prepare's LOW_MATCH
    outside    share of crops that leave the film
    follows    share of films of which a copy moved by 6 pixels gets a crop moved by 4 to 8 pixels

Writes results/template_search.csv and .md.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from chexpert_hier import commands
from chexpert_hier.datasets import reading
from chexpert_hier.files import write_text
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.template import Cropper, learn_template, rescale
from chexpert_hier.prepare.croppers import LOW_MATCH, search_report

RESULTS = Path(__file__).parent / "results"
READING = """
What follows: on another hospital's films three of four crops end on the border of the paper's field, which `prepare`
and `run` now say. A field wider by 8 pixels takes most of them off it, and a crop then follows its film more often, but
the match grows by .005 at most and a third of the crops hold a black edge: no option `search` was added. Few films
match below LOW_MATCH; `least_match` (off by default) crops their centre. A template of a hospital's own films is no
better than the one of all: data sets that are trained on together share one.
"""
SIDE, SIZE = 256, 224  # Pham et al. 2019, section 4.2
WIDTHS = (0, 8, 16, 32)
SHIFT = 6


def judge(films: list[np.ndarray], template: np.ndarray, width: int) -> dict:
    """One row: films, uint8 (256, 256) each, searched on a border of `width` black pixels."""
    cropper = Cropper("template", template, SIDE + 2 * width, SIZE)
    found = cropper.crop([np.pad(film, width) for film in films])
    move = np.array([[1, 0, SHIFT], [0, 1, -SHIFT]], np.float32)
    moved = cropper.crop([np.pad(cv2.warpAffine(film, move, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), width)
                          for film in films]).places - found.places
    report = search_report(found.places, found.scores, cropper)
    left = np.abs(found.places - width - (SIDE - SIZE) / 2).max(axis=1) > (SIDE - SIZE) / 2
    return {"places": cropper.places, "films": len(films), "border": report["border"] / len(films),
            "match": found.scores.mean(), "low": report["low"] / len(films), "lowest": report["lowest"],
            "outside": left.mean(), "follows": (np.abs(moved - [-SHIFT, SHIFT]).max(axis=1) <= 2).mean()}


def main(argv: list[str] | None = None) -> int:
    """Search, and write the table; 0 when done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="CheXpert's layout, real films")
    parser.add_argument("--other", type=Path, required=True, help="a folder of films of another hospital")
    args = parser.parse_args(argv)
    data = reading.read(args.data)
    train, valid = ([rescale(read_film(file)) for file in data.split(name).files] for name in ("train", "valid"))
    other = [rescale(read_film(file)) for file in sorted(args.other.iterdir()) if file.suffix == ".png"]
    template, own = learn_template(train), learn_template(other[::2])
    rows = [{"films of": name, "template": "training films", **judge(films, template, width)} for width in WIDTHS
            for name, films in (("training", train), ("validation", valid), ("another hospital", other))]
    rows += [{"films of": "another hospital, every second", "template": whose, **judge(other[1::2], learned, 0)}
             for whose, learned in (("training films", template), ("its own other films", own),
                                    ("both", learn_template([*train, *other[::2]])))]
    table = pd.DataFrame(rows)
    write_text(RESULTS / "template_search.csv", table.to_csv(index=False, float_format="%.4g"))
    lines = [f"| {' | '.join(table.columns)} |", "|---|---|" + "--:|" * (len(table.columns) - 2)]
    lines += ["| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |"
              for row in table.itertuples(index=False)]
    write_text(RESULTS / "template_search.md", __doc__.strip() + f"\n\nLOW_MATCH is {LOW_MATCH}. {len(train)} training "
               f"films, {len(valid)} validation films, {len(other)} of another hospital.\n\n" + "\n".join(lines) + "\n"
               + READING)
    print(table.to_string())
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
