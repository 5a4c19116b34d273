"""What fills the lungs of a frontal phantom: opacities, edema, collapse, fluid and thickened pleura.

Each finding is a fraction of the lung's air that it has replaced, 0-1, at half resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .films import Film, curve
from .signs import Patch

if TYPE_CHECKING:
    from .chest import Chest


def filled(chest: Chest) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of the lungs' air that opacities and that effusions have replaced, 0-1; notes their places."""
    taken = {fluid: np.zeros(chest.film.half, np.float32) for fluid in (False, True)}
    for name, draw in FILLING.items():
        if name in chest.signs:
            part = draw(chest, chest.signs[name])
            seen = part * chest.lung
            where = seen > max(0.06, 0.3 * float(seen.max()))
            chest.film.mark(name, where if where.any() else seen > 0.02)
            fluid = name == "Pleural Effusion"
            taken[fluid] = 1 - (1 - taken[fluid]) * (1 - np.clip(part, 0, 0.97))
    return taken[False], taken[True]


def ragged(chest: Chest, patch: Patch, soft: float, rough: float) -> np.ndarray:
    """An irregular patch, 1 inside and falling to 0 over `soft` of its radius."""
    film = chest.film
    distance = film.blob(tuple(chest.place(patch.side, patch.across, patch.down)), patch.radius, patch.aspect,
                         patch.degrees)
    distance += np.float32(rough) * film.cloud(0.2 * patch.radius + 0.02)
    return np.clip((1 - distance) / np.float32(soft) + 0.5, 0, 1) * chest.lungs[patch.side]


def _opacity(chest: Chest, sign: dict) -> np.ndarray:
    part = np.zeros(chest.film.half, np.float32)
    for patch in sign["patches"]:
        part = np.maximum(part, 0.42 * patch.plain * ragged(chest, patch, 0.9, 0.25))
    return part


def _consolidation(chest: Chest, sign: dict) -> np.ndarray:
    part = np.zeros(chest.film.half, np.float32)
    for patch in sign["patches"]:
        mottled = np.clip(0.88 + 0.08 * chest.film.cloud(0.03), 0.3, 1.2)
        part = np.maximum(part, 0.9 * patch.plain * ragged(chest, patch, 0.65, 0.3) * mottled)
    return part


def _pneumonia(chest: Chest, sign: dict) -> np.ndarray:
    """Air-space disease that ends at a fissure, with air-filled bronchi in it."""
    patch, film = sign["patches"][0], chest.film
    part = ragged(chest, patch, 0.7, 0.3)
    centre = chest.place(patch.side, patch.across, patch.down)
    slope = np.float32(np.tan(np.deg2rad(sign["edge"])))
    part *= np.clip((film.y - centre[1] + 0.35 * patch.radius - slope * (film.x - centre[0])) / 0.03, 0, 1)
    bronchi = film.canvas(half=True)
    hilum = np.array([patch.side * 0.2, -0.05])
    for _ in range(6):
        tip = centre + film.noise.normal(0, 0.6 * patch.radius, 2)
        film.stroke(bronchi, curve([hilum, (hilum + tip) / 2 + film.noise.normal(0, 0.05, 2), tip]), 0.018)
    return 0.8 * patch.plain * part * (1 - bronchi * np.float32(0.45 / 255))


def _edema(chest: Chest, sign: dict) -> np.ndarray:
    """Perihilar haze with a fine, mottled texture, uneven between the sides, and Kerley lines at the base."""
    film = chest.film
    mottled = np.clip(0.6 + 0.33 * film.cloud(sign["grain"]), 0.05, 1.7)
    part = np.zeros(film.half, np.float32)
    for side in (-1, 1):
        reach = film.blob((side * 0.22, 0.02), sign["extent"], 1.15)
        weight = np.clip(1.35 - reach, 0, 1) * np.float32(np.clip(1 + side * sign["uneven"], 0.3, 1.7))
        part += chest.lungs[side] * weight * mottled
    if sign["kerley"] > 0.4:
        lines = film.canvas(half=True)
        for side in (-1, 1):
            for down in np.arange(0.72, 1.02, 0.04):
                film.stroke(lines, chest.place(side, [0.86, 0.99], [down, down - 0.01]), 0.008)
        part += lines * np.float32(0.5 * sign["kerley"] / 255)
    return 0.58 * sign["plain"] * part


def _atelectasis(chest: Chest, sign: dict) -> np.ndarray:
    """Plate-like bands and airless lung over the base; the raised diaphragm is in the outlines already."""
    film = chest.film
    part = np.zeros(film.half, np.float32)
    for side, haze in sign["haze"].items():
        base = np.clip((film.y - np.float32(chest.domes[side] - 0.22)) / np.float32(0.22), 0, 1)
        part = np.maximum(part, np.float32(haze) * base * base * chest.lungs[side])
    for band in sign["bands"]:
        centre = chest.place(band["side"], band["across"], min(band["down"], 0.97))
        part = np.maximum(part, plate(film, centre, band["degrees"], band) * chest.lungs[band["side"]])
    return 0.75 * sign["plain"] * part


def plate(film: Film, centre: Sequence[float], degrees: float, band: dict) -> np.ndarray:
    """A plate of collapsed lung seen on its edge, 0-1: bent, uneven, thin towards its ends, and less air around it."""
    turn = np.deg2rad(degrees)
    dx, dy = film.x - np.float32(centre[0]), film.y - np.float32(centre[1])
    along = dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))
    across = dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn)) + np.float32(band["bend"]) * along**2
    left = np.clip(1 - (along / np.float32(band["length"]))**2, 0, 1)  # 1 in the middle, 0 at the ends
    width = np.float32(band["width"]) * (0.35 + 0.65 * left) * (1 + 0.2 * film.texture(0.08))
    away = (across / width)**2
    return np.clip(2.2 * left, 0, 1) * np.maximum(np.clip(1.25 - away, 0, 1), 0.35 * np.clip(1 - away / 14, 0, 1))


def _effusion(chest: Chest, sign: dict) -> np.ndarray:
    """Fluid that blunts the angle and climbs the wall (or lies level), and a veil where the patient lies."""
    film = chest.film
    part = np.zeros(film.half, np.float32)
    for side, depth in sign["depths"].items():
        outwards = np.clip(side * film.x / np.float32(chest.width), 0, 1)
        climb = np.float32(0.0 if sign["level"] else 0.35 + 0.5 * depth) * outwards**4
        start = chest.angles[side] - depth * (0.55 if not sign["level"] else 1.0)
        surface = np.float32(start) - climb * np.float32(depth)
        soft = 0.015 if sign["level"] else 0.05
        fluid = np.clip((film.y - surface) / np.float32(soft), 0, 1)
        veil = np.float32(sign["veil"]) * np.clip(0.4 + film.y, 0, 1)
        part = np.maximum(part, (side * film.x > 0) * np.maximum(np.float32(0.95) * fluid, veil))
    return part


def _pleural_other(chest: Chest, sign: dict) -> np.ndarray:
    film, side = chest.film, sign["side"]
    lung = chest.lungs[side]
    down = (film.y - chest.anatomy.apex) / (chest.angles[side] - chest.anatomy.apex)
    if sign["kind"] == "plaques":
        part = np.zeros(film.half, np.float32)
        for across, height, size in sign["places"]:
            centre = chest.place(side, 0.25 + 0.7 * across, 0.25 + 0.7 * height)
            distance = film.blob(tuple(centre), 0.03 + 0.06 * size, 0.45, 40 * side + 60 * (across - 0.5))
            part = np.maximum(part, np.clip((1 - distance + 0.3 * film.texture(0.03)) / 0.3, 0, 1))
        return 0.75 * sign["plain"] * part * lung
    # The outer rim: what the lung loses when its outline is drawn in towards the mediastinum.
    width = sign["width"] * (1 + 0.35 * film.texture(0.12))
    if sign["kind"] == "cap":
        rim = np.clip((0.8 * width + chest.anatomy.apex + 0.06 - film.y) / 0.02 + 0.5, 0, 1)
        return 0.85 * sign["plain"] * rim * lung
    wall = chest.width * np.interp(film.y, [-0.8, -0.55, -0.1, 0.3], [0.42, 0.74, 0.95, 1.0]).astype(np.float32)
    rim = np.clip((side * film.x - wall + width) / 0.02 + 0.5, 0, 1)
    rim *= np.clip((down - sign["start"]) / 0.08, 0, 1) * np.clip((sign["end"] - down) / 0.08, 0, 1)
    return 0.85 * sign["plain"] * rim * lung


FILLING = {"Lung Opacity": _opacity, "Consolidation": _consolidation, "Pneumonia": _pneumonia, "Edema": _edema,
           "Atelectasis": _atelectasis, "Pleural Effusion": _effusion, "Pleural Other": _pleural_other}
