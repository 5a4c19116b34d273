"""The phantom from the front: a chest's anatomy and the findings on it.

Lungs are air fractions in soft tissue: what fills them (fluid, consolidation, collapse) takes air away, a
pneumothorax takes the vessels away; bones, vessels and devices add density. The order of drawing follows that.
"""

import cv2
import numpy as np

from . import devices
from .chest import Chest
from .films import Film, curve, draw_size
from .opacities import filled, ragged
from .signs import Anatomy


def render_frontal(rng: np.random.Generator, anatomy: Anatomy, signs: dict[str, dict],
                   projection: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw one frontal film.

    Args:
        rng: the film's own generator (pose, exposure, confusing shadows).
        anatomy: the patient's chest.
        signs: the study's findings; see `phantom_signs.draw_signs`.
        projection: "AP" or "PA".

    Returns:
        uint8 (h, w) film without burned-in marks, and uint16 (h/2, w/2) finding bits.
    """
    film = Film(rng, draw_size(rng, lateral=False), rng.uniform(0.92, 1.32), rng.normal(0, 3.2),
                (rng.normal(0, 0.08), rng.normal(0.08, 0.08)))
    chest = Chest(film, anatomy, signs, projection)
    trunk = _trunk(chest)
    body = np.maximum(trunk, _arms(chest))
    heart, mediastinum = _heart(chest), _mediastinum(chest)
    air = _air(chest, heart)
    opacity, fluid = filled(chest)
    air *= (1 - opacity) * (1 - fluid) * (1 - _veil(chest, opacity))
    collapse = _pneumothorax(chest, air)
    film.soft += body * (1 - np.float32(0.8) * air)
    film.soft += 0.05 * heart + 0.09 * mediastinum + _midline_structures(chest) + _soft_shadows(chest, body)
    film.soft += trunk * np.clip((film.y - np.float32(min(chest.domes.values()))) * 0.8, 0, 0.2)  # the abdomen
    air_full = film.full(np.clip(air, 0, 1))
    _bones(chest, air_full)
    _vessels(chest, air_full, collapse)
    _nodules(chest)
    _lines(chest, collapse)
    if "Support Devices" in signs:
        devices.draw_frontal(chest, signs["Support Devices"])
    _mark_parents(chest, heart, mediastinum)
    return film.exposed(body > 0.15), film.marks


def _trunk(chest: Chest) -> np.ndarray:
    """Soft tissue of neck, shoulders and trunk, 0 in the air around."""
    film, anatomy = chest.film, chest.anatomy
    trunk = chest.width + anatomy.wall
    heights = [-1.5, -1.1, -0.95, -0.86, -0.78, -0.66, -0.45, -0.25, 0.0, 0.5, 1.6]
    shoulder = 1.08 + 0.12 * anatomy.stoutness
    widths = [0.27, 0.28, 0.38, 0.6, 0.86, shoulder, shoulder - 0.02, trunk + 0.07, trunk, trunk, trunk + 0.06]
    outline = curve(np.stack([widths, heights], axis=1))
    half_width = np.interp(film.y, outline[:, 1], outline[:, 0]).astype(np.float32)
    inside = np.clip(1 - (film.x / half_width) ** 2, 0, 1)
    thick = np.sqrt(inside) * 0.45 + 0.55 * np.clip(inside * 12, 0, 1)
    return thick * np.float32(0.9 + 0.15 * anatomy.stoutness)


def _arms(chest: Chest) -> np.ndarray:
    """Soft tissue of the upper arms, which hang beside the trunk."""
    film = chest.film
    arms = film.canvas(half=True)
    for course in chest.arms.values():
        film.stroke(arms, course, 0.3 + 0.1 * chest.anatomy.stoutness)
    return np.clip(film.blurred(arms.astype(np.float32), 0.03) * np.float32(1.5 / 255) - np.float32(0.4), 0, 0.8)


def _heart(chest: Chest) -> np.ndarray:
    """The heart's shadow: a third to the right of the midline, two thirds to the left, on the diaphragm."""
    across = chest.ratio * 2 * chest.width
    to_left = float(np.clip(chest.film.rng.normal(0.68, 0.04), 0.58, 0.78))
    left, right = to_left * across, (to_left - 1) * across
    low = max(chest.domes.values()) + 0.05
    tall = 0.42 + 0.35 * (chest.ratio - 0.45)
    points = [(-0.11, low - 1.25 * tall), (0.8 * right, low - 0.92 * tall), (right, low - 0.5 * tall),
              (0.86 * right, low - 0.1 * tall), (0.3 * right, low + 0.06), (0.5 * left, low + 0.05),
              (0.92 * left, low), (left, low - 0.22 * tall), (0.88 * left, low - 0.55 * tall),
              (0.52 * left, low - 0.95 * tall), (0.13, low - 1.3 * tall)]
    shift = 0.5 * chest.turn + chest.pull
    return chest.film.area(curve(np.array(points) + np.array([shift, 0]), closed=True), 0.012)


def _mediastinum(chest: Chest) -> np.ndarray:
    film, sign = chest.film, chest.signs.get("Enlarged Cardiomediastinum", {})
    normal = chest.anatomy.mediastinum
    wide = sign.get("half_width", normal)
    upper = sign.get("upper", -0.6)
    heights = [-1.2, upper - 0.15, upper, -0.3, -0.12, 0.1, 0.7]
    half_width = np.interp(film.y, heights, [0.09, 0.10, wide, wide, normal, 0.12, 0.12]).astype(np.float32)
    centre = chest.midline + np.float32(0.02 + chest.pull + sign.get("lean", 0.0) * (wide - normal))
    band = np.clip((half_width - np.abs(film.x - centre)) / 0.03 + 0.5, 0, 1)
    knob = film.blob((0.1 + chest.turn + 0.4 * (normal - 0.12), -0.36), 0.085 + 0.03 * film.rng.random())
    return np.maximum(band, np.clip((1.1 - knob) / 0.25, 0, 1))


def _air(chest: Chest, heart: np.ndarray) -> np.ndarray:
    """Air fraction of the lungs before findings, with uneven soft tissue over them."""
    film, rng = chest.film, chest.film.rng
    depth = film.blurred(chest.lung, 0.09)
    air = np.zeros(film.half, np.float32)
    for side in (-1, 1):
        rim = np.float32(rng.uniform(0.15, 0.75))  # how dark the outermost lung is: emphysema, thin walls
        air += chest.lungs[side] * (rim + (1 - rim) * depth)
    return air * (1 - 0.8 * heart)


def _veil(chest: Chest, opacity: np.ndarray) -> np.ndarray:
    """Fraction of the lungs' contrast lost to chest wall, clothing, breathing and scatter, 0-0.8.

    Smooth shadows of this kind lie on every film, as large and as dark as disease would make them on average: less
    where disease already takes the contrast, as the exposure follows the lungs. So the mean brightness of a region
    says little; what counts are edges and texture.
    """
    film, rng = chest.film, chest.film.rng
    veil = 0.26 + 0.13 * film.texture(0.7, rng) + rng.normal(0, 0.09) * film.x + rng.normal(0, 0.08) * film.y
    for centre, reach, most in (((-0.25, 0.0), 0.5, 0.4), ((0.25, 0.0), 0.5, 0.4), ((0.32, 0.2), 0.5, 0.6),
                                ((-0.25, 0.25), 0.45, 0.45)):  # both hila, the fat beside the heart
        shadow = np.clip(1.2 - film.blob(centre, reach * rng.uniform(0.7, 1.2), 1.1), 0, 1)
        veil += np.float32(most * rng.random() ** 1.5) * shadow
    if rng.random() < 0.4:  # coarse markings of age and smoking, fainter than edema and all over
        veil += np.float32(rng.uniform(0.0, 0.04)) * film.texture(rng.uniform(0.035, 0.06), rng)
    follow = film.blurred(opacity * chest.lung, 0.25) / (film.blurred(chest.lung, 0.25) + 0.05)
    return np.clip(veil - 0.7 * follow, 0, 0.8).astype(np.float32)


def _pneumothorax(chest: Chest, air: np.ndarray) -> np.ndarray | None:
    """Air beside the collapsed lung; returns where the vessels are gone (0-1, half resolution), or None."""
    sign = chest.signs.get("Pneumothorax")
    if sign is None:
        return None
    film, side = chest.film, sign["side"]
    anchor = np.array([side * 0.18, chest.domes[side] + 0.12])
    shrunk = anchor + (chest.outlines[side] - anchor) * (1 - sign["size"])
    outside = np.clip(chest.lungs[side] - film.area(shrunk), 0, 1) * (side * film.x > 0.14)
    outside *= np.clip((chest.domes[side] + 0.1 - film.y) / 0.1, 0, 1)
    film.mark("Pneumothorax", outside > 0.5)
    plain = np.float32(min(sign["plain"], 1.2))
    air += outside * plain * np.float32(0.09)
    chest.edge = shrunk[side * shrunk[:, 0] > 0.16]
    return outside * min(float(plain) * 1.1, 1.0)


def _midline_structures(chest: Chest) -> np.ndarray:
    """Trachea and main bronchi (dark), spine with its discs, hila."""
    film, rng = chest.film, chest.film.rng
    tracheal = film.canvas(half=True)
    shift = chest.turn + 0.5 * chest.pull
    film.stroke(tracheal, curve([(shift * 0.5, -1.3), (shift, -0.7), (shift + 0.01, -0.27)]), 0.1)
    for side, drop in ((-1, 0.12), (1, 0.08)):
        film.stroke(tracheal, np.array([(shift, -0.29), (shift + side * 0.15, -0.29 + drop)]), 0.045, 140)
    dark = film.blurred(tracheal.astype(np.float32) / 255, 0.012)
    spine = np.clip((0.085 - np.abs(film.x - chest.midline)) / 0.02 + 0.5, 0, 1)
    discs = 0.75 + 0.25 * np.cos(film.y * np.float32(2 * np.pi / 0.135) + np.float32(rng.uniform(0, 6)))
    hila = sum(np.clip(1.2 - film.blob((side * 0.19 + chest.turn, -0.08 + 0.03 * side), 0.1, 1.5), 0, 1)
               for side in (-1, 1))
    return 0.09 * spine * discs - np.float32(rng.uniform(0.17, 0.26)) * dark + np.float32(rng.uniform(0.03, 0.1)) * hila


def _soft_shadows(chest: Chest, body: np.ndarray) -> np.ndarray:
    """What may be mistaken for disease on any film: breasts, skin folds, stomach gas, scapulae."""
    film, rng, anatomy = chest.film, chest.film.rng, chest.anatomy
    shadow = np.zeros(film.half, np.float32)
    droop = rng.uniform(0.12, 0.4)
    for side in (-1, 1):
        size = rng.uniform(0.36, 0.5)
        breast = film.blob((side * rng.uniform(0.46, 0.58), droop + 0.38 - size), size, 0.9)
        thick = np.clip((film.y - np.float32(droop + 0.38 - 1.6 * size)) / np.float32(1.5 * size), 0, 1)  # hangs
        shadow += np.float32(anatomy.breasts) * thick * thick * np.clip((1.04 - breast) / 0.16, 0, 1)
        scapula = np.array([(0.62, -0.62), (0.86, -0.7), (1.0, -0.45), (0.80, -0.05), (0.70, 0.02), (0.66, -0.3)])
        out = rng.uniform(0.0, 0.22)
        shadow += np.float32(0.09) * film.area(curve((scapula + np.array([out, 0])) * (side, 1), closed=True), 0.01)
    if rng.random() < 0.6:
        gas = film.blob((rng.uniform(0.25, 0.5), chest.domes[1] + rng.uniform(0.14, 0.24)), rng.uniform(0.08, 0.2), 0.6)
        gas += np.float32(0.12) * film.texture(0.12, rng)
        shadow -= np.float32(rng.uniform(0.1, 0.3)) * np.clip((1 - gas) / 0.5, 0, 1)
    for _ in range(rng.integers(0, 3) if rng.random() < 0.4 else 0):  # skin folds: an edge, but vessels go on beyond
        x = rng.uniform(0.35, 0.8) * (1 if rng.random() < 0.5 else -1)
        fold = film.x - np.float32(x) - np.float32(rng.normal(0, 0.25)) * film.y
        shadow += np.float32(rng.uniform(0.03, 0.1)) * np.clip(fold / 0.01, 0, 1) * np.clip(1 - fold / 0.35, 0, 1)
    return shadow * (body > 0.1)


def rib_courses(chest: Chest, side: int, front: bool) -> np.ndarray:
    """Arcs (10, 14, 2) of a side's ribs: the back part from the spine to the wall, or the front part on from there."""
    anatomy = chest.anatomy
    number, t = np.arange(10)[:, None], np.linspace(0, 1, 14)
    top = anatomy.apex + 0.02 + number * anatomy.rib_gap
    drop = anatomy.rib_drop * (0.10 + 0.035 * number)
    height = top + 0.25 * drop
    reach = chest.width * np.interp(height, [-0.8, -0.6, -0.35, 0.0, 0.3], [0.45, 0.68, 0.88, 0.98, 1.03])
    if not front:
        x = 0.07 + (reach - 0.07) * np.sin(t * np.pi / 2)
        y = top - 0.06 * np.sin(np.pi * t) * (1 - 0.06 * number) + drop * t**2.2
    else:
        x = reach - (reach - 0.3 * chest.width) * (1 - np.cos(t * np.pi / 2)) ** 0.8
        y = top + drop + (0.22 + 0.02 * number) * np.sin(t * np.pi / 2)
    return np.stack([side * x + 0.5 * chest.turn, y], axis=-1)


def _bones(chest: Chest, air_full: np.ndarray) -> None:
    """Ribs, clavicles and broken ribs."""
    film, anatomy, rng = chest.film, chest.anatomy, chest.film.rng
    back, front = film.canvas(), film.canvas()
    fracture = chest.signs.get("Fracture", {})
    width = anatomy.rib_width
    for side in (-1, 1):
        courses = rib_courses(chest, side, front=False)
        broken = fracture["ribs"] if side == fracture.get("side") and not fracture["clavicle"] else []
        pieces = [np.delete(courses, broken, axis=0)]
        for number in broken:
            pieces += _broken(chest, courses[number], fracture, width)
        for thick, value in ((width, 210), (0.55 * width, 140)):  # the edges of a bone are denser than its middle
            for piece in pieces:
                film.stroke(back, piece, thick, value)
        film.stroke(front, rib_courses(chest, side, front=True)[1:7], width * 1.1, 110)
        lift = rng.normal(0, 0.04)
        clavicle = np.array([(0.09, -0.545), (0.2, -0.575 + lift / 3), (0.34, -0.60 + lift / 2), (0.5, -0.665 + lift),
                             (0.66, -0.735 + lift), (0.8, -0.745 + lift), (0.92, -0.715 + lift)])
        clavicle = curve(clavicle * (side, 1) + (chest.turn, 0), per_point=3)
        pieces = [clavicle]
        if side == fracture.get("side") and fracture["clavicle"]:
            pieces = _broken(chest, clavicle, fracture, 0.06)
        for piece in pieces:
            film.stroke(back, piece, 0.06, 255)
            film.stroke(back, piece, 0.036, 190)
        film.stroke(back, clavicle[:3], 0.085, 200)  # the thick end at the sternum
        for thick, value in ((0.11, 225), (0.075, 150)):
            film.stroke(back, chest.arms[side], thick, value)
    bones = cv2.blur(cv2.max(back, front), (3, 3)).astype(np.float32)
    cv2.accumulateProduct(bones, (air_full + np.float32(0.35)) * np.float32(rng.uniform(0.15, 0.25) / 255), film.sharp)


def _broken(chest: Chest, course: np.ndarray, sign: dict, width: float) -> list[np.ndarray]:
    """Two pieces of a bone that is broken `along` its course: out of step, with a gap or with callus."""
    film = chest.film
    at = int(np.clip(round(sign["along"] * (len(course) - 1)), 2, len(course) - 3))
    near, far = course[: at + 1], course[at:].copy()
    direction = course[at + 1] - course[at - 1]
    direction = direction / np.linalg.norm(direction)
    normal = np.array([-direction[1], direction[0]])
    far += sign["step"] * width * normal + sign["gap"] * direction
    distance = film.blob(tuple(course[at]), 0.075)
    film.mark("Fracture", distance < 1)
    if sign["callus"] > 0.5:
        film.soft += np.float32(0.22 * sign["callus"]) * np.clip(1.1 - film.blob(tuple(course[at]), 0.05), 0, 1)
    return [near, far]


def _vessels(chest: Chest, air_full: np.ndarray, collapse: np.ndarray | None) -> None:
    """Lung vessels, cuffed and blurred by edema, absent where a pneumothorax is."""
    film, edema = chest.film, chest.signs.get("Edema")
    canvas = film.canvas()
    calibre = film.rng.uniform(0.85, 1.2)  # drawn with edema too: all else stays the same
    swollen = 1 + 0.6 * min(edema["plain"], 1.0) if edema else calibre
    for side in (-1, 1):
        for points, width in reversed(chest.anatomy.vessels[side]):
            course = chest.place(side, points[..., 0], points[..., 1])
            film.stroke(canvas, course, width * swollen, 120 + 3500 * width)
    vessels = cv2.blur(canvas, (3, 3)).astype(np.float32)
    if edema:
        vessels = cv2.GaussianBlur(vessels, (0, 0), 0.6 + 1.2 * min(edema["plain"], 1.0))
    strength = film.rng.uniform(0.16, 0.26) / 255
    vessels *= air_full * np.float32(strength)
    film.sharp += vessels if collapse is None else vessels * (1 - film.full(collapse))


def _nodules(chest: Chest) -> None:
    """Lung lesions: round, sharp or fuzzy; and nipples, which look like them, on any film."""
    film, rng = chest.film, chest.film.rng
    for patch in chest.signs.get("Lung Lesion", {}).get("patches", ()):
        nodule = ragged(chest, patch, 0.3 + 0.5 * patch.aspect / 1.5, 0.12)
        film.soft += np.float32(0.3 * patch.plain) * nodule
        film.mark("Lung Lesion", nodule > 0.4)
    if rng.random() < 0.2:
        height, size = chest.domes[1] - rng.uniform(0.02, 0.2), rng.uniform(0.022, 0.035)
        for side in (-1, 1):
            nipple = film.blob((side * rng.uniform(0.42, 0.55), height), size)
            film.soft += np.float32(rng.uniform(0.03, 0.12)) * np.clip((1.1 - nipple) / 0.3, 0, 1)


def _lines(chest: Chest, collapse: np.ndarray | None) -> None:
    """The pleural edge of a collapsed lung."""
    if collapse is None:
        return
    film, sign = chest.film, chest.signs["Pneumothorax"]
    canvas = film.canvas()
    gaps = np.flatnonzero(np.linalg.norm(np.diff(chest.edge, axis=0), axis=1) > 0.15)
    for piece in np.split(chest.edge, gaps + 1):
        if len(piece) > 1:
            film.stroke(canvas, piece[piece[:, 1] < chest.domes[sign["side"]]], 0.013)
    film.sharp += cv2.blur(canvas, (2, 2)).astype(np.float32) * np.float32(0.26 * sign["plain"] / 255)


def _mark_parents(chest: Chest, heart: np.ndarray, mediastinum: np.ndarray) -> None:
    """Heart, mediastinum and the opacities' common parent."""
    film = chest.film
    film.mark_opacity()
    if "Cardiomegaly" in chest.signs:
        film.mark("Cardiomegaly", heart > 0.5)
    if "Enlarged Cardiomediastinum" in chest.signs:
        wide = "half_width" in chest.signs["Enlarged Cardiomediastinum"]
        film.mark("Enlarged Cardiomediastinum", (mediastinum > 0.5) & (film.y < 0) if wide else heart > 0.5)
        if wide and "Cardiomegaly" in chest.signs:
            film.mark("Enlarged Cardiomediastinum", heart > 0.5)
