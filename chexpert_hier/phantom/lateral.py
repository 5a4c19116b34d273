"""The phantom from the side: the same patient and the same signs, seen at their depth and height.

Drawn facing left: the sternum at negative x, the spine at positive x. Both lungs lie over each other, so a side
cannot be told, but depth can: fluid collects in the posterior angle, a wide heart fills the space behind the sternum.
"""

import cv2
import numpy as np

from . import devices
from .films import Film, curve, draw_size
from .opacities import plate
from .signs import Anatomy, Patch


class Profile:
    """A chest on a lateral film: outlines that the findings refer to."""

    def __init__(self, film: Film, anatomy: Anatomy, signs: dict[str, dict]):
        rng = film.rng
        self.film, self.anatomy, self.signs = film, anatomy, signs
        self.deep = 0.75 * anatomy.half_width * rng.uniform(0.92, 1.05)  # half the chest's depth
        loss = max(signs.get("Atelectasis", {}).get("loss", {0: 0.0}).values())
        self.dome = anatomy.dome + rng.normal(0.02, 0.035)
        self.angle = self.dome + rng.uniform(0.24, 0.34)  # posterior costophrenic angle
        self.outlines = [self._lung_outline(self.dome - loss, self.angle),
                         self._lung_outline(self.dome + rng.uniform(-0.05, 0.06), self.angle + rng.normal(0, 0.02))]
        self.lung = np.maximum(*[film.area(outline, 0.012) for outline in self.outlines])

    def _lung_outline(self, dome: float, angle: float) -> np.ndarray:
        d, top = self.deep, self.anatomy.apex
        points = [(0.05, top), (0.45 * d, top + 0.08), (0.8 * d, top + 0.35), (0.98 * d, -0.05), (1.0 * d, 0.3),
                  (0.93 * d, angle - 0.05), (0.86 * d, angle), (0.68 * d, dome + 0.14), (0.35 * d, dome + 0.02),
                  (-0.1 * d, dome - 0.02), (-0.5 * d, dome + 0.04), (-0.88 * d, dome + 0.14), (-0.95 * d, dome),
                  (-0.9 * d, 0.0), (-0.78 * d, -0.3), (-0.5 * d, top + 0.22), (-0.18 * d, top + 0.04)]
        return curve(np.array(points), closed=True)

    def place(self, depth: float, down: float) -> tuple[float, float]:
        """Coordinates of a place in the lungs; see phantom_signs."""
        y = self.anatomy.apex + down * (self.dome + 0.05 - self.anatomy.apex)
        return float(np.interp(y, [-0.8, -0.4, 0.0, 0.5], [0.35, 0.75, 0.9, 0.9])) * self.deep * depth, y


def render_lateral(rng: np.random.Generator, anatomy: Anatomy, signs: dict[str, dict]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one lateral film, facing left or right.

    Args:
        rng: the film's own generator.
        anatomy: the patient's chest.
        signs: the study's findings.

    Returns:
        uint8 (h, w) film without burned-in marks, and uint16 (h/2, w/2) finding bits.
    """
    film = Film(rng, draw_size(rng, lateral=True), rng.uniform(1.05, 1.25), rng.normal(0, 2.6),
                (rng.normal(0, 0.05), rng.normal(0.09, 0.06)), mirrored=bool(rng.random() < 0.3))
    chest = Profile(film, anatomy, signs)
    body = _body(chest)
    heart = _heart(chest)
    air = _air(chest, heart)
    air *= 1 - _filled(chest)
    _pneumothorax(chest, air)
    film.soft += body * (1 - np.float32(0.75) * air) + 0.08 * heart + _structures(chest)
    film.soft += body * np.clip((film.y - np.float32(chest.dome)) * 0.8, 0, 0.2)
    _spine(chest)
    _fine_lines(chest, film.full(np.clip(air, 0, 1)))
    for patch in signs.get("Lung Lesion", {}).get("patches", ()):
        nodule = _ragged(chest, patch, 0.5, 0.12)
        film.soft += np.float32(0.24 * patch.plain_lateral) * nodule
        film.mark("Lung Lesion", nodule > 0.4)
    if "Support Devices" in signs:
        devices.draw_lateral(film, signs["Support Devices"])
    if "Fracture" in signs:
        _fracture(chest, signs["Fracture"])
    film.mark_opacity()
    return film.exposed(body > 0.15), film.marks


def _body(chest: Profile) -> np.ndarray:
    film, anatomy = chest.film, chest.anatomy
    heights = [-1.5, -1.0, -0.85, -0.6, -0.2, 0.3, 0.7, 1.6]
    front, back = chest.deep + 0.6 * anatomy.wall, chest.deep + 0.05 + anatomy.wall
    bust = 0.6 * anatomy.breasts
    ahead = np.interp(film.y, heights, [-0.22, -0.25, -0.36, -front + 0.1, -front - bust, -front - bust, -front,
                                        -front - 0.1 * anatomy.stoutness]).astype(np.float32)
    behind = np.interp(film.y, heights, [0.25, 0.3, 0.6, back, back, back - 0.02, back - 0.05, back]).astype(np.float32)
    inside = np.clip((film.x - ahead) * (behind - film.x) * 6, 0, 1)
    shoulder = np.clip((-0.5 - film.y) * 1.5, 0, 0.35)  # both shoulders lie over the apices
    return inside * (0.85 + 0.15 * anatomy.stoutness + shoulder)


def _heart(chest: Profile) -> np.ndarray:
    film, signs = chest.film, chest.signs
    ratio = signs.get("Cardiomegaly", {}).get("ratio", chest.anatomy.heart_ratio)
    # It lies on the diaphragm and against the sternum; when wide it fills the space behind both.
    size, d, low = (ratio / 0.45) ** 1.2, chest.deep, chest.dome + 0.06
    points = [(-0.84 * d, low), (-0.9 * d, low - 0.25 * size), (-0.72 * d, low - 0.47 * size),
              (-0.38 * d, low - 0.62 * size), (-0.05 * d, low - 0.58 * size), (0.16 * d * size, low - 0.34 * size),
              (0.2 * d * size, low - 0.12), (0.12 * d * size, low + 0.04)]
    heart = film.area(curve(np.array(points), closed=True), 0.018)
    if signs.get("Cardiomegaly"):
        film.mark("Cardiomegaly", heart > 0.5)
    wide = signs.get("Enlarged Cardiomediastinum", {}).get("half_width")
    if "Enlarged Cardiomediastinum" in signs:
        band = film.blob((0.02, -0.38), 0.12 + 1.1 * ((wide or 0.12) - 0.12), 2.2)
        film.mark("Enlarged Cardiomediastinum", band < 1 if wide else heart > 0.5)
        if wide:
            heart = np.maximum(heart, 0.45 * np.clip((1.1 - band) / 0.5, 0, 1))
    return heart


def _air(chest: Profile, heart: np.ndarray) -> np.ndarray:
    film, rng = chest.film, chest.film.rng
    depth = film.blurred(chest.lung, 0.09)
    air = chest.lung * (0.35 + 0.65 * depth) * (1 - 0.7 * heart)
    veil = 0.14 + 0.08 * film.texture(0.75) + rng.normal(0, 0.07) * film.x + rng.normal(0, 0.07) * film.y
    return air * np.clip(1 - veil - rng.uniform(-0.05, 0.15), 0.3, 1.0).astype(np.float32)


def _ragged(chest: Profile, patch: Patch, soft: float, rough: float) -> np.ndarray:
    film = chest.film
    distance = film.blob(chest.place(patch.depth, patch.down), patch.radius, patch.aspect, patch.degrees)
    distance += np.float32(rough) * film.cloud(0.2 * patch.radius + 0.02)
    return np.clip((1 - distance) / np.float32(soft) + 0.5, 0, 1) * chest.lung


def _filled(chest: Profile) -> np.ndarray:
    """Fraction of the lungs' air that findings have replaced, 0-1; notes their places."""
    film, signs = chest.film, chest.signs
    filled = np.zeros(film.half, np.float32)
    # One lung of two is filled, hence less contrast than from the front.
    for name, contrast, soft in (("Lung Opacity", 0.34, 0.9), ("Consolidation", 0.6, 0.65), ("Pneumonia", 0.68, 0.65)):
        for patch in signs.get(name, {}).get("patches", ()):
            part = np.float32(contrast * patch.plain_lateral) * _ragged(chest, patch, soft, 0.3)
            filled = _fill(chest, name, part, filled)
    for name, draw in (("Edema", _edema), ("Atelectasis", _atelectasis), ("Pleural Effusion", _effusion),
                       ("Pleural Other", _pleural_other)):
        if name in signs:
            filled = _fill(chest, name, draw(chest, signs[name]), filled)
    return filled


def _fill(chest: Profile, name: str, part: np.ndarray, filled: np.ndarray) -> np.ndarray:
    seen = part * chest.lung
    chest.film.mark(name, seen > min(max(0.06, 0.3 * float(seen.max())), 0.9 * float(seen.max())))
    return 1 - (1 - filled) * (1 - np.clip(part, 0, 0.97))


def _edema(chest: Profile, sign: dict) -> np.ndarray:
    film = chest.film
    mottled = np.clip(0.6 + 0.33 * film.cloud(sign["grain"]), 0.05, 1.7)
    return 0.5 * sign["plain_lateral"] * mottled * np.clip(1.35 - film.blob((0.05, 0.0), sign["extent"], 1.2), 0, 1)


def _atelectasis(chest: Profile, sign: dict) -> np.ndarray:
    film = chest.film
    part = np.zeros(film.half, np.float32)
    for band in sign["bands"]:
        centre = chest.place(band["depth"], min(band["down"], 0.95))
        part = np.maximum(part, plate(film, centre, band["degrees"] + 20, band))
    return 0.55 * sign["plain_lateral"] * part


def _effusion(chest: Profile, sign: dict) -> np.ndarray:
    """Fluid runs first into the posterior angle, the lowest place of the chest; one side or both."""
    film = chest.film
    part = np.zeros(film.half, np.float32)
    for depth in sign["depths"].values():
        behind = np.clip(film.x / np.float32(chest.deep), 0, 1)
        climb = np.float32(0.0 if sign["level"] else 0.5 + 0.4 * depth) * behind**3
        surface = np.float32(chest.angle - depth * 0.75) - climb * np.float32(depth)
        part = 1 - (1 - part) * (1 - 0.7 * np.clip((film.y - surface) / np.float32(0.04), 0, 1))
    return part


def _pleural_other(chest: Profile, sign: dict) -> np.ndarray:
    film = chest.film
    down = (film.y - chest.anatomy.apex) / (chest.angle - chest.anatomy.apex)
    wall = chest.deep * np.interp(film.y, [-0.8, -0.5, -0.05, 0.3], [0.3, 0.75, 0.97, 1.0]).astype(np.float32)
    rim = np.clip((film.x - wall + 0.8 * sign["width"] * (1 + 0.35 * film.texture(0.12))) / 0.02 + 0.5, 0, 1)
    return 0.6 * sign["plain"] * rim * ((down > sign["start"]) & (down < sign["end"]))


def _pneumothorax(chest: Profile, air: np.ndarray) -> None:
    sign = chest.signs.get("Pneumothorax")
    if sign is None:
        return
    film = chest.film
    anchor = np.array([0.0, chest.dome + 0.1])
    shrunk = anchor + (chest.outlines[0] - anchor) * (1 - sign["size"])
    outside = np.clip(chest.lung - film.area(shrunk), 0, 1) * np.clip((0.0 - film.y) / 0.1, 0, 1)
    film.mark("Pneumothorax", outside > 0.5)
    air += outside * np.float32(0.15 * min(sign["plain"], 1.2))
    canvas = film.canvas()
    for piece in np.split(shrunk, np.flatnonzero(np.diff(shrunk[:, 1] < -0.05)) + 1):
        if len(piece) > 1 and piece[0, 1] < -0.05:
            film.stroke(canvas, piece, 0.01)
    film.sharp += canvas * np.float32(0.15 * sign["plain"] / 255)


def _structures(chest: Profile) -> np.ndarray:
    """Trachea, hila, aortic arch, scapulae, stomach gas."""
    film, rng = chest.film, chest.film.rng
    tracheal = film.canvas(half=True)
    film.stroke(tracheal, curve([(-0.08, -1.2), (-0.02, -0.7), (0.06, -0.2)]), 0.08)
    field = -0.12 * film.blurred(tracheal.astype(np.float32) / 255, 0.012)
    field += 0.12 * np.clip(1.2 - film.blob((0.06, -0.1), 0.12, 1.2), 0, 1)
    arch = film.blob((0.12, -0.42), 0.16, 0.7, 30)
    field += np.float32(rng.uniform(0.02, 0.08)) * np.clip((1.05 - arch) / 0.3, 0, 1)
    blade = np.array([(0.35, -0.75), (0.6, -0.6), (0.66, -0.1), (0.56, 0.0), (0.42, -0.3)]) + rng.normal(0, 0.04, 2)
    field += np.float32(0.06) * film.area(curve(blade, closed=True), 0.012)
    gas = film.blob((rng.uniform(-0.3, 0.1), chest.dome + rng.uniform(0.14, 0.22)), rng.uniform(0.06, 0.18), 0.6)
    return field - np.float32(rng.uniform(0, 0.25)) * np.clip((1 - gas) / 0.2, 0, 1)


def _spine(chest: Profile) -> None:
    """Vertebral bodies and the discs between them, growing darker downwards where lung lies over them."""
    film, rng = chest.film, chest.film.rng
    gap, bodies = rng.uniform(0.13, 0.15), film.canvas(half=True)
    for y in np.arange(-1.1, 1.2, gap):
        x = chest.deep * float(np.interp(y, [-1, -0.5, 0.1, 0.9], [0.4, 0.58, 0.78, 0.6]))
        corners = np.array([(-0.09, -0.43 * gap), (0.09, -0.40 * gap), (0.09, 0.40 * gap), (-0.09, 0.43 * gap)])
        film.stroke(bodies, np.vstack([corners, corners[:1]]) + np.array([x, y]), 0.018, 255)
        cv2.fillPoly(bodies, [film.pixels(corners * 0.9 + np.array([x, y]), half=True)], 165, cv2.LINE_AA, 4)
    film.soft += film.blurred(bodies.astype(np.float32), 0.01) * np.float32(rng.uniform(0.22, 0.36) / 255)


def _fine_lines(chest: Profile, air_full: np.ndarray) -> None:
    """Ribs of both sides, sternum and lung vessels."""
    film, rng, anatomy = chest.film, chest.film.rng, chest.anatomy
    ribs = film.canvas()
    for side in (-1, 1):
        offset = rng.normal(0, 0.02)
        for number in range(10):
            top = anatomy.apex + 0.02 + number * anatomy.rib_gap + offset
            points = [(chest.deep * 0.95, top), (chest.deep * 0.4, top + 0.16), (-chest.deep * 0.45, top + 0.42)]
            film.stroke(ribs, curve(points), anatomy.rib_width * 0.8, 100 + 20 * side)
    film.stroke(ribs, curve([(-0.55 * chest.deep, -0.5), (-0.97 * chest.deep, -0.1), (-1.02 * chest.deep, 0.25)]), 0.05,
                230)
    vessels = film.canvas()
    edema = chest.signs.get("Edema")
    swollen = 1 + 0.5 * min(edema["plain_lateral"], 1.0) if edema else 1.0
    for side in (-1, 1):
        for points, width in reversed(anatomy.vessels[side]):
            course = np.stack([0.05 + side * 0.8 * chest.deep * points[::2, :, 0],
                               anatomy.apex + points[::2, :, 1] * (chest.dome - anatomy.apex)], axis=-1)
            film.stroke(vessels, course, width * swollen, 110 + 3000 * width)
    film.sharp += cv2.blur(ribs, (3, 3)) * (0.25 + air_full) * np.float32(rng.uniform(0.05, 0.10) / 255)
    film.sharp += cv2.blur(vessels, (3, 3)) * air_full * np.float32(rng.uniform(0.14, 0.22) / 255)


def _fracture(chest: Profile, sign: dict) -> None:
    """A broken rib hardly shows from the side: a short step in one rib."""
    film = chest.film
    canvas = film.canvas()
    for number in sign["ribs"]:
        y = chest.anatomy.apex + 0.16 + number * chest.anatomy.rib_gap
        x = chest.deep * (0.9 - 0.9 * sign["along"])
        step = sign["step"] * chest.anatomy.rib_width
        film.stroke(canvas, np.array([(x + 0.1, y), (x, y + 0.03)]), 0.035)
        film.stroke(canvas, np.array([(x, y + 0.03 + step), (x - 0.1, y + 0.06 + step)]), 0.035)
        film.mark("Fracture", film.blob((x, y + 0.03), 0.09) < 1)
    film.sharp += canvas * np.float32(0.12 / 255)
