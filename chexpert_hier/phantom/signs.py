"""The signs of a phantom study: where, how large and how plain each finding is, and the patient's own anatomy.

Drawn once per study and seen from the front and from the side, so that both views show the same findings.
Places in a lung are (side, across, down, depth): side -1 is the patient's right lung (left on the film), across 0 at
the mediastinum and 1 at the ribs, down 0 at the apex and 1 at the diaphragm, depth -1 at the sternum and 1 at the
spine.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..labels import CHEXPERT_LABELS

FAINT_SHARE = 0.12  # of the positives are close to invisible


@dataclass(frozen=True)
class Anatomy:
    """One patient's chest; lengths in patient units (see phantom_films)."""

    half_width: float
    apex: float
    wall: float
    dome: float
    heart_ratio: float
    mediastinum: float
    rib_gap: float
    rib_width: float
    rib_drop: float
    spine_bend: float
    breasts: float
    stoutness: float
    vessels: dict[int, list[tuple[np.ndarray, float]]]  # by side; see _vessel_tree


@dataclass(frozen=True)
class Patch:
    """An opacity with its place in a lung, size and how plain it is on either view."""

    side: int
    across: float
    down: float
    depth: float
    radius: float
    aspect: float
    degrees: float
    plain: float
    plain_lateral: float


def draw_anatomy(rng: np.random.Generator, sex: str) -> Anatomy:
    """Draw a patient's anatomy."""
    stoutness = rng.random()
    return Anatomy(
        half_width=rng.uniform(0.68, 0.88),
        apex=rng.uniform(-0.82, -0.68),
        wall=rng.uniform(0.06, 0.14) + 0.1 * stoutness,
        dome=rng.uniform(0.30, 0.46),
        heart_ratio=float(np.clip(rng.normal(0.44, 0.03), 0.36, 0.495)),  # cardiothoracic ratio of a normal heart
        mediastinum=rng.normal(0.122, 0.014),
        rib_gap=rng.uniform(0.115, 0.15),
        rib_width=rng.uniform(0.034, 0.05),
        rib_drop=rng.uniform(0.7, 1.25),
        spine_bend=rng.normal(0, 0.035),
        breasts=(rng.uniform(0.05, 0.3) if sex == "Female" else 0.1 * rng.random()) * (0.6 + 0.6 * stoutness),
        stoutness=stoutness,
        vessels={side: _vessel_tree(rng) for side in (-1, 1)},
    )


def _vessel_tree(rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Lung vessels from the hilum outwards: for each order of branching the places (lines, points, 2) as (across,
    down), and the width."""
    main, oval = 11, np.array([1.0, 0.62])
    direction = np.linspace(-1.45, 1.5, main) + rng.normal(0, 0.1, main)
    ahead = np.stack([np.cos(direction), np.sin(direction)], axis=-1)
    start = np.array([0.08, 0.5]) + ahead * np.array([0.0, 0.12])
    end = np.array([0.0, 0.5]) + ahead * oval * rng.uniform(0.45, 0.85, (main, 1))
    middle = (start + end) / 2 + rng.normal(0, 0.05, (main, 2))
    root = np.concatenate([middle, (middle + end) / 2, end, (middle + end) / 2])
    turn = np.tile(direction, 4) + rng.normal(0, 0.55, len(root))
    tip = root + rng.uniform(0.15, 0.32, (len(root), 1)) * np.stack([np.cos(turn), np.sin(turn)], axis=-1) * oval
    bend = (root + tip) / 2 + rng.normal(0, 0.015, root.shape)
    return [(np.stack([start, middle], axis=1), rng.uniform(0.022, 0.036)),
            (np.stack([middle, end], axis=1), rng.uniform(0.012, 0.02)),
            (np.stack([root, bend, tip], axis=1), 0.008)]


def how_plain(rng: np.random.Generator) -> float:
    """Factor on a finding's contrast; one in eight is close to invisible, the others differ threefold."""
    return rng.uniform(0.06, 0.25) if rng.random() < FAINT_SHARE else rng.uniform(0.5, 1.5)


def draw_signs(rng: np.random.Generator, truth: np.ndarray) -> dict[str, dict]:
    """Draw how each present finding shows itself.

    Args:
        rng: the study's own generator.
        truth: float (14,) of 0 and 1 in the order of CHEXPERT_LABELS.

    Returns:
        for each present finding its parameters, by the finding's name; Lung Opacity only when no finding below it
        in the tree explains it.
    """
    present = {name for name, state in zip(CHEXPERT_LABELS, truth) if state}
    children = {"Lung Lesion", "Edema", "Atelectasis", "Consolidation", "Pneumonia"}
    signs = {}
    for name, draw in SIGNS.items():
        # Each finding has its own stream: whether another is present does not move it.
        stream = np.random.default_rng(rng.integers(2**63))
        if name in present and not (name == "Lung Opacity" and present & children):
            signs[name] = draw(stream, present)
    return signs


def _patch(rng: np.random.Generator, low: float, high: float, down: tuple[float, float] = (0.1, 0.95)) -> Patch:
    return Patch(_side(rng), rng.uniform(0.15, 0.9), rng.uniform(*down), rng.uniform(-0.8, 0.9),
                 float(np.exp(rng.uniform(np.log(low), np.log(high)))), rng.uniform(0.55, 1.5), rng.uniform(0, 180),
                 how_plain(rng), how_plain(rng))


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _cardiomegaly(rng: np.random.Generator, present: Collection[str]) -> dict:
    faint = rng.random() < FAINT_SHARE
    return {"ratio": rng.uniform(0.46, 0.505) if faint else rng.uniform(0.505, 0.63)}


def _mediastinum(rng: np.random.Generator, present: Collection[str]) -> dict:
    # Cardiomegaly alone already makes its parent true; otherwise the mediastinum itself must be wide.
    if "Cardiomegaly" in present and rng.random() < 0.7:
        return {}
    faint = rng.random() < FAINT_SHARE
    return {"half_width": rng.uniform(0.145, 0.165) if faint else rng.uniform(0.18, 0.30),
            "lean": rng.uniform(-0.5, 0.5), "upper": rng.uniform(-0.75, -0.5)}


def _opacity(rng: np.random.Generator, present: Collection[str]) -> dict:
    return {"patches": [_patch(rng, 0.22, 0.5) for _ in range(1 if rng.random() < 0.7 else 2)]}


def _lesion(rng: np.random.Generator, present: Collection[str]) -> dict:
    number = 1 if rng.random() < 0.65 else int(rng.integers(2, 5))
    return {"patches": [_patch(rng, 0.035, 0.14) for _ in range(number)]}


def _edema(rng: np.random.Generator, present: Collection[str]) -> dict:
    return {"plain": how_plain(rng), "extent": rng.uniform(0.35, 0.8), "uneven": rng.normal(0, 0.35),
            "kerley": rng.random(), "grain": rng.uniform(0.026, 0.055), "plain_lateral": how_plain(rng)}


def _consolidation(rng: np.random.Generator, present: Collection[str]) -> dict:
    # A pneumonia is a consolidation already; a second, plain patch beside it is less common.
    number = int(rng.integers(0, 2)) if "Pneumonia" in present else int(rng.integers(1, 3))
    return {"patches": [_patch(rng, 0.13, 0.38, (0.15, 1.0)) for _ in range(number)]}


def _pneumonia(rng: np.random.Generator, present: Collection[str]) -> dict:
    return {"patches": [_patch(rng, 0.2, 0.42, (0.2, 1.0))], "edge": rng.uniform(-25, 25)}


def _atelectasis(rng: np.random.Generator, present: Collection[str]) -> dict:
    sides = [_side(rng)] if rng.random() < 0.6 else [-1, 1]
    tilt = {side: rng.normal(6 * side, 12) for side in sides}  # plates of one lung lie about parallel
    bands = [{"side": side, "down": rng.uniform(0.45, 1.0), "across": rng.uniform(0.3, 0.7),
              "length": rng.uniform(0.2, 0.5), "width": rng.uniform(0.016, 0.05),
              "degrees": tilt[side] + rng.normal(0, 5), "bend": rng.normal(0, 0.35), "depth": rng.uniform(-0.6, 0.8)}
             for side in sides for _ in range(int(rng.integers(1, 4)))]
    return {"bands": bands, "loss": {side: rng.uniform(0.0, 0.1) for side in sides},
            "haze": {side: rng.uniform(0.0, 0.7) for side in sides}, "plain": how_plain(rng),
            "plain_lateral": how_plain(rng)}


def _pneumothorax(rng: np.random.Generator, present: Collection[str]) -> dict:
    return {"side": _side(rng), "size": rng.uniform(0.07, 0.3), "plain": how_plain(rng)}


def _effusion(rng: np.random.Generator, present: Collection[str]) -> dict:
    sides = [_side(rng)] if rng.random() < 0.6 else [-1, 1]
    depths = {side: rng.uniform(0.03, 0.08) if rng.random() < FAINT_SHARE else 0.2 + 0.7 * rng.beta(1.2, 1.9)
              for side in sides}
    return {"depths": depths, "level": rng.random() < 0.12, "veil": rng.uniform(0, 0.3) * (rng.random() < 0.3)}


def _pleural_other(rng: np.random.Generator, present: Collection[str]) -> dict:
    start = rng.uniform(0.0, 0.55)
    return {"side": _side(rng), "kind": str(rng.choice(["band", "band", "cap", "plaques"])),
            "width": rng.uniform(0.04, 0.12), "start": start, "end": start + rng.uniform(0.3, 0.7),
            "plain": how_plain(rng), "places": rng.random((5, 3))}


def _fracture(rng: np.random.Generator, present: Collection[str]) -> dict:
    first, number = int(rng.integers(2, 8)), int(rng.choice([1, 2, 3, 4]))
    return {"side": _side(rng), "ribs": list(range(first, min(first + number, 9))), "along": rng.uniform(0.45, 0.9),
            "step": rng.uniform(0.5, 1.5) * (1 if rng.random() < 0.5 else -1), "gap": rng.uniform(0.0, 0.06),
            "callus": rng.random(), "clavicle": rng.random() < 0.12}


def _devices(rng: np.random.Generator, present: Collection[str]) -> dict:
    common = {"central line": 0.4, "tracheal tube": 0.25, "gastric tube": 0.3, "pacemaker": 0.18, "chest tube": 0.15,
              "leads": 0.45, "sternal wires": 0.15}
    kinds = [kind for kind, rate in common.items() if rng.random() < rate]
    return {"kinds": kinds or ["central line"], "plain": how_plain(rng), "seed": int(rng.integers(2**31))}


SIGNS = {
    "Enlarged Cardiomediastinum": _mediastinum,
    "Cardiomegaly": _cardiomegaly,
    "Lung Opacity": _opacity,
    "Lung Lesion": _lesion,
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Pleural Effusion": _effusion,
    "Pleural Other": _pleural_other,
    "Fracture": _fracture,
    "Support Devices": _devices,
}
