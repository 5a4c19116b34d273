"""The picture of one answer: the film, the maps of what is called present, and the tree of findings with its numbers.

Words are burned in, for a picture is passed on without its header: what made it, and that it is for research only. It
shows nothing of the patient but what the film itself shows.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..heatmaps.overlays import FilmMaps, overlay
from .findings import About, Finding

WIDTH, HEIGHT = 1440, 900  # pixels
HEAD, FOOT, GAP = 76, 52, 12
FILM_WIDTH, MAP_WIDTH = 620, 270
MOST_MAPS = 3
BACK, TEXT, FAINT, WARNING = (16, 18, 22), (236, 238, 242), (150, 156, 166), (168, 44, 36)
BAR, FOUND = (86, 130, 190), (240, 160, 40)
NO_DISEASE = ("No Finding",)  # nothing on the film to point at


def draw(grey: np.ndarray, findings: Sequence[Finding], maps: FilmMaps | None, about: About, flag: str) -> np.ndarray:
    """Draw it.

    Args:
        grey: the film, uint8 (h, w).
        findings: in tree order.
        maps: of the film; None where the model has none.
        about: the model.
        flag: what is odd about the film in words, "" for nothing.

    Returns:
        uint8 (HEIGHT, WIDTH, 3), red, green, blue.
    """
    sheet = Image.new("RGB", (WIDTH, HEIGHT), BACK)
    pen = ImageDraw.Draw(sheet)
    space = HEIGHT - HEAD - FOOT - 2 * GAP
    sheet.paste(Image.fromarray(_fitted(grey, (FILM_WIDTH, space))), (GAP, HEAD + GAP))
    chosen = shown(findings) if maps is not None else []
    _maps(sheet, pen, grey, chosen, maps, (2 * GAP + FILM_WIDTH, HEAD + GAP))
    _tree(pen, findings, (3 * GAP + FILM_WIDTH + MAP_WIDTH, HEAD + GAP), space)
    _words(pen, findings, about, flag)
    return np.asarray(sheet)


def shown(findings: Sequence[Finding]) -> list[Finding]:
    """The findings whose maps are drawn: called present, the most probable first; without calls, the most probable."""
    diseases = [finding for finding in findings if finding.label not in NO_DISEASE]
    if any(finding.present is not None for finding in diseases):
        diseases = [finding for finding in diseases if finding.present]
    return sorted(diseases, key=lambda finding: -finding.probability)[:MOST_MAPS]


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(grey: np.ndarray, space: tuple[int, int]) -> np.ndarray:
    """A film as large as fits into a space, (width, height), without another shape."""
    height, width = grey.shape
    scale = min(space[0] / width, space[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _maps(sheet: Image.Image, pen: ImageDraw.ImageDraw, grey: np.ndarray, chosen: Sequence[Finding],
          maps: FilmMaps | None, corner: tuple[int, int]) -> None:
    left, top = corner
    if maps is None or not chosen:
        why = "this model has no maps" if maps is None else "nothing is called present:\nno map is drawn"
        pen.multiline_text((left, top), why, FAINT, _font(15))
        return
    pen.text((left, top), "where the network looked", FAINT, _font(15))
    top += 22
    each = (HEIGHT - FOOT - GAP - top) // MOST_MAPS
    small = _fitted(grey, (MAP_WIDTH, each - 30))
    maps = replace(maps, film_shape=small.shape)
    for finding in chosen:
        pen.text((left, top), f"{finding.label} {finding.probability:.2f}", TEXT, _font(16))
        drawn = overlay(small, maps.on_film(finding.label))[..., ::-1]
        sheet.paste(Image.fromarray(np.ascontiguousarray(drawn)), (left, top + 21))
        top += each


def _tree(pen: ImageDraw.ImageDraw, findings: Sequence[Finding], corner: tuple[int, int], space: int) -> None:
    """Each finding in a line: its name below its parent, a bar with the operating point, probability and call."""
    left, top = corner
    step = min(50, (space - 22) // max(1, len(findings)))
    size = min(16, step * 0.62)
    bars, numbers, calls = left + 240, left + 350, left + 402
    pen.text((left, top), "finding", FAINT, _font(15))
    pen.text((bars, top), "probability", FAINT, _font(15))
    pen.text((calls, top), "call", FAINT, _font(15))
    top += 24
    for finding in findings:
        colour = FOUND if finding.present else TEXT
        pen.text((left + 16 * finding.depth, top), finding.label[:26 - 2 * finding.depth], colour, _font(size))
        low, high = top + 3, top + size
        pen.rectangle((bars, low, bars + 100, high), outline=FAINT)
        pen.rectangle((bars, low, bars + 100 * finding.probability, high), FOUND if finding.present else BAR)
        if finding.threshold is not None and finding.present is not None:
            at = bars + 100 * min(finding.threshold, 1.0)
            pen.line((at, low - 3, at, high + 3), TEXT, 2)
        pen.text((numbers, top), f"{finding.probability:.2f}", colour, _font(size))
        pen.text((calls, top), {True: "PRESENT", False: "absent", None: "-"}[finding.present], colour, _font(size))
        top += step


def _words(pen: ImageDraw.ImageDraw, findings: Sequence[Finding], about: About, flag: str) -> None:
    """What says what this is: above and below the pictures."""
    pen.rectangle((0, 0, WIDTH, HEAD), WARNING)
    first, *others = about.words
    pen.text((GAP, 8), first.upper(), (255, 255, 255), _font(27))
    below = "; ".join([*others, "findings of a computer program, not read by a radiologist"])
    pen.text((GAP, 46), below[0].upper() + below[1:], (255, 255, 255), _font(17))
    model = f"{about.name}, version {about.version}, trained on {about.trained_on}"
    called = any(finding.present is not None for finding in findings)
    rule = f"line in a bar: operating point by {about.rule}" if called else about.no_call
    pen.text((GAP, HEIGHT - FOOT + 6), model[:170], TEXT, _font(15))
    odd = f"; odd about this film: {flag}" if flag else ""
    pen.text((GAP, HEIGHT - FOOT + 27), f"{rule}{odd}"[:190], FAINT, _font(15))
