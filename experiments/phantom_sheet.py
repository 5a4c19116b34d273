"""A contact sheet of phantom films with their true findings, to look at.

    python experiments/phantom_sheet.py --out sheet.png [--finding Edema] [--lateral] [--masks]

Draws the first patients of the seed; `--finding` shows films with that one finding only, side by side with the same
patient without it (the same patient, pose and exposure are drawn).
"""

import argparse

import cv2
import numpy as np

from chexpert_hier import commands
from chexpert_hier.errors import one_of
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.phantom.films import finish
from chexpert_hier.phantom.frontal import render_frontal
from chexpert_hier.phantom.lateral import render_lateral
from chexpert_hier.phantom.reports import draw_studies
from chexpert_hier.phantom.signs import draw_anatomy, draw_signs

CELL = (360, 330)  # width, height in px
SHORT = {"Enlarged Cardiomediastinum": "ECM", "Support Devices": "Devices", "Pleural Effusion": "Effusion"}


def film_cell(seed: int, patient: int, finding: str | None, lateral: bool, masks: bool) -> np.ndarray:
    """One film of a patient's first study as a BGR cell with its findings below."""
    sex, studies = draw_studies(np.random.default_rng([seed, patient]), 1, 1.0, True)
    truth = studies[0].truth
    if finding is not None:
        truth = np.array([float(name == finding) for name in CHEXPERT_LABELS])
    signs = draw_signs(np.random.default_rng([seed, patient, 1]), truth)
    anatomy = draw_anatomy(np.random.default_rng([seed, patient, 0]), sex)
    rng = np.random.default_rng([seed, patient, 1, 1])
    if lateral:
        grey, marks = render_lateral(rng, anatomy, signs)
    else:
        grey, marks = render_frontal(rng, anatomy, signs, studies[0].projection)
    picture = cv2.cvtColor(finish(grey, rng, "" if lateral else studies[0].projection), cv2.COLOR_GRAY2BGR)
    if masks:
        outline = cv2.resize((marks > 0).astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
        cv2.drawContours(picture, cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0], -1,
                         (0, 200, 255), 1)
    names = [SHORT.get(name, name) for name, state in zip(CHEXPERT_LABELS, truth) if state]
    return _framed(picture, ", ".join(names) or "nothing")


def _framed(picture: np.ndarray, text: str) -> np.ndarray:
    width, height = CELL
    scale = min(width / picture.shape[1], (height - 20) / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cell = np.zeros((height, width, 3), np.uint8)
    left = (width - small.shape[1]) // 2
    cell[: small.shape[0], left : left + small.shape[1]] = small
    cv2.putText(cell, text, (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def main(argv: list[str] | None = None) -> int:
    """Write the sheet."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--out", required=True, help="the PNG to write")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--rows", type=int, default=3)
    words.add_argument("--columns", type=int, default=4)
    words.add_argument("--first", type=int, default=1, help="number of the first patient")
    words.add_argument("--finding", help="only this finding, each film beside the one without it")
    words.add_argument("--lateral", action="store_true", help="lateral views")
    words.add_argument("--masks", action="store_true", help="outline where findings are drawn")
    given = words.parse_args(argv)
    if given.finding is not None:
        one_of("--finding", given.finding, CHEXPERT_LABELS)
    cells = []
    for number in range(given.rows * given.columns):
        pair = number // 2 if given.finding else number
        finding = "No Finding" if given.finding and number % 2 == 0 else given.finding
        cells.append(film_cell(given.seed, given.first + pair, finding, given.lateral, given.masks))
    rows = [np.hstack(cells[at : at + given.columns]) for at in range(0, len(cells), given.columns)]
    cv2.imencode(".png", np.vstack(rows))[1].tofile(given.out)
    print(f"{given.out}: {len(cells)} synthetic films")
    return 0


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
