"""Lines, tubes, pacemakers and wires on the phantom, from the front and from the side."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from .chest import Chest
from .films import Film, curve


def draw_frontal(chest: Chest, sign: dict) -> None:
    """Draw the devices of `sign` (see phantom_signs) on a frontal chest (phantom_frontal.Chest)."""
    film, middle = chest.film, chest.turn
    _draw(film, [FRONTAL[kind](np.random.default_rng([sign["seed"], number]), chest, middle)
                 for number, kind in enumerate(sign["kinds"])], sign["plain"])


def draw_lateral(film: Film, sign: dict) -> None:
    """Draw the devices of `sign` on a lateral film."""
    _draw(film, [LATERAL[kind](np.random.default_rng([sign["seed"], number]))
                 for number, kind in enumerate(sign["kinds"])], sign["plain"])


def _draw(film: Film, devices: list[list[tuple]], plain: float) -> None:
    """Each device is a list of (points, width, density, hollow); a single point is a disc."""
    for strokes in devices:
        for points, width, density, hollow in strokes:
            canvas = film.canvas()
            points = np.atleast_2d(points)
            if len(points) == 1:
                points = np.vstack([points, points + 1e-3])
            film.stroke(canvas, points, width)
            if hollow:
                film.stroke(canvas, points, width * 0.5, 70)
            film.sharp += canvas * np.float32(density * plain / 255)
            film.mark("Support Devices", cv2.resize(cv2.dilate(canvas, None), film.half[::-1]) > 40)


def _central_line(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    side = 1 if rng.random() < 0.4 else -1
    tip = (middle - 0.07, rng.uniform(-0.25, 0.05))
    if rng.random() < 0.5:  # through the neck
        points = [(side * 0.2, -1.2), (side * 0.17, -0.8), (side * 0.05 - 0.06, -0.5), tip]
    else:  # through the subclavian vein or from the arm
        points = [(side * 1.1, rng.uniform(-0.6, -0.3)), (side * 0.6, -0.58), (side * 0.25, -0.53),
                  (middle - 0.05, -0.42), tip]
    return [(curve(points), 0.014, 0.22, False)]


def _tracheal_tube(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    tip = (middle + rng.normal(0, 0.01), rng.uniform(-0.5, -0.34))
    return [(curve([(rng.normal(0, 0.05), -1.3), (middle, -0.8), tip]), 0.045, 0.18, True)]


def _gastric_tube(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    end = (rng.uniform(0.2, 0.5), rng.uniform(0.55, 0.8))
    return [(curve([(rng.normal(0, 0.05), -1.3), (middle, -0.6), (middle + 0.03, 0.1), (0.12, 0.42), end]), 0.018,
             0.2, False)]


def _pacemaker(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    side = 1 if rng.random() < 0.75 else -1
    box = np.array([side * rng.uniform(0.5, 0.68), rng.uniform(-0.55, -0.42)])
    strokes = [(box + np.array([(-0.035, -0.015), (0.035, 0.015)]), 0.13, 0.6, False)]
    for end in ([(0.25, 0.28)], [(0.25, 0.28), (-0.12, 0.05)])[rng.integers(2)]:
        lead = curve([box, (side * 0.3, -0.56), (middle - 0.05, -0.35), (-0.08, 0.0), end])
        strokes.append((lead, 0.010, 0.28, False))
    return strokes


def _chest_tube(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    side = 1 if rng.random() < 0.5 else -1
    top = (side * rng.uniform(0.25, 0.5), rng.uniform(-0.6, -0.1))
    points = [(side * 1.15, 0.45), (side * chest.width * 0.95, 0.25), (side * 0.6, 0.0), top]
    return [(curve(points), 0.04, 0.16, True)]


def _leads(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    strokes = []
    for _ in range(rng.integers(2, 5)):
        disc = rng.uniform((-0.8, -0.6), (0.8, 0.6))
        away = disc + rng.normal(0, 0.5, 2)
        end = (rng.choice([-1.3, 1.3]), rng.uniform(-0.5, 1.1))
        strokes += [(disc, 0.05, 0.3, False), (curve([disc, away, end]), 0.009, 0.16, False)]
    return strokes


def _sternal_wires(rng: np.random.Generator, chest: Chest, middle: np.ndarray) -> list:
    strokes = []
    for y in np.linspace(-0.4, 0.2, int(rng.integers(4, 7))):
        loop = np.array([(-0.03, 0), (0, -0.012), (0.03, 0), (0, 0.014), (-0.03, 0.002)])
        loop += np.array([middle * 1.6 + rng.normal(0, 0.006), y])
        strokes.append((loop, 0.009, 0.35, False))
    return strokes


FRONTAL = {"central line": _central_line, "tracheal tube": _tracheal_tube, "gastric tube": _gastric_tube,
           "pacemaker": _pacemaker, "chest tube": _chest_tube, "leads": _leads, "sternal wires": _sternal_wires}


def _side_line(start: Sequence[float], middle: np.ndarray, end: Sequence[float],
               width: float, density: float, hollow: bool = False
               ) -> Callable[[np.random.Generator], list]:
    def draw(rng: np.random.Generator) -> list:
        points = np.array([start, middle, end]) + rng.normal(0, 0.03, (3, 2))
        return [(curve(points), width, density, hollow)]
    return draw


def _side_pacemaker(rng: np.random.Generator) -> list:
    box = np.array([-0.5, rng.uniform(-0.45, -0.3)])
    lead = curve([box, (-0.2, -0.5), (0.0, -0.2), (-0.3, 0.3)])
    return [(box + np.array([(0, 0), (0.01, 0.09)]), 0.05, 0.6, False), (lead, 0.015, 0.3, False)]


def _side_leads(rng: np.random.Generator) -> list:
    strokes = []
    for _ in range(rng.integers(2, 5)):
        disc = rng.uniform((-0.7, -0.5), (0.7, 0.6))
        wire = curve([disc, disc + rng.normal(0, 0.4, 2), (1.3, 0.9)])
        strokes += [(disc, 0.04, 0.3, False), (wire, 0.009, 0.16, False)]
    return strokes


def _side_wires(rng: np.random.Generator) -> list:
    return [(np.array([(-0.56 + 0.1 * y, y), (-0.53 + 0.1 * y, y + 0.03)]), 0.01, 0.35, False)
            for y in np.linspace(-0.35, 0.25, int(rng.integers(4, 7)))]


LATERAL = {"central line": _side_line((0.05, -1.2), (-0.02, -0.6), (-0.02, -0.1), 0.014, 0.22),
           "tracheal tube": _side_line((-0.02, -1.3), (0.0, -0.8), (0.03, -0.42), 0.045, 0.18, True),
           "gastric tube": _side_line((0.05, -1.3), (0.2, -0.1), (0.1, 0.75), 0.018, 0.2),
           "pacemaker": _side_pacemaker,
           "chest tube": _side_line((0.4, 0.9), (0.35, 0.2), (0.2, -0.45), 0.04, 0.16, True),
           "leads": _side_leads, "sternal wires": _side_wires}
