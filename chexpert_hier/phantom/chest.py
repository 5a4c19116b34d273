"""A frontal chest's outlines, to which anatomy and findings refer."""

import numpy as np
import numpy.typing as npt

from .films import Film, curve
from .signs import Anatomy


class Chest:
    """A chest on a frontal film: outlines that the findings refer to."""

    def __init__(self, film: Film, anatomy: Anatomy, signs: dict[str, dict], projection: str):
        rng = film.rng
        self.film, self.anatomy, self.signs = film, anatomy, signs
        self.width = anatomy.half_width
        self.breath = rng.normal(-0.02 if projection == "AP" else 0.03, 0.055)  # AP films are less inspired
        self.turn = rng.normal(0, 0.055)  # the patient turned: midline structures move against the ribs
        loss = signs.get("Atelectasis", {}).get("loss", {})
        self.domes = {side: anatomy.dome + self.breath + rng.normal(0.022 * side, 0.035) - loss.get(side, 0.0)
                      for side in (-1, 1)}
        self.angles = {side: anatomy.dome + self.breath + rng.uniform(0.16, 0.24) for side in (-1, 1)}
        self.pull = 0.25 * (loss.get(1, 0.0) - loss.get(-1, 0.0))  # volume loss draws the heart to its side
        ratio = signs.get("Cardiomegaly", {}).get("ratio", anatomy.heart_ratio)
        self.ratio = ratio * (rng.uniform(1.0, 1.05) if projection == "AP" else 1.0) - 0.15 * self.breath
        away = rng.uniform(-0.08, 0.12) if projection == "AP" else rng.uniform(0.02, 0.25)  # elbows from the trunk
        self.arms = {side: curve(np.array([(1.0, -0.58), (1.1 + 0.3 * away, -0.3), (1.17 + away, 0.1),
                                           (1.22 + 3 * away, 1.6)]) * (side, 1), per_point=3) for side in (-1, 1)}
        self.outlines = {side: self._lung_outline(side) for side in (-1, 1)}
        self.lungs = {side: film.area(self.outlines[side], 0.012) for side in (-1, 1)}
        self.lung = np.maximum(self.lungs[-1], self.lungs[1])
        self.midline = np.float32(self.turn) + np.float32(anatomy.spine_bend) * np.sin(3 * film.y)

    def _lung_outline(self, side: int) -> np.ndarray:
        """Closed outline (n, 2) of one lung."""
        w, top, dome, angle = self.width, self.anatomy.apex, self.domes[side], self.angles[side]
        inner = 0.115
        points = [(0.30 * w, top), (0.55 * w, top + 0.07), (0.78 * w, top + 0.27), (0.92 * w, top + 0.6),
                  (0.985 * w, 0.15), (1.0 * w, angle - 0.15), (0.975 * w, angle - 0.01), (0.86 * w, dome + 0.08),
                  (0.68 * w, dome), (0.45 * w, dome - 0.015), (0.25 * w, dome + 0.02), (inner, dome + 0.03),
                  (inner, 0.1), (inner, -0.2), (inner - 0.01, -0.45), (0.14 * w, top + 0.1)]
        return curve(np.array(points) * (side, 1), closed=True)

    def place(self, side: int, across: npt.ArrayLike, down: npt.ArrayLike) -> np.ndarray:
        """Coordinates (n, 2) of places in a lung; see phantom_signs."""
        across, down = np.asarray(across, dtype=float), np.asarray(down, dtype=float)
        y = self.anatomy.apex + down * (self.domes[side] + 0.03 - self.anatomy.apex)
        wall = self.width * np.interp(y, [-0.8, -0.5, -0.1, 0.3], [0.5, 0.78, 0.96, 1.0])
        return np.stack([side * (0.12 + across * (wall - 0.12)), y], axis=-1)
